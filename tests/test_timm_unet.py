"""The decoder on timm's encoders, and where their weights come from."""

import os
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from competition.command import Failure
from folds.timm_unet import TimmUNet, match_weights, read_weights


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


def test_an_unreachable_hub_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(Failure, match=r"cannot load resnet18's pretrained weights from timm's hub") as refused:
        TimmUNet("resnet18", "hub", [8])
    assert time.monotonic() - began < 60, "it must not wait for a network"
    assert "SET=network.weights=FILE" in str(refused.value)
    assert "SET=network.weights=none" in str(refused.value)
    assert "\n" not in str(refused.value)
