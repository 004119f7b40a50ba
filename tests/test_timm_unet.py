"""The decoder on timm's encoders, and where their weights come from."""

import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from timm.layers import convert_sync_batchnorm
from torch import Tensor

from competition.command import Failure
from competition.settings import Train
from folds.timm_unet import ScSE, TimmUNet, make_encoder, match_weights, read_weights
from folds.trainer import make_optimizer


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def answer(network: TimmUNet, height: int, width: int) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = network.eval()(torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8))
    return logits


@pytest.mark.parametrize("encoder", ["mobilenetv2_100", "resnet18", "convnext_atto"])
def test_every_pixel_gets_a_logit(encoder: str) -> None:
    network = TimmUNet(encoder, "none", [16, 12, 8, 8, 4])
    assert network.divisor == 32
    logits = answer(network, 64, 96)
    assert logits.shape == (1, 1, 64, 96)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_a_shorter_decoder_is_enlarged_to_full_size(levels: int) -> None:
    network = TimmUNet("resnet18", "none", [8] * levels)
    assert len(network.blocks) == levels
    assert answer(network, 64, 64).shape == (1, 1, 64, 64)


def test_more_levels_than_the_encoder_halves_are_refused() -> None:
    with pytest.raises(Failure, match=r"network.decoder has 6 levels, but resnet18 halves the size only 5 times"):
        TimmUNet("resnet18", "none", [8] * 6)


def test_skip_connections_join_where_the_encoder_has_a_feature() -> None:
    """resnet18 halves five times with 64, 64, 128, 256, 512 channels; the photograph itself joins at full size."""
    network = TimmUNet("resnet18", "none", [40, 30, 20, 10, 5])
    assert [block[0].in_channels for block in network.blocks] == [512 + 256, 40 + 128, 30 + 64, 20 + 64, 10 + 3]
    sparse = TimmUNet("convnext_atto", "none", [40, 30, 20, 10, 5])
    assert [block[0].in_channels for block in sparse.blocks] == [320 + 160, 40 + 80, 30 + 40, 20, 10 + 3]


def test_the_defaults_are_the_network_that_old_checkpoints_hold() -> None:
    names = [name for name in TimmUNet("resnet18", "none", [8, 4]).state_dict() if not name.startswith("encoder.")]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    block = ["0.weight", *(f"1.{part}" for part in norm), "3.weight", *(f"4.{part}" for part in norm)]
    assert names == [*(f"blocks.{level}.{part}" for level in range(2) for part in block), "head.weight", "head.bias"]


@pytest.mark.parametrize(
    "options", [{"norm": "group"}, {"norm": "none"}, {"attention": "scse"}, {"enlarge": "bilinear"}, {"detail": 6}]
)
def test_every_option_answers_and_all_of_it_learns(options: dict[str, Any]) -> None:
    network = TimmUNet("resnet10t", "none", [16, 12, 8, 8, 4], **options)
    logits = network(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    assert logits.shape == (2, 1, 64, 96)
    logits.square().mean().backward()
    parameters = [each for name, each in network.named_parameters() if not name.startswith("encoder.")]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)


def test_scse_by_hand() -> None:
    """Weights of 0 leave two gates of one half; then a channel gate of sigmoid(2) and a spatial one of the pixel."""
    attention = ScSE(2)
    for parameter in attention.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])
    assert torch.equal(attention(x), x)
    torch.nn.init.constant_(attention.channel[3].bias, 2.0)
    attention.spatial[0].weight.data[0, 0] = 1.0
    gates = torch.tensor(2.0).sigmoid() + x[:, :1].sigmoid()
    assert torch.allclose(attention(x), x * gates)


def test_bilinear_enlargement_is_smooth() -> None:
    """The decoder's first block sees a ramp where nearest enlargement shows it steps."""
    seen = {}
    for enlarge in ("nearest", "bilinear"):
        torch.manual_seed(1)
        network = TimmUNet("resnet10t", "none", [4], enlarge=enlarge)  # type: ignore[arg-type]
        network.blocks[0].register_forward_pre_hook(lambda _, inputs, name=enlarge: seen.update({name: inputs[0]}))
        answer(network, 64, 64)
    steps = (seen["nearest"][:, :512, 0, 1], seen["bilinear"][:, :512, 0, 1])
    ends = seen["nearest"][:, :512, 0, 0], seen["nearest"][:, :512, 0, 2]
    assert torch.equal(steps[0], ends[0])
    assert torch.allclose(steps[1], 0.75 * ends[0] + 0.25 * ends[1], atol=1e-5)


