"""The automatic batch size: the search, its trial steps, and the agreement of several processes."""

import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import print_batch_size, run_ranks
from torch import Tensor, nn

from competition.command import Failure
from competition.settings.resolve import resolve
from competition.settings.schema import Settings
from folds import batch_size
from folds.batch_size import automatic_batch_size, fits_memory, largest_power_of_two, largest_that_fits, trial_steps

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "input": {"height": 32, "width": 64},
    "network": {"width": 4, "depth": 1},
    "train": {"batch_size": "auto", "precision": "fp32"},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Limited(nn.Module):
    """A network that runs out of memory for more than ``forward`` or ``backward`` images.

    ``steps`` records the shape of the images, the number of networks, and whether the weights have gradients.
    """

    def __init__(self, forward: int = 10**6, backward: int = 10**6) -> None:
        super().__init__()
        self.limits = (forward, backward)
        self.layer = nn.Conv2d(3, 1, 3, padding=1)
        self.error: RuntimeError = torch.cuda.OutOfMemoryError("too much")
        self.steps: list[tuple[tuple[int, ...], int, bool]] = []
        self.alive: weakref.WeakSet[nn.Module] = weakref.WeakSet([self])

    def __deepcopy__(self, _memo: object) -> "Limited":
        copy = Limited(*self.limits)
        copy.load_state_dict(self.state_dict())
        copy.error = self.error
        self.alive.add(copy)
        return copy

    def forward(self, pixels: Tensor) -> Tensor:
        self.steps.append((tuple(pixels.shape), len(self.alive), self.layer.weight.grad is not None))
        if len(pixels) > self.limits[0]:
            raise type(self.error)(*self.error.args)  # a raised error keeps its frames alive
        logits: Tensor = self.layer(pixels.float() / 255)
        if len(pixels) > self.limits[1]:
            logits.register_hook(self.fail)
        return logits

    def fail(self, _gradient: Tensor) -> None:
        raise type(self.error)(*self.error.args)  # a raised error keeps its frames alive


def use_network(monkeypatch: pytest.MonkeyPatch, network: Limited) -> Limited:
    monkeypatch.setattr(batch_size, "make_network", lambda _settings, pretrained: network)
    return network


def settings_with(**sections: Any) -> Settings:
    return resolve({**SMALL, **sections})


@pytest.mark.parametrize(
    ("room", "at_most", "found", "tried"),
    [
        (0, 64, 0, [1]),
        (1, 64, 1, [1, 2]),
        (5, 64, 4, [1, 2, 4, 8]),
        (8, 64, 8, [1, 2, 4, 8, 16]),
        (99, 8, 8, [1, 2, 4, 8]),
        (99, 7, 4, [1, 2, 4]),
        (99, 1, 1, [1]),
    ],
)
def test_the_search_finds_the_largest_power_of_two(room: int, at_most: int, found: int, tried: list[int]) -> None:
    sizes: list[int] = []

    def fits(size: int) -> bool:
        sizes.append(size)
        return size <= room

    assert largest_power_of_two(fits, at_most) == found
    assert sizes == tried


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("room", "found"), [(0, 0), (1, 1), (5, 4), (99, 8)])
def test_batches_grow_until_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, direction: str, room: int, found: int
) -> None:
    use_network(monkeypatch, Limited(**{direction: room}))
    assert largest_that_fits(settings_with(), CPU, at_most=8) == found


