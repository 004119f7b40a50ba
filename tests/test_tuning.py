"""The choice of a threshold."""

import numpy as np
import pytest

from inference.masks import level_of
from inference.tuning import best_level, thresholds, tune


def peaked_at(level: int, images: int = 4, height: float = 0.99) -> np.ndarray:
    """Curves whose Dice falls off linearly on both sides of a level."""
    levels = np.arange(1, 256)
    return np.tile(height - 0.0005 * np.abs(levels - level), (images, 1))


def test_the_level_of_a_half_is_128() -> None:
    assert level_of(0.5) == 128
    assert thresholds()[128 - 1] == pytest.approx(0.50196, abs=1e-5)


def test_every_level_is_the_level_of_its_own_threshold() -> None:
    assert [level_of(threshold) for threshold in thresholds()[:-1]] == list(range(1, 255))


def test_best_level_is_the_middle_of_a_plateau() -> None:
    curve = np.zeros((1, 255))
    curve[0, 99:104] = 1.0  # levels 100 .. 104
    assert best_level(curve) == 102


def test_each_fold_takes_the_level_that_is_best_on_the_others() -> None:
    curves = np.concatenate([peaked_at(100), peaked_at(140)])
    folds = np.repeat([0, 1], 4)
    tuning = tune(curves, folds)
    assert tuning.level_of_fold == {0: 140, 1: 100}
    # Both folds are then 40 levels from their own best: worse than one half, and so not used.
    assert tuning.dice == pytest.approx(0.99 - 0.0005 * 40)
    assert tuning.dice_at_half == pytest.approx(0.99 - 0.0005 * (28 + 12) / 2)
    assert tuning.gain < 0
    assert not tuning.helps


def test_a_threshold_that_all_folds_agree_on_helps() -> None:
    tuning = tune(np.concatenate([peaked_at(110)] * 3), np.repeat([0, 1, 2], 4))
    assert tuning.level == 110
    assert tuning.gain == pytest.approx(0.0005 * 18)
    assert tuning.helps


def test_a_gain_too_small_to_show_is_left_alone() -> None:
    flat = np.tile(0.99 - 1e-7 * np.abs(np.arange(1, 256) - 100), (8, 1))
    assert not tune(flat, np.repeat([0, 1], 4)).helps


def test_a_single_fold_keeps_one_half() -> None:
    tuning = tune(peaked_at(90), np.zeros(4, dtype=int))
    assert tuning.level == level_of(0.5)
    assert not tuning.helps