def test_detail_draws_one_pixel_at_full_size() -> None:
    """Two convolutions on the photograph: the last level sees 7 channels of them, each from 5 x 5 pixels."""
    network = TimmUNet("resnet18", "none", [40, 30, 20, 10, 5], detail=7).eval()
    assert network.blocks[-1][0].in_channels == 10 + 7
    assert network.detail is not None
    photo = torch.zeros(1, 3, 16, 16)
    other = photo.clone()
    other[..., 8, 8] = 1
    with torch.inference_mode():
        changed = (network.detail(photo) != network.detail(other)).any(1)[0]
    assert torch.nonzero(changed).amin(0).tolist() == [6, 6]
    assert torch.nonzero(changed).amax(0).tolist() == [10, 10]


def test_detail_without_a_place_is_refused() -> None:
    reason = "network.detail=4 joins the last level of a decoder of 5, but network.decoder has 4; give it 5 channels"
    with pytest.raises(Failure, match=reason), torch.device("meta"):
        TimmUNet("resnet18", "none", [8] * 4, detail=4)


def test_squares_of_pixels_join_at_the_last_level_and_leave_it_as_pixels() -> None:
    """With a stem of 2, 12 channels join the encoder's own at half size, and the head answers for 4 pixels."""
    network = TimmUNet("resnet18", "none", [40, 30, 20, 10], stem=2)
    assert [block[0].in_channels for block in network.blocks] == [512 + 256, 40 + 128, 30 + 64, 20 + 64 + 12]
    assert answer(network, 64, 96).shape == (1, 1, 64, 96)
    detailed = TimmUNet("resnet18", "none", [8] * 4, stem=2, detail=6)
    assert detailed.blocks[-1][0].in_channels == 8 + 64 + 6
    assert answer(detailed, 64, 64).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("stem", [1, 2])
def test_one_pixel_of_the_photograph_reaches_the_answer_in_its_place(stem: int) -> None:
    """All else shut off, the head repeats the photograph's red: no pixel is moved by the way in and out."""
    network = TimmUNet("resnet18", "none", [3 * stem**2] * (6 - stem), stem=stem).eval()
    block = network.blocks[-1]
    for name, value in network.blocks[-1].named_parameters():
        if name in ("0.weight", "3.weight"):
            torch.nn.init.zeros_(value)
            for channel in range(3 * stem**2):
                value.data[channel, channel - 3 * stem**2 if name == "0.weight" else channel, 1, 1] = 1
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    for square in range(stem**2):
        network.head.weight.data[square, square] = 1
    assert block[0].in_channels > 3 * stem**2
    dark = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    lit = dark.clone()
    lit[0, 0, 13, 38] = 255
    with torch.inference_mode():
        changed = torch.nonzero((network(lit) - network(dark))[0, 0].abs() > 0.1)
    assert changed.tolist() == [[13, 38]]


@pytest.mark.parametrize(
    ("encoder", "freeze", "frozen"),
    [
        ("resnet18", 2, {"conv1", "bn1", "act1", "maxpool", "layer1"}),
        ("mobilenetv2_100", 1, {"conv_stem", "bn1", "blocks.0"}),
        ("convnext_atto", 1, {"stem_0", "stem_1", "stages_0"}),
    ],
)
def test_what_is_frozen_stays_and_all_else_learns(encoder: str, freeze: int, frozen: set[str]) -> None:
    network = TimmUNet(encoder, "none", [8] * 5, freeze=freeze).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = make_optimizer(network, Train(optimizer="sgd", lr=0.1, weight_decay=0.1))
    network(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).square().mean().backward()
    optimizer.step()
    kept = {name for name in before if name.startswith(tuple(f"encoder.{part}." for part in frozen))}
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert kept
    assert not kept & changed, "weights and statistics"
    assert {name for name, value in network.named_parameters() if value.grad is None} == {
        name for name, _ in network.named_parameters() if name in kept
    }


