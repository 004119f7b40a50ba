"""Networks and test-time augmentations that predict together."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from competition.command import Failure
from competition.settings.resolve import resolve
from competition.settings.schema import Inference
from folds.checkpoint import Provenance, save_weights
from folds.frame import Frame
from folds.networks.build import make_network
from folds.validation import to_levels
from inference.engine.ensemble import FLIPS, Ensemble, flip, load_ensembles

CPU = torch.device("cpu")
FRAME = Frame(32, 32, "resize")
PROVENANCE = Provenance(fold=0, held_out="0" * 16, epoch=1, dice=0.9, iou=0.8)


class Brightness(nn.Module):
    """Logits are the red channel times the column number, so that flips make a difference."""

    def forward(self, pixels: Tensor) -> Tensor:
        columns = torch.arange(pixels.shape[3], dtype=torch.float32)
        return pixels[:, :1].float() / 255 * columns


class Constant(nn.Module):
    """The same logit everywhere."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.full((len(pixels), 1, *pixels.shape[2:]), self.logit)


class Hungry(nn.Module):
    """Runs out of memory with more than ``room`` photos at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.seen: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("too much")
        self.seen.append(len(pixels))
        return pixels[:, :1].float() / 255


def together(networks: list[nn.Module], tta: list[str], **options: object) -> Ensemble:
    return Ensemble(networks, FRAME, tta, device=CPU, precision="fp32", **options)


def images(count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def save_networks(folder: Path, heights: list[int]) -> list[Path]:
    """Checkpoints of small random networks, one for each input height."""
    torch.manual_seed(1)
    paths = []
    for number, height in enumerate(heights):
        settings = resolve({"network": {"width": 4, "depth": 1}, "input": {"height": height, "width": 32}})
        paths.append(folder / f"{number}.safetensors")
        save_weights(paths[-1], make_network(settings).state_dict(), settings, PROVENANCE)
    return paths


@pytest.mark.parametrize("tta", list(FLIPS))
def test_a_test_time_augmentation_undoes_itself(tta: str) -> None:
    pixels = images().permute(0, 3, 1, 2)
    assert torch.equal(flip(flip(pixels, tta), tta), pixels)


@pytest.mark.parametrize("weights", [None, [0.25, 1.0]])
def test_probabilities_and_not_logits_are_averaged_by_weight(weights: list[float] | None) -> None:
    group = together([Constant(-3.0), Constant(5.0)], ["identity", "hflip"], member_weights=weights)
    mean = group.probabilities(images())
    first, second = weights or [1.0, 1.0]
    low, high = torch.tensor(-3.0).sigmoid(), torch.tensor(5.0).sigmoid()
    assert torch.allclose(mean, ((first * low + second * high) / (first + second)).expand_as(mean))


def test_a_flip_is_undone_before_averaging() -> None:
    pixels = images().permute(0, 3, 1, 2)
    network = Brightness()
    expected = (network(pixels).sigmoid() + network(pixels.flip(3)).sigmoid().flip(3)) / 2
    assert torch.allclose(together([network], ["identity", "hflip"]).probabilities(images()), expected)


def test_checkpoints_are_grouped_by_frame(tmp_path: Path) -> None:
    groups = load_ensembles(save_networks(tmp_path, [32, 64, 32]), Inference(precision="fp32"), device=CPU)
    assert {(group.frame.height, len(group)) for group in groups} == {(32, 2), (64, 1)}
    with pytest.raises(Failure, match=r"fold0/best\.safetensors"):
        load_ensembles([tmp_path / "fold0" / "best.safetensors"], Inference(), device=CPU)


def test_a_checkpoint_with_weight_0_is_not_read(tmp_path: Path) -> None:
    paths = save_networks(tmp_path, [32] * 4)
    paths[1].unlink()
    (group,) = load_ensembles(paths, Inference(), device=CPU, member_weights=[0.1, 0.0, 0.4, 0.4])
    assert (list(group.member_weights), list(group.indices)) == ([0.25, 1.0, 1.0], [0, 2, 3])


def test_equal_weights_change_no_bit(tmp_path: Path) -> None:
    paths = save_networks(tmp_path, [32] * 3)
    plain, *weighted = (
        load_ensembles(paths, Inference(), device=CPU, member_weights=weights)[0].probabilities(images())
        for weights in (None, [1 / 3] * 3, [1 / 49] * 3, [2.0] * 3)
    )
    assert all(torch.equal(plain, each) for each in weighted)


def test_a_batch_too_large_for_the_memory_is_predicted_in_parts() -> None:
    group, large = together([Hungry(2)], ["identity"]), together([Hungry(9)], ["identity"])
    assert torch.equal(group.probabilities(images(9)), large.probabilities(images(9)))
    (network,) = group.networks
    assert isinstance(network, Hungry)
    assert network.seen == [2, 2, 2, 2, 1]
    mean, components, _ = group.predict(images(9), components=True)
    assert network.seen[5:] == [2, 2, 2, 2, 1], "the second batch begins with the size that fits"
    assert components is not None
    assert torch.equal(components, to_levels(mean)[:, None]), "the only component is the mean"


def test_no_memory_for_one_photo_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a compilation, too: this is not an error of the compiler."""
    monkeypatch.setattr(torch, "compile", lambda network, **_options: network)
    group = together([Hungry(0)], ["identity"])
    for act in (lambda: group.probabilities(images()), lambda: group.compile(2)):
        with pytest.raises(Failure, match=r"^cpu has no memory for one photo of 32 x 32; end other processes"):
            act()


def test_compiled_networks_predict_the_same_and_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounter()  # a backend that runs the traced code without a C++ compiler
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    settings = resolve({"network": {"width": 4, "depth": 1}, "input": {"height": 32, "width": 32}})
    torch.manual_seed(1)
    networks: list[nn.Module] = [make_network(settings) for _ in range(3)]
    plain, compiled = (together(networks, ["identity", "hflip"]) for _ in range(2))
    compiled.compile(3)
    assert torch.allclose(compiled.probabilities(images(2)), plain.probabilities(images(2)), atol=1e-5)
    assert counter.frame_count == 1, "the short batch is filled up, and the networks share one architecture"


def test_a_compiler_error_says_how_to_predict_without(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            raise RuntimeError("no working\nC++ compiler")

    monkeypatch.setattr(torch, "compile", lambda _network, **_options: Broken())
    with pytest.raises(Failure, match=r"\(no working C\+\+ compiler\); .*SET=inference.compile=false"):
        together([Constant(0.0)], ["identity"]).compile(2)
