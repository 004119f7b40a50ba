"""Steps ``train_compile`` and ``predict_compile``: torch.compile for training and for prediction."""

import time
from collections.abc import Iterator
from itertools import repeat

import torch

from benchmarks.gpu_check.speed import trainer
from benchmarks.gpu_check.step import Check, Figure, require
from benchmarks.loader import trained_per_second
from benchmarks.predict import finish_on
from folds.frame import Frame
from folds.networks.build import make_network
from inference.engine.ensemble import Ensemble

CLOSE = 0.02  # of losses, and of probabilities: a compiled network rounds to bf16 in other places


def train_compile(check: Check) -> Iterator[Figure]:
    """The training step of the first stage of preset ``gpu``, compiled and not; both begin with the same loss."""
    (preset, settings), losses = next(iter(check.trainings.items())), []
    for compiled in (False, True):
        # A rehearsal compiles nothing: this takes minutes on a CPU.
        train = settings.train.model_copy(update={"compile": compiled and not check.rehearsal})
        made = trainer(check, settings.model_copy(update={"train": train}))
        name = f"{preset}{', compiled' if compiled else ''}"
        start = time.monotonic()
        made.network.train()
        losses.append(float(made.train_step(repeat(next(iter(made.loader))))))
        yield Figure(f"{name}: first step", time.monotonic() - start, "s")
        yield Figure(f"{name}: step", trained_per_second(made, check.few(1, 10)), "images/s")
    apart = abs(losses[1] - losses[0])
    yield Figure("difference of the first losses", apart)
    require(apart <= CLOSE, f"compiled, the first loss is {losses[1]:.3f} and not {losses[0]:.3f}")


def predict_compile(check: Check) -> Iterator[Figure]:
    """The networks of preset ``gpu``, compiled and not; both predict the same."""
    settings = check.settings(check.preset)
    size, frame, repeats = settings.inference.batch_size, Frame.of(settings.input), check.few(1, 10)
    torch.manual_seed(0)
    network, found = make_network(settings), []
    images = torch.randint(0, 256, (size, frame.height, frame.width, 3), dtype=torch.uint8)
    for name in ("networks", "networks, compiled"):
        ensemble = Ensemble([network], frame, ["identity", "hflip"], device=check.device, precision="auto")
        if "compiled" in name and not check.rehearsal:
            start = time.monotonic()
            ensemble.compile(size)
            yield Figure("compilation", time.monotonic() - start, "s")
        found.append(ensemble.probabilities(images).cpu())
        start = time.monotonic()
        for _ in range(repeats):
            ensemble.probabilities(images)
        finish_on(check.device)
        yield Figure(name, repeats * size / (time.monotonic() - start), "images/s")
    apart = float((found[1] - found[0]).abs().max())
    yield Figure("largest difference of a probability", apart)
    require(apart <= CLOSE, f"compiled, a probability differs by {apart:.3f}")
