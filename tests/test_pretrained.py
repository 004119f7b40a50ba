"""Encoders and their weights: from the hub, from files of several kinds, or none."""

import argparse
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
from folds.networks.matching import match_weights
from folds.networks.pretrained import make_encoder
from folds.networks.timm_unet import TimmUNet
from folds.networks.weight_file import read_weights

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def trained(encoder: str) -> dict[str, Tensor]:
    """A state dict in which every value differs from that of a new model."""
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


def without(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if part not in name}


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As another library saves the same architecture: other names, the same tensors in the same order."""
    return {f"features.{number}": tensor for number, tensor in enumerate(weights.values())}


OTHER_HEAD = {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}


@pytest.mark.parametrize(
    ("encoder", "file", "wrapping", "change"),
    [
        ("convnext_atto", "w.pth", None, lambda weights: dict(sorted(weights.items(), reverse=True))),
        ("resnet10t", "w.safetensors", None, dict),
        ("resnet10t", "w.pt", "state_dict", dict),
        ("resnet10t", "w.pt", "model", dict),
        ("mobilenetv2_100", "w.pth", None, renamed),
        ("resnet10t", "w.pth", None, lambda weights: without(weights, "num_batches_tracked")),
        ("resnet10t", "w.pth", None, lambda weights: renamed(without(weights, "num_batches_tracked"))),
        ("resnet10t", "w.pth", None, lambda weights: without(weights, "fc.")),
        ("resnet10t", "w.pth", None, lambda weights: weights | OTHER_HEAD),
    ],
    ids=["order", "safetensors", "state_dict", "model", "names", "no counts", "names, no counts", "no head", "head"],
)
def test_weights_from_a_file(tmp_path: Path, encoder: str, file: str, wrapping: str | None, change: Change) -> None:
    weights = trained(encoder)
    network = TimmUNet(encoder, write(tmp_path / file, change(weights), wrapping), [8])
    flat = {name.replace(".", "_"): tensor for name, tensor in weights.items()}
    assert loaded(network)
    assert all(torch.equal(tensor, flat[name]) for name, tensor in loaded(network).items())


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def other(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that must not be taken."""
    return {name: tensor + 1 for name, tensor in weights.items()}


Wrapping = Callable[[dict[str, Tensor]], object]
WRAPPINGS: dict[str, Wrapping] = {
    "timm": lambda w: {"state_dict": w, "args": argparse.Namespace(lr=0.1), "arch": "resnet10t", "epoch": 3},
    "average": lambda w: {"state_dict": other(w), "state_dict_ema": w},
    "average alone": lambda w: {"state_dict_ema": w},
    "ConvNeXt": lambda w: {"model": other(w), "model_ema": w, "optimizer": {}},
    "DistributedDataParallel": lambda w: prefixed(w, "module."),
    "torch.compile": lambda w: prefixed(w, "module._orig_mod."),
    "average of DistributedDataParallel": lambda w: {"state_dict_ema": prefixed(w, "module.")},
    "Lightning": lambda w: {"state_dict": prefixed(w, "model.") | {"loss.weight": torch.ones(1)}},
    "segmentation": lambda w: {"state_dict": prefixed(w, "encoder.") | {"decoder.conv1.weight": torch.ones(1)}},
    "fp16": lambda w: {name: tensor.half() for name, tensor in w.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit"])
def test_weights_inside_other_files(tmp_path: Path, encoder: str, wrapping: Wrapping) -> None:
    """timm makes a list of the layers of the first, and wraps the whole model of the second."""
    weights = trained(encoder)
    content = wrapping(weights)
    torch.save(content, tmp_path / "w.pth")
    found = make_encoder(encoder, str(tmp_path / "w.pth")).state_dict()
    flat = {name.replace(".", "_"): tensor for name, tensor in weights.items()}
    assert found
    for name, tensor in found.items():
        assert torch.allclose(tensor, flat[name.removeprefix("model.").replace(".", "_")], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda w: {"student": w, "teacher": other(w)},
            r"has the weights of several networks that fit \(student, teacher\)",
        ),
        (
            lambda w: w | {"conv1.0.weight": w["conv1.0.weight"].sum(1, keepdim=True)},
            "its first convolution conv1.0.weight takes images of 1 channel, and photos have 3",
        ),
        (
            lambda w: w | {"conv1.0.weight": w["conv1.0.weight"].repeat(1, 2, 1, 1)[:, :4]},
            "takes images of 4 channels, and photos have 3",
        ),
        (
            lambda w: w | {"bn1.weight": torch.zeros(7)},
            r"1 of its tensors have other shapes, such as bn1.weight with shape \(7,\), where",
        ),
        (lambda w: without(w, "layer4"), "it lacks 15 tensors, such as layer4.0.conv1.weight"),
        (
            lambda w: {"state_dict": without(w, "layer4"), "arch": "resnet26"},
            "it lacks .*; the file says that it is for network.encoder=resnet26",
        ),
        (
            lambda w: w | {"bn1.weight": w["bn1.weight"] * float("nan")},
            "has values in bn1.weight that are not finite",
        ),
    ],
    ids=["two networks", "grey", "RGBA", "shape", "missing", "named", "NaN"],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: Wrapping, reason: str) -> None:
    torch.save(change(trained("test_resnet")), tmp_path / "w.pth")
    with pytest.raises(Failure, match=reason) as error:
        make_encoder("test_resnet", str(tmp_path / "w.pth"))
    assert str(error.value).startswith(f"{tmp_path}/w.pth ")


