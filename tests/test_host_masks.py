"""Averaged probabilities to masks."""

import numpy as np
import pytest

from competition import metrics, rle
from folds.frame import Frame
from inference.engine.host_masks import (
    Prediction,
    dice_curve,
    full_size,
    full_size_components,
    kept_curve,
    level_of,
    spans_at,
    threshold_at,
    threshold_of,
)

SMALL = Frame(32, 32, "resize")


def test_a_mask_is_the_pixels_at_or_above_the_level() -> None:
    levels = np.array([[127, 128, 129]], dtype=np.uint8)
    assert rle.to_mask(spans_at(levels, 128), (1, 3)).tolist() == [[0, 1, 1]]


def test_the_expected_dice_computed_by_hand() -> None:
    def expected(levels: list[int]) -> float:
        return threshold_at(np.array([levels], dtype=np.uint8), 128).expected_dice

    assert expected([255, 255, 204, 51, 0, 0]) == pytest.approx(2 * 2.8 / (3.0 + 3))  # 1, 1, 0.8, 0.2, 0, 0
    assert expected([255, 0]) == 1.0
    assert expected([0, 0]) == 1.0, "certainly empty"
    assert expected([100, 100]) == 0.0, "perhaps a car, and the mask is empty"


def test_the_threshold_of_a_level_gives_the_same_mask_and_is_short() -> None:
    levels = [threshold_of(level) for level in range(1, 256)]
    assert [level_of(threshold) for threshold in levels] == list(range(1, 256))
    assert [threshold_of(level_of(threshold)) for threshold in (0.5, 0.3, 0.44, 0.517)] == [0.5, 0.3, 0.44, 0.517]
    assert all(len(f"{threshold:g}") <= 5 for threshold in levels)


def test_one_prediction_is_enlarged_while_soft() -> None:
    levels = np.zeros((32, 32), dtype=np.uint8)
    levels[:, 16:] = 255
    full = full_size([Prediction(levels, SMALL, 1)], (64, 96))
    assert full.shape == (64, 96)
    assert len(np.unique(full)) > 2, "the border must still be soft"
    assert (full[:, :46] == 0).all()
    assert (full[:, 50:] == 255).all()


def test_padded_predictions_are_cropped_back_exactly() -> None:
    levels = np.arange(32 * 32, dtype=np.uint32).astype(np.uint8).reshape(32, 32)
    full = full_size([Prediction(levels, Frame(32, 32, "pad"), 1)], (30, 31))
    assert (full == levels[:30, :31]).all()


@pytest.mark.parametrize("weights", [(1, 3), (0.25, 0.75)])
def test_predictions_of_several_frames_are_averaged_by_weight(weights: tuple[float, float]) -> None:
    low = Prediction(np.full((32, 32), 10, dtype=np.uint8), SMALL, weights[0])
    high = Prediction(np.full((64, 64), 50, dtype=np.uint8), Frame(64, 64, "resize"), weights[1])
    assert (full_size([low, high], (40, 50)) == 40).all()  # (10 + 3 * 50) / 4


def test_components_of_several_frames_are_enlarged_one_by_one() -> None:
    random = np.random.default_rng(1)
    small, padded = (random.integers(0, 256, (count, 32, 32), dtype=np.uint8) for count in (3, 2))
    predictions = [
        Prediction(each[0], Frame(32, 32, fit), 1, each) for each, fit in ((small, "resize"), (padded, "pad"))
    ]
    full = full_size_components(predictions, (30, 31))
    assert full.shape == (5, 30, 31)
    assert all(np.array_equal(full[place], SMALL.full_size(small[place], (30, 31))) for place in range(3))
    assert np.array_equal(full[3:], padded[:, :30, :31])


@pytest.mark.parametrize("car", [0.0, 0.3, 1.0])
def test_the_curve_is_the_dice_at_every_threshold(car: float) -> None:
    random = np.random.default_rng(5)
    truth = random.random((20, 30)) < car
    levels = random.integers(0, 256, (20, 30), dtype=np.uint8)
    curve = dice_curve(levels, rle.from_mask(truth))
    assert curve.shape == (255,)
    assert curve.tolist() == pytest.approx([metrics.dice(levels >= level, truth) for level in range(1, 256)])


def test_the_curve_of_two_empty_masks_is_one() -> None:
    assert (dice_curve(np.zeros((4, 4), dtype=np.uint8), rle.EMPTY) == 1).all()


def test_half_of_car_and_background_are_kept_between_two_levels() -> None:
    levels = np.arange(100, dtype=np.uint8).reshape(10, 10)  # 100 - l pixels are at or above level l
    truth = np.array([[60, 100]])
    kept = kept_curve(levels, truth)
    assert [level for level in range(1, 256) if kept[level - 1]] == list(range(30, 81))
    assert np.isnan(kept_curve(np.zeros((4, 4), dtype=np.uint8), rle.EMPTY)).all()
    assert not kept_curve(np.zeros((4, 4), dtype=np.uint8), np.array([[0, 8]])).any()