@pytest.mark.parametrize(
    "message",
    [
        "upsample_nearest_nhwc only supports grad_output tensors with less than INT_MAX elements, but got 64",
        "input tensor must fit into 32-bit index math",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_a_batch_that_a_kernel_refuses_does_not_fit(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    network = use_network(monkeypatch, Limited(backward=2))
    monkeypatch.setattr(network, "error", RuntimeError(message))
    assert largest_that_fits(settings_with(), CPU, at_most=8) == 2


def test_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    use_network(monkeypatch, Limited())

    def fail(*_: object) -> Tensor:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr(batch_size, "batch_loss", fail)
    with pytest.raises(RuntimeError, match="no kernel"):
        largest_that_fits(settings_with(), CPU, at_most=8)


@pytest.mark.parametrize(
    ("settings", "shape", "networks"),
    [
        (settings_with(), (4, 3, 32, 64), 2),
        (settings_with(train={"ema": 0, "precision": "fp32"}), (4, 3, 32, 64), 1),
        (settings_with(augment={"crop": [32, 32]}), (4, 3, 32, 32), 2),
    ],
)
def test_trial_steps_use_the_memory_of_training(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, shape: tuple[int, ...], networks: int
) -> None:
    """Images of the training size, the EMA if any, and in the second step gradients and optimizer states."""
    network = use_network(monkeypatch, Limited())
    states: list[int] = []
    step = torch.optim.AdamW.step

    def note(self: torch.optim.AdamW, *arguments: Any) -> Any:
        states.append(len(self.state))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    trial_steps(settings, CPU, 4)
    assert network.steps == [(shape, networks, False), (shape, networks, True)]
    assert states == [0, 2]


@pytest.mark.parametrize(("room", "networks"), [({"forward": 2}, 3), ({"backward": 2}, 3), ({}, 4)])
def test_the_search_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, room: dict[str, int], networks: int
) -> None:
    made: list[weakref.ref[nn.Module]] = []

    def make_network(settings: Settings, *, pretrained: bool) -> nn.Module:
        assert not pretrained
        assert all(network() is None for network in made), "one at a time"
        torch.rand(7)
        network = Limited(**room)
        made.append(weakref.ref(network))
        return network

    monkeypatch.setattr(batch_size, "make_network", make_network)
    before = torch.get_rng_state()
    largest_that_fits(settings_with(), CPU, at_most=8)
    assert len(made) == networks
    assert all(network() is None for network in made)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("peak", "fits"), [(90, True), (91, False)])
def test_a_tenth_of_the_gpu_memory_stays_free(monkeypatch: pytest.MonkeyPatch, peak: int, fits: bool) -> None:
    """Of 200 units, other processes use 100; of the remaining 100, this process has reserved 40."""
    values = {"empty_cache": None, "reset_peak_memory_stats": None}
    values |= {"mem_get_info": (60, 200), "memory_reserved": 40, "max_memory_reserved": peak}
    for name, value in values.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(batch_size, "trial_steps", lambda *_: None)
    assert fits_memory(settings_with(), torch.device("cuda"), 4) == fits


@pytest.mark.parametrize(("photos", "size"), [(1000, 8), (8, 8), (5, 5)])
def test_a_cpu_uses_8(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: int, size: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert automatic_batch_size(settings_with(), photos) == size
    assert capsys.readouterr().out == f"train.batch_size=auto is {size} on CPU, 1 thread\n"


def test_apples_gpu_uses_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("DEVICE", "mps")
    assert automatic_batch_size(settings_with(), 1000) == 8


@pytest.mark.parametrize(("fitting", "photos", "share"), [([16, 4], 1000, 4), ([99, 99], 9, 4)])
def test_two_ranks_use_the_smallest_share(tmp_path: Path, fitting: list[int], photos: int, share: int) -> None:
    (first, out, err), (second, _, _) = run_ranks(2, print_batch_size, fitting, photos, folder=tmp_path)
    assert (first, second, err) == (0, 0, "")
    line = f"train.batch_size=auto is {2 * share} on .*, {share} in each of 2 processes"
    assert re.fullmatch(f"{line}\n{2 * share}\n", out)


def test_two_ranks_fail_if_one_has_no_memory(tmp_path: Path) -> None:
    ended = run_ranks(2, print_batch_size, [8, 0], 1000, folder=tmp_path)
    assert [status for status, _, _ in ended] == [1, 1]
    lines = [line for _, _, err in ended for line in err.splitlines() if line.startswith("error")]
    assert [line.partition(" does")[0] for line in lines] == ["error: a single image of 384 x 256"]


def test_the_error_if_no_image_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(batch_size, "largest_that_fits", lambda *_: 0)
    monkeypatch.setattr(batch_size, "describe_device", lambda: "A100")
    with pytest.raises(Failure, match=r"a single image of 64 x 32 does .* A100 in fp32; use a smaller input.height"):
        automatic_batch_size(settings_with(), 1000)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    """With just enough memory for a batch of 4, no larger one fits; the memory of the trials is free again."""
    device = torch.device("cuda")
    settings = settings_with(input={"height": 512, "width": 512}, network={"width": 16, "depth": 3})
    states, allocated = torch.cuda.get_rng_state(), torch.cuda.memory_allocated()
    assert largest_that_fits(settings, device, at_most=8) == 8
    torch.cuda.reset_peak_memory_stats()
    trial_steps(settings, device, 4)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(torch.cuda.max_memory_reserved() / total)
    try:
        assert largest_that_fits(settings, device, at_most=64) in (2, 4)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_allocated() == allocated
    assert torch.equal(torch.cuda.get_rng_state(), states)