def test_fewer_or_other_tensors_are_an_error() -> None:
    ours = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(Failure, match="has 1 tensors, and the encoder 2"):
        match_weights({"x": torch.zeros(2)}, ours, Path("w.pth"), "net")
    with pytest.raises(Failure, match=r"its y has shape \(4,\), where b has \(3,\)"):
        match_weights({"x": torch.zeros(2), "y": torch.zeros(4)}, ours, Path("w.pth"), "net")


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Trap(tmp_path / "executed")}, tmp_path / "w.pth")
    with pytest.raises(Failure, match=r"contains Python objects \(posix.mkdir\), whose code is not run"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(("name", "content"), [("w.pth", b"text"), ("w.safetensors", b"text")])
def test_a_damaged_file_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Failure, match=r"is not a readable file of weights \(.+\)") as error:
        read_weights(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"a": torch.zeros(1), "epoch": 3}])
def test_a_file_without_weights_is_an_error(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(Failure, match="does not contain a state dict of tensors"):
        read_weights(tmp_path / "w.pth")


def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client in offline mode with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))


@pytest.mark.parametrize(
    ("encoder", "weights", "reason"),
    [
        ("resnet1", "none", r"network.encoder='resnet1' is not a timm encoder.*resnet18"),
        ("resnet1", "hub", r"network.encoder='resnet1' is not a timm encoder.*resnet18"),
        ("resnet18", "none.pth", "there is no file none.pth; network.weights is hub, none, or a file"),
        ("mobilenetv2_100", "resnet18.pth", "resnet18.pth does not fit mobilenetv2_100: its conv1.weight has shape"),
        ("resnet18", "hub", r"cannot load resnet18's .*SET=network.weights=FILE.*SET=network.weights=none"),
        ("hf-hub:a/b", "hub", "cannot load hf-hub:a/b's pretrained weights from timm's hub"),
        ("hf-hub:a/b", "none", "cannot load the configuration of hf-hub:a/b from the hub"),
        ("hf-hub:a/b", "w.pth", "is on the hub, but network.weights=w.pth is a file; use one of timm's own"),
        ("coatnet_0_224", "hub", r"timm has no .* for network.encoder=coatnet_0_224 \(none were published\); "),
        ("resnet18.nonsense", "hub", r"timm has no .*nonsense \(Invalid .*\); similar names: resnet18.a1_in1k"),
    ],
)
def test_encoders_and_weights_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, weights: str, reason: str
) -> None:
    """Without a network connection: each error is one line and does not wait for the hub."""
    offline(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    if weights == "resnet18.pth":
        write(tmp_path / weights, trained("resnet18"))
    start = time.monotonic()
    with pytest.raises(Failure, match=reason) as error:
        TimmUNet(encoder, weights, [8])
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 60


class Hub(BaseHTTPRequestHandler):
    """A hub that serves ``files`` by the end of their URL."""

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


def test_an_unreachable_hub_is_tried_once(
    hub_at: Callable[[int], None], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_at(closed_port())
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("tried again"))
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
