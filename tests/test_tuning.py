"""Choosing a threshold and member weights."""

from collections.abc import Callable

import numpy as np
import pytest

from competition import rle
from inference.cv.tuning import effective, middle_of_best, thresholds, tune_threshold, tune_weights
from inference.engine.host_masks import dice_curve, kept_curve, level_of

ALL_KEPT = np.ones((12, 255))


def peaked_at(level: int, images: int = 4, height: float = 0.99) -> np.ndarray:
    """Curves whose Dice falls off linearly on both sides of a level."""
    levels = np.arange(1, 256)
    return np.tile(height - 0.0005 * np.abs(levels - level), (images, 1))


def test_levels_and_thresholds() -> None:
    assert level_of(0.5) == 128
    assert thresholds()[128 - 1] == effective(0.5) == effective(0.501) == 0.5
    assert [level_of(threshold) for threshold in thresholds()[:-1]] == list(range(1, 255))


def test_the_best_threshold_is_the_middle_of_a_plateau() -> None:
    curve = np.zeros((1, 255))
    curve[0, 99:104] = 1.0  # levels 100 .. 104
    assert thresholds()[middle_of_best(curve)] == 0.4


def test_each_fold_uses_the_level_that_is_best_on_the_others() -> None:
    curves = np.concatenate([peaked_at(100), peaked_at(140)])
    folds = np.repeat([0, 1], 4)
    tuning = tune_threshold(curves, ALL_KEPT[: len(curves)], folds)
    assert tuning.choice_of_fold == {0: 140 - 1, 1: 100 - 1}
    # Both folds are then 40 levels from their own best, which is worse than 0.5, so it is not used.
    assert tuning.scores == pytest.approx(np.full(8, 0.99 - 0.0005 * 40))
    assert tuning.before == pytest.approx(0.99 - 0.0005 * np.repeat([28, 12], 4))
    assert tuning.gain < 0
    assert not tuning.helps


def test_a_threshold_that_all_folds_agree_on_helps() -> None:
    tuning = tune_threshold(np.concatenate([peaked_at(110)] * 3), ALL_KEPT, np.repeat([0, 1, 2], 4))
    assert tuning.choice == 110 - 1
    assert tuning.gain == pytest.approx(0.0005 * 18)
    assert tuning.helps


def test_without_a_gain_or_with_a_single_fold_0_5_stays() -> None:
    flat = np.tile(0.99 - 1e-7 * np.abs(np.arange(1, 256) - 100), (8, 1))
    assert not tune_threshold(flat, ALL_KEPT[:8], np.repeat([0, 1], 4)).helps
    tuning = tune_threshold(peaked_at(90), ALL_KEPT[:4], np.zeros(4, dtype=int))
    assert tuning.choice == level_of(0.5) - 1
    assert not tuning.helps


Network = Callable[[np.random.Generator, np.ndarray], np.ndarray]
KINDS: dict[str, Network] = {
    "nearly constant, low": lambda random, mask: random.integers(20, 31, mask.shape),
    "nearly constant, high": lambda random, mask: random.integers(200, 211, mask.shape),
    "nearly constant, at half": lambda random, mask: random.integers(124, 133, mask.shape),
    "zero": lambda random, mask: 0 * mask,
    "one": lambda random, mask: 255 + 0 * mask,
}


@pytest.mark.parametrize("empty", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_has_learned_nothing_gets_no_threshold_of_nothing_or_everything(
    kind: str, empty: float
) -> None:
    random, curves, kept, levels_of = np.random.default_rng(5), [], [], []
    for number in range(20):
        mask = np.zeros((20, 30), np.uint8)
        if number >= 20 * empty:
            mask[4:16, 5 : 15 + number % 5] = 1
        levels = KINDS[kind](random, mask).astype(np.uint8)
        truth = rle.from_mask(mask)
        curves.append(dice_curve(levels, truth))
        kept.append(kept_curve(levels, truth))
        levels_of.append(levels)
    tuning = tune_threshold(np.stack(curves), np.stack(kept), np.arange(20) % 4)
    for choice in (tuning.choice, *tuning.choice_of_fold.values()):
        car = np.mean([levels >= choice + 1 for levels in levels_of])
        assert choice == level_of(0.5) - 1 or 0.05 < car < 0.95
    assert not tuning.helps or 0.05 < car < 0.95


def test_a_threshold_is_tuned_with_empty_masks_too() -> None:
    """A network that finds its cars, too faintly, and sees something in the empty photos."""
    curves, kept = [], []
    for number in range(20):
        levels, mask = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
        levels[8:11, 8:11] = 60  # where there is no car
        if number % 2:
            mask[4:16, 5:20] = 1
            levels[4:16, 5:20] = 100
        curves.append(dice_curve(levels, rle.from_mask(mask)))
        kept.append(kept_curve(levels, rle.from_mask(mask)))
    tuning = tune_threshold(np.stack(curves), np.stack(kept), np.arange(20) // 5)
    assert tuning.helps
    assert 60 < tuning.choice + 1 <= 100
    assert tuning.scores.mean() == 1


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
