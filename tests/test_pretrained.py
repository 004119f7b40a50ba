"""Encoders and their weights: from the hub, from files of several kinds, or none."""

import hashlib
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from torch import Tensor

from competition.command import Failure
from folds.networks.pretrained import make_encoder, match_weights, read_weights
from folds.networks.timm_unet import TimmUNet


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("weights", ["none", "hub"])
def test_an_unknown_encoder_is_refused_with_names_like_it(weights: str) -> None:
    with pytest.raises(Failure, match=r"network.encoder='resnet1' is not a timm encoder.*resnet18") as refused:
        TimmUNet("resnet1", weights, [8])
    assert "\n" not in str(refused.value)


def trained(encoder: str) -> dict[str, Tensor]:
    """A state dict as if it had been trained: no learned value is what a fresh model has."""
    model = timm.create_model(encoder)
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor
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


def test_weights_from_before_batches_were_counted(tmp_path: Path) -> None:
    weights = trained("resnet10t")
    older = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    assert len(older) < len(weights)
    renamed = {f"features.{number}": tensor for number, tensor in enumerate(older.values())}
    for number, file in enumerate((older, renamed)):
        network = TimmUNet("resnet10t", write(tmp_path / f"{number}.pth", file), [8])
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
    with pytest.raises(Failure, match="has 1 tensors, and the encoder 2"):
        match_weights({"x": torch.zeros(2)}, ours, Path("w.pth"), "net")
    with pytest.raises(Failure, match=r"its y has shape \(4,\), where b has \(3,\)"):
        match_weights({"x": torch.zeros(2), "y": torch.zeros(4)}, ours, Path("w.pth"), "net")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"there is no file .*none.pth; network.weights is hub, none, or a file"):
        TimmUNet("mobilenetv2_100", str(tmp_path / "none.pth"), [8])


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_file_that_needs_unpickling_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    with pytest.raises(Failure, match="is not a readable file of weights"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("name", "content"), [("w.pth", b""), ("w.pth", b"text"), ("w.safetensors", b"text")])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Failure, match=r"is not a readable file of weights \(.+\)") as refused:
        read_weights(tmp_path / name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"a": torch.zeros(1), "epoch": 3}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(Failure, match="does not contain a state dict of tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (
            "resnet18.nonsense",
            r"for network.encoder=resnet18.nonsense \(Invalid .*\); similar names: resnet18.a1_in1k",
        ),
        ("coatnet_0_224", r"for network.encoder=coatnet_0_224 \(none were published\); "),
    ],
)
def test_weights_that_timm_has_not_published(encoder: str, reason: str) -> None:
    with pytest.raises(Failure, match=f"timm has no pretrained weights {reason}") as refused:
        TimmUNet(encoder, "hub", [8])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("hub", "cannot load hf-hub:a/b's pretrained weights from timm's hub"),
        ("none", "cannot load the configuration of hf-hub:a/b from the hub"),
        (
            "w.pth",
            "network.encoder=hf-hub:a/b is on the hub, but network.weights=w.pth is a file; use one of timm's own",
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
    """The hub's client in offline mode with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))


def test_an_unreachable_hub_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(tmp_path, monkeypatch)
    began = time.monotonic()
    with pytest.raises(Failure, match=r"cannot load resnet18's pretrained weights from timm's hub") as refused:
        TimmUNet("resnet18", "hub", [8])
    assert time.monotonic() - began < 60, "it must not wait for a network"
    assert "SET=network.weights=FILE" in str(refused.value)
    assert "SET=network.weights=none" in str(refused.value)
    assert "\n" not in str(refused.value)


class Hub(BaseHTTPRequestHandler):
    """A hub of the files in ``files``, by the end of their address."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        content = next((content for name, content in self.files.items() if self.path.endswith(name)), None)
        self.send_response(404 if content is None else 200)
        if content is not None:
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if content is not None and self.command == "GET":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Use a port of this machine as the hub, with an empty cache."""

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


def test_a_hub_that_does_not_respond_is_asked_once(
    hub_at: Callable[[int], None], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_at(closed_port())
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it must not try again"))
    with pytest.raises(Failure, match=r"timm's hub \(ConnectError: .*refused.*\); download them on a machine"):
        make_encoder("test_resnet", "hub")
    assert capfd.readouterr() == ("", "")


def test_cached_weights_need_no_hub(hub_at: Callable[[int], None], tmp_path: Path) -> None:
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


@pytest.mark.parametrize("there", [True, False])
def test_weights_from_the_hub(hub_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    weights = trained("test_resnet")
    monkeypatch.setattr(Hub, "files", {"/model.safetensors": safetensors.torch.save(weights)} if there else {})
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub_at(server.server_port)
        if there:
            found = make_encoder("test_resnet", "hub").state_dict()
            assert all(torch.equal(tensor, weights[name]) for name, tensor in found.items())
        else:
            with pytest.raises(Failure, match="cannot load test_resnet's pretrained weights"):
                make_encoder("test_resnet", "hub")
        server.shutdown()
