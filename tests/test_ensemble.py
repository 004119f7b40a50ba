"""Networks and views that answer together."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from competition.command import Failure
from competition.settings.resolve import resolve
from competition.settings.schema import Inference
from folds.checkpoint import save_weights
from folds.frame import Frame
from folds.networks.build import make_network
from folds.validation import to_levels
from inference.engine.ensemble import FLIPS, Ensemble, flip, load_ensembles

CPU = torch.device("cpu")
FRAME = Frame(32, 32, "resize")


class Brightness(nn.Module):
    """Logits are the red channel, weighted by the column, so that flips can be told apart."""

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


def together(networks: list[nn.Module], views: list[str]) -> Ensemble:
    return Ensemble(networks, FRAME, views, device=CPU, precision="fp32")  # type: ignore[arg-type]


def photos() -> Tensor:
    return torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("view", list(FLIPS))
def test_a_view_undoes_itself(view: str) -> None:
    images = photos().permute(0, 3, 1, 2)
    assert torch.equal(flip(flip(images, view), view), images)  # type: ignore[arg-type]


def test_probabilities_are_averaged_and_not_logits() -> None:
    mean = together([Constant(-3.0), Constant(5.0)], ["identity"]).probabilities(photos())
    expected = (torch.tensor(-3.0).sigmoid() + torch.tensor(5.0).sigmoid()) / 2
    assert torch.allclose(mean, expected.expand_as(mean))


def test_a_flipped_view_is_flipped_back() -> None:
    images = photos()
    pixels = images.permute(0, 3, 1, 2)
    network = Brightness()
    flipped = network(pixels.flip(3)).sigmoid().flip(3)
    expected = (network(pixels).sigmoid() + flipped) / 2
    assert torch.allclose(together([network], ["identity", "hflip"]).probabilities(images), expected)


def test_checkpoints_are_grouped_by_frame(tmp_path: Path) -> None:
    paths = []
    for number, height in enumerate([32, 64, 32]):
        settings = resolve({"network": {"width": 4, "depth": 1}, "input": {"height": height, "width": 32}})
        paths.append(tmp_path / f"{number}.safetensors")
        save_weights(paths[-1], make_network(settings).state_dict(), settings, {})
    groups = load_ensembles(paths, Inference(precision="fp32"), device=CPU)
    assert {(group.frame.height, len(group)) for group in groups} == {(32, 2), (64, 1)}


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"fold0/best\.safetensors"):
        load_ensembles([tmp_path / "fold0" / "best.safetensors"], Inference(), device=CPU)


def test_a_checkpoint_without_a_share_is_not_read(tmp_path: Path) -> None:
    settings = resolve({"network": {"width": 4, "depth": 1}, "input": {"height": 32, "width": 32}})
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for path in (paths[0], paths[2], paths[3]):
        save_weights(path, make_network(settings).state_dict(), settings, {})
    (group,) = load_ensembles(paths, Inference(precision="fp32"), device=CPU, shares=[0.1, 0.0, 0.4, 0.4])
    assert (list(group.weights), list(group.places)) == ([0.25, 1.0, 1.0], [0, 2, 3])


@pytest.mark.parametrize("share", [1 / 3, 1 / 49, 2.0])
def test_equal_shares_change_no_bit(tmp_path: Path, share: float) -> None:
    torch.manual_seed(1)
    settings = resolve({"network": {"width": 4, "depth": 1}, "input": {"height": 32, "width": 32}})
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for path in paths:
        save_weights(path, make_network(settings).state_dict(), settings, {})
    plain, shared = (load_ensembles(paths, Inference(), device=CPU, shares=each)[0] for each in (None, [share] * 3))
    assert torch.equal(plain.probabilities(photos()), shared.probabilities(photos()))


def test_networks_count_by_weight() -> None:
    networks: list[nn.Module] = [Constant(-3.0), Constant(5.0)]
    group = Ensemble(networks, FRAME, ["identity", "hflip"], device=CPU, precision="fp32", weights=[0.25, 1.0])
    expected = (0.25 * torch.tensor(-3.0).sigmoid() + torch.tensor(5.0).sigmoid()) / 1.25
    mean = group.probabilities(photos())
    assert torch.allclose(mean, expected.expand_as(mean))


class Hungry(nn.Module):
    """Has memory for two photos at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.seen: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("too much")
        self.seen.append(len(pixels))
        return pixels[:, :1].float() / 255


def test_what_does_not_fit_the_memory_goes_in_parts() -> None:
    images = torch.randint(0, 256, (9, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    group = together([Hungry(2)], ["identity"])
    whole = together([Hungry(9)], ["identity"]).probabilities(images)
    assert torch.equal(group.probabilities(images), whole)
    (network,) = group.networks
    assert isinstance(network, Hungry)
    assert network.seen == [2, 2, 2, 2, 1]
    mean, components = group.answer(images, components=True)
    assert network.seen[5:] == [2, 2, 2, 2, 1], "the second time it is known what fits"
    assert components is not None
    assert torch.equal(components, to_levels(mean)[:, None]), "of one network and one view, the mean itself"


def test_no_memory_for_one_photo_is_said() -> None:
    with pytest.raises(Failure, match="cpu has no memory for one photo of 32 x 32; end what else uses it"):
        together([Hungry(0)], ["identity"]).probabilities(photos())


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_say_the_same() -> None:
    torch.manual_seed(1)
    network = make_network(resolve({"network": {"width": 4, "depth": 1}, "input": {"height": 32, "width": 32}}))
    plain, compiled = (together([network], ["identity", "hflip"]) for _ in range(2))
    compiled.compile(3)
    images = photos()  # two, so that the batch has to be filled up
    assert torch.allclose(compiled.probabilities(images), plain.probabilities(images), atol=1e-5)


def test_networks_of_one_kind_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=made))
    settings = resolve({"network": {"width": 4, "depth": 1}, "input": {"height": 32, "width": 32}})
    group = together([make_network(settings) for _ in range(3)], ["identity", "hflip"])
    group.compile(3)
    group.probabilities(photos())
    assert made.frame_count == 1


def test_no_memory_is_not_taken_for_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_options: network)
    with pytest.raises(Failure, match=r"^cpu has no memory for one photo"):
        together([Hungry(0)], ["identity"]).compile(2)


def test_a_compiler_that_fails_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_network: nn.Module, **_options: object) -> nn.Module:
        class Broken(nn.Module):
            def forward(self, pixels: Tensor) -> Tensor:
                raise RuntimeError("no working\nC++ compiler")

        return Broken()

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(Failure, match=r"\(no working C\+\+ compiler\); .*SET=inference.compile=false"):
        together([Constant(0.0)], ["identity"]).compile(2)
