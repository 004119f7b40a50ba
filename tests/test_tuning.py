"""Choosing a threshold and member weights."""

import numpy as np
import pytest

from inference.cv.tuning import effective, middle_of_best, thresholds, tune_threshold, tune_weights
from inference.engine.host_masks import level_of


def peaked_at(level: int, images: int = 4, height: float = 0.99) -> np.ndarray:
    """Curves whose Dice falls off linearly on both sides of a level."""
    levels = np.arange(1, 256)
    return np.tile(height - 0.0005 * np.abs(levels - level), (images, 1))


def test_levels_and_thresholds() -> None:
    assert level_of(0.5) == 128
    assert thresholds()[128 - 1] == effective(0.5) == pytest.approx(0.50196, abs=1e-5)
    assert [level_of(threshold) for threshold in thresholds()[:-1]] == list(range(1, 255))


def test_the_best_threshold_is_the_middle_of_a_plateau() -> None:
    curve = np.zeros((1, 255))
    curve[0, 99:104] = 1.0  # levels 100 .. 104
    assert thresholds()[middle_of_best(curve)] == 102 / 255


def test_each_fold_uses_the_level_that_is_best_on_the_others() -> None:
    curves = np.concatenate([peaked_at(100), peaked_at(140)])
    folds = np.repeat([0, 1], 4)
    tuning = tune_threshold(curves, folds)
    assert tuning.choice_of_fold == {0: 140 - 1, 1: 100 - 1}
    # Both folds are then 40 levels from their own best, which is worse than 0.5, so it is not used.
    assert tuning.scores == pytest.approx(np.full(8, 0.99 - 0.0005 * 40))
    assert tuning.before == pytest.approx(0.99 - 0.0005 * np.repeat([28, 12], 4))
    assert tuning.gain < 0
    assert not tuning.helps


def test_a_threshold_that_all_folds_agree_on_helps() -> None:
    tuning = tune_threshold(np.concatenate([peaked_at(110)] * 3), np.repeat([0, 1, 2], 4))
    assert tuning.choice == 110 - 1
    assert tuning.gain == pytest.approx(0.0005 * 18)
    assert tuning.helps


def test_without_a_gain_or_with_a_single_fold_0_5_stays() -> None:
    flat = np.tile(0.99 - 1e-7 * np.abs(np.arange(1, 256) - 100), (8, 1))
    assert not tune_threshold(flat, np.repeat([0, 1], 4)).helps
    tuning = tune_threshold(peaked_at(90), np.zeros(4, dtype=int))
    assert tuning.choice == level_of(0.5) - 1
    assert not tuning.helps


def test_weights_of_a_fold_do_not_depend_on_its_own_images() -> None:
    random = np.random.default_rng(4)
    folds = np.repeat([0, 1, 2], 5)
    scores = random.uniform(0.9, 1, (15, 6))
    before = tune_weights(scores, folds)
    for fold in (0, 1, 2):
        others = scores.copy()
        others[folds == fold] = random.uniform(0, 1, (5, 6))
        assert tune_weights(others, folds).choice_of_fold[fold] == before.choice_of_fold[fold]
        others[folds == fold, 4] = 2.0  # now the best of all, by far
        assert tune_weights(others, folds).choice == 4
        assert tune_weights(others, folds).choice_of_fold[fold] == before.choice_of_fold[fold]


def test_the_first_of_equally_good_weights_is_chosen() -> None:
    scores = np.tile([0.9, 0.95, 0.95, 0.9], (4, 1))
    tuning = tune_weights(scores, np.repeat([0, 1], 2))
    assert (tuning.choice, tuning.choice_of_fold) == (1, {0: 1, 1: 1})
    assert tuning.gain == pytest.approx(0.05)
    assert tune_weights(np.full((4, 3), 0.9), np.repeat([0, 1], 2)).choice == 0