def test_what_is_frozen_stays_so_with_synchronised_normalisations() -> None:
    network = convert_sync_batchnorm(TimmUNet("resnet18", "none", [8], freeze=1)).train()
    assert isinstance(network.encoder.bn1, torch.nn.SyncBatchNorm)
    assert not network.encoder.bn1.training
    assert not network.encoder.bn1.weight.requires_grad
    assert network.encoder.layer1[0].bn1.training


def test_more_frozen_than_there_is_is_refused() -> None:
    with pytest.raises(Failure, match=r"network.freeze=6, but resnet18 has 5 features; freeze that many or fewer"):
        TimmUNet("resnet18", "none", [8], freeze=6)


@pytest.mark.parametrize(("stem", "levels", "wanted"), [(2, 5, 4), (4, 4, 3), (2, 3, 4)])
def test_a_decoder_that_does_not_end_at_the_stem_is_refused(stem: int, levels: int, wanted: int) -> None:
    reason = f"network.stem={stem} makes pixels of .* resnet18 reaches with {wanted} levels, not {levels}; give"
    with pytest.raises(Failure, match=reason), torch.device("meta"):
        TimmUNet("resnet18", "none", [8] * levels, stem=stem)


def test_pixels_are_normalised_as_the_encoder_was_trained() -> None:
    network = TimmUNet("tf_efficientnet_lite0", "none", [8])
    grey = network.normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    assert torch.allclose(grey, torch.ones(1, 3, 2, 2), atol=1e-6), "mean and std of this encoder are 0.5"


@pytest.mark.parametrize("weights", ["none", "hub"])
def test_an_unknown_encoder_is_refused_with_names_like_it(weights: str) -> None:
    with pytest.raises(Failure, match=r"network.encoder='resnet1' is no timm encoder.*resnet18") as refused:
        TimmUNet("resnet1", weights, [8])
    assert "\n" not in str(refused.value)


def trained(encoder: str) -> dict[str, Tensor]:
    """A state dict as if it had been trained: no value is what a fresh model has."""
    model = timm.create_model(encoder)
    return {
        name: tensor + 1 if tensor.dtype == torch.int64 else torch.rand_like(tensor)
        for name, tensor in model.state_dict().items()
    }


def write(path: Path, weights: dict[str, Tensor], wrapping: str | None = None) -> str:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save({wrapping: weights} if wrapping else OrderedDict(weights), path)
    return str(path)


def loaded(network: TimmUNet) -> dict[str, Tensor]:
    """The encoder's weights under the model's own names, of which timm flattens some."""
    return {name.replace(".", "_"): tensor for name, tensor in network.encoder.state_dict().items()}


@pytest.mark.parametrize(
    ("encoder", "file", "wrapping"),
    [
        ("convnext_atto", "w.pth", None),
        ("resnet10t", "w.safetensors", None),
        ("resnet10t", "w.pt", "state_dict"),
        ("resnet10t", "w.pt", "model"),
    ],
)
def test_weights_by_name(tmp_path: Path, encoder: str, file: str, wrapping: str | None) -> None:
    weights = trained(encoder)
    shuffled = dict(sorted(weights.items(), reverse=True))
    network = TimmUNet(encoder, write(tmp_path / file, shuffled, wrapping), [8])
    assert loaded(network)
    flat = {name.replace(".", "_"): tensor for name, tensor in weights.items()}
    assert all(torch.equal(tensor, flat[name]) for name, tensor in loaded(network).items())


def test_weights_in_order(tmp_path: Path) -> None:
    """Another library's file of the same architecture: other names, the same tensors in the same order."""
    weights = trained("mobilenetv2_100")
    renamed = {f"features.{number}": tensor for number, tensor in enumerate(weights.values())}
    network = TimmUNet("mobilenetv2_100", write(tmp_path / "other.pth", renamed), [8])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.encoder.state_dict().items())


@pytest.mark.parametrize("head", [None, 7])
def test_weights_trained_under_another_head(tmp_path: Path, head: int | None) -> None:
    """The encoder is what is needed: a file without its head, or with one of other classes, gives it."""
    weights = {name: tensor for name, tensor in trained("resnet10t").items() if not name.startswith("fc.")}
    if head:
        weights |= {"fc.weight": torch.rand(head, 512), "fc.bias": torch.rand(head)}
    network = TimmUNet("resnet10t", write(tmp_path / "w.pth", weights), [8])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.encoder.state_dict().items())


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "resnet18.pth", trained("resnet18"))
    with pytest.raises(Failure, match=r"resnet18.pth does not fit mobilenetv2_100: its conv1.weight has shape") as no:
        TimmUNet("mobilenetv2_100", path, [8])
    assert "\n" not in str(no.value)


