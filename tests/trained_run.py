"""A small run on generated cars, trained once for all tests that need one."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from competition.files import held
from competition.run.folder import RunFolder
from competition.settings.schema import Input

# Imports of torch are inside functions: conftest.py imports this file in every process.

SMALL = [
    "split.folds=2",
    "input={height: 64, width: 96}",
    "network={width: 8, depth: 3, stem: 2}",
    "train={epochs: 20, batch_size: 8, lr: 0.01, ema: 0.9, cache: true, workers: 0, validate_every: 10}",
    # torch starts faster; test_onnx_network.py compares the engines, and the demo in test_pipeline.py uses `auto`.
    "inference={batch_size: 8, shard: 16, readers: 2, engine: torch}",
]


@dataclass(frozen=True)
class Trained:
    """A data folder and a run trained on it."""

    data: Path
    run: RunFolder

    @property
    def arguments(self) -> list[str]:
        """The arguments that name the run."""
        return ["--run", str(self.run.root)]


def exchange(one: Path, two: Path) -> None:
    """Swap the content of two files."""
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def exchange_networks(run: RunFolder) -> None:
    """Swap the weights of two folds, but not the metadata."""
    from folds.checkpoint import load_weights, save_weights

    made = [load_weights(run.best(fold)) for fold in (0, 1)]
    for fold, other in ((0, 1), (1, 0)):
        network, settings, _ = made[other]
        save_weights(run.best(fold), network.state_dict(), settings, made[fold][2])


def variant(trained: Trained, name: str, biases: Mapping[int, float], size: tuple[int, int] = (64, 96)) -> RunFolder:
    """A run with the same split and other networks.

    Args:
        trained: the run it is made from.
        name: its name; it lies beside the other run.
        biases: added to the logits of a fold's network: above 0 predicts more car.
        size: height and width of its input.
    """
    from folds.checkpoint import load_weights, save_weights

    run = RunFolder(trained.run.root.parent / name)
    run.root.mkdir()
    for path in (trained.run.settings, trained.run.environment, trained.run.folds):
        shutil.copy(path, run.root)
    for fold in (0, 1):
        network, settings, provenance = load_weights(trained.run.best(fold))
        weights = network.state_dict()
        weights["head.bias"] = weights["head.bias"] + biases.get(fold, 0.0)
        made = settings.model_copy(update={"input": Input(height=size[0], width=size[1])})
        save_weights(run.best(fold), weights, made, provenance)
        shutil.copy(trained.run.history(fold), run.history(fold))
    return run


def train_run(folder: Path) -> None:
    """Generate cars in ``folder/data`` and train ``folder/runs/small`` on them."""
    from competition.studio.__main__ import main as make_cars
    from folds.train import main as train

    data, run = folder / "data", folder / "runs" / "small"
    studio = ["--cars", "4", "--test-cars", "2", "--seed", "3", "--size", "240x160", "--workers", "1"]
    make_cars(["--data", str(data), *studio])
    train(["--all", "--run", str(run), "--data", str(data), "--preset", "demo", "--set", *SMALL])


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """For reading only. The workers of pytest-xdist share it: the first that needs it makes it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, done = shared / "trained", shared / "trained.done"
    with held(shared / "trained.lock"):
        if not done.exists():
            train_run(folder)
            done.touch()
    return Trained(folder / "data", RunFolder(folder / "runs" / "small"))


@pytest.fixture
def trained(trained_once: Trained, tmp_path: Path) -> Trained:
    """A copy of the run that the test may change."""
    run = RunFolder(tmp_path / "runs" / "small")
    shutil.copytree(trained_once.run.root, run.root)
    return Trained(trained_once.data, run)
