"""The trained folds of a run, and of a combined run."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from trained_run import Trained, variant

from competition.command import Failure
from competition.run.folder import RunFolder
from competition.settings.resolve import load_settings
from inference.members import open_members
from inference.trained import TrainedFolds, trained_folds

CPU = torch.device("cpu")


def combined(trained: Trained, other: RunFolder) -> RunFolder:
    """The combined run of two."""
    runs = [str(trained.run.root), str(other.root)]
    how = Namespace(run=None, runs=runs, data=None, preset=None, settings=None, set=[])
    return open_members(how)[0]


def folds_of(run: RunFolder, *only: int) -> TrainedFolds:
    return trained_folds(run, load_settings(run.settings), CPU, only or None)


def test_the_trained_folds_are_found(trained: Trained) -> None:
    both = folds_of(trained.run)
    assert (both.folds, both.left_out, both.threshold, both.batch_size) == ([0, 1], [], 0.5, 1)
    facts = both.facts()
    trained.run.best(1).unlink()
    one = folds_of(trained.run)
    assert (one.folds, one.left_out) == ([0], [1])
    assert one.facts() != facts
    with pytest.raises(Failure, match="fold 1 is not trained"):
        folds_of(trained.run, 1)


def test_a_combined_run_averages_its_members(trained: Trained) -> None:
    other = variant(trained, "other", {0: 1.0, 1: 1.0})
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    single = [folds_of(run).load().levels(images).astype(int) for run in (trained.run, other)]
    mean = folds_of(combined(trained, other)).load().levels(images)
    assert not np.array_equal(*single)
    assert np.abs(mean - (single[0] + single[1]) / 2).max() <= 1


def test_members_of_other_sizes_are_refused(trained: Trained) -> None:
    other = variant(trained, "large", {}, size=(96, 128))
    with pytest.raises(Failure, match="have different input sizes"):
        folds_of(combined(trained, other)).load()


def test_a_short_batch_is_filled_up(trained: Trained) -> None:
    model = folds_of(trained.run, 0).load()
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    model.batch_size = 2
    sizes: list[int] = []
    probabilities = model.ensemble.probabilities
    model.ensemble.probabilities = lambda batch: sizes.append(len(batch)) or probabilities(batch)
    levels = model.levels(images)
    assert sizes == [2, 2]
    assert np.array_equal(levels[2], model.levels(images[2:])[0])