def test_fewer_tensors_are_refused() -> None:
    ours = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(Failure, match="holds 1 tensors, the encoder 2"):
        match_weights({"x": torch.zeros(2)}, ours, Path("w.pth"), "net")
    with pytest.raises(Failure, match=r"its y has shape \(4,\), where b has \(3,\)"):
        match_weights({"x": torch.zeros(2), "y": torch.zeros(4)}, ours, Path("w.pth"), "net")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"no file of weights .*none.pth; network.weights is hub, none, or a file"):
        TimmUNet("mobilenetv2_100", str(tmp_path / "none.pth"), [8])


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_file_that_needs_unpickling_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    with pytest.raises(Failure, match="is no readable file of weights"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("name", "content"), [("w.pth", b""), ("w.pth", b"text"), ("w.safetensors", b"text")])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Failure, match=r"is no readable file of weights \(.+\)") as refused:
        read_weights(tmp_path / name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"a": torch.zeros(1), "epoch": 3}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(Failure, match="holds no state dict of tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ("resnet18.nonsense", r"for network.encoder=resnet18.nonsense \(Invalid .*\); there are resnet18.a1_in1k"),
        ("coatnet_0_224", r"for network.encoder=coatnet_0_224 \(none were published\); "),
    ],
)
def test_weights_that_no_hub_has_are_not_blamed_on_the_network(encoder: str, reason: str) -> None:
    with pytest.raises(Failure, match=f"timm has no pretrained weights {reason}") as refused:
        TimmUNet(encoder, "hub", [8])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("hub", "cannot load hf-hub:a/b's pretrained weights from timm's hub"),
        ("none", "cannot load hf-hub:a/b from the hub, which alone knows what it is"),
        (
            "w.pth",
            "network.encoder=hf-hub:a/b is the hub's, and network.weights=w.pth a file; name one of timm's own",
        ),
    ],
)
def test_an_encoder_of_the_hub_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, reason: str
) -> None:
    offline(tmp_path, monkeypatch)
    with pytest.raises(Failure, match=reason) as refused:
        TimmUNet("hf-hub:a/b", weights, [8])
    assert "\n" not in str(refused.value)


def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client without a network and with nothing of before."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))


def test_an_unreachable_hub_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(tmp_path, monkeypatch)
    began = time.monotonic()
    with pytest.raises(Failure, match=r"cannot load resnet18's pretrained weights from timm's hub") as refused:
        TimmUNet("resnet18", "hub", [8])
    assert time.monotonic() - began < 60, "it must not wait for a network"
    assert "SET=network.weights=FILE" in str(refused.value)
    assert "SET=network.weights=none" in str(refused.value)
    assert "\n" not in str(refused.value)


class Answering(BaseHTTPRequestHandler):
    """A hub that has nothing, and notes what it is asked for."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make a port of this machine the hub, with nothing fetched before."""

    def set_port(port: int) -> None:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, f"http://127.0.0.1:{port}")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    return set_port


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_hub_that_does_not_answer_is_asked_once(
    hub_at: Callable[[int], None], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_at(closed_port())
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it must not try again"))
    with pytest.raises(Failure, match=r"timm's hub \(ConnectError: .*refused.*\); fetch them on a machine"):
        make_encoder("test_resnet", "hub")
    assert capfd.readouterr() == ("", "")
    assert not constants.HF_HUB_OFFLINE


def test_what_was_fetched_before_needs_no_hub(hub_at: Callable[[int], None], tmp_path: Path) -> None:
    hub_at(closed_port())
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    fetched = timm.create_model("test_resnet").state_dict()
    safetensors.torch.save_file(fetched, snapshot / "model.safetensors")
    name, weight = next(iter(fetched.items()))
    assert torch.equal(make_encoder("test_resnet", "hub").state_dict()[name], weight)


def test_a_hub_that_answers_is_asked_for_the_weights(hub_at: Callable[[int], None]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub_at(server.server_port)
        with pytest.raises(Failure, match="cannot load test_resnet's pretrained weights"):
            make_encoder("test_resnet", "hub")
        server.shutdown()
    assert any("model.safetensors" in path for path in Answering.asked)
