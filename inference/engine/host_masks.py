"""Averaged probabilities to masks: enlarged while soft, averaged, and thresholded once at full size.

Probabilities are stored as uint8 levels: level l is probability l / 255. A mask is the pixels at or above a level.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from competition import rle
from competition.images import Pixels
from competition.rle import Shape, Spans
from folds.frame import Frame

LEVELS = 256
FloatArray = NDArray[np.float64]


class Thresholded(NamedTuple):
    """The mask of one photo at a level.

    Attributes:
        spans: of the pixels at or above the level.
        expected_dice: the Dice of ``expected_dice``, a measure of certainty.
    """

    spans: Spans
    expected_dice: float


class Prediction(NamedTuple):
    """What one ensemble predicts for a photo.

    Attributes:
        levels: (h, w) uint8, the mean of its components.
        frame: of its networks.
        weight: the sum of the member weights of its networks; ensembles are averaged with these weights.
        components: (P, h, w) uint8, the levels of each network for each tta; None if not requested.
        others: (K, h, w) uint8, the levels with K other member weights; None if not requested.
    """

    levels: Pixels
    frame: Frame
    weight: float
    components: Pixels | None = None
    others: Pixels | None = None


def level_of(threshold: float) -> int:
    """The lowest level that is at or above a probability in (0, 1): 0.5 is 128, as the winners used."""
    return int(np.ceil(threshold * (LEVELS - 1)))


def threshold_of(level: int) -> float:
    """The shortest decimal that takes effect at a level: 0.5 for level 128, which is probability 0.50196."""
    exact = level / (LEVELS - 1)
    rounded_down = (math.floor(exact * 10**digits) / 10**digits for digits in (1, 2, 3))
    return next((short for short in rounded_down if short > 0 and level_of(short) == level), exact)


def full_size(predictions: Sequence[Prediction], shape: Shape) -> Pixels:
    """The weighted mean of predictions for one photo, each enlarged to its (H, W) before; uint8 levels."""
    if len(predictions) == 1:
        return predictions[0].frame.full_size(predictions[0].levels, shape)
    total = np.zeros(shape, dtype=np.float32)
    for prediction in predictions:
        total += np.float32(prediction.weight) * prediction.frame.full_size(prediction.levels, shape)
    mean: Pixels = np.rint(total / sum(prediction.weight for prediction in predictions)).astype(np.uint8)
    return mean


def full_size_components(predictions: Sequence[Prediction], shape: Shape) -> Pixels:
    """The components of predictions for one photo, each enlarged to its (H, W): (P, H, W) uint8."""
    enlarged = [
        prediction.frame.full_size(levels, shape)
        for prediction in predictions
        if prediction.components is not None
        for levels in prediction.components
    ]
    return np.stack(enlarged)


def spans_at(levels: Pixels, level: int) -> Spans:
    """The spans of the pixels of (H, W) uint8 levels that are at or above a level."""
    return rle.from_mask(levels >= level)


def threshold_at(levels: Pixels, level: int) -> Thresholded:
    """The mask of (H, W) uint8 levels at a level."""
    spans = spans_at(levels, level)
    car = cv2.threshold(levels, level - 1, 0, cv2.THRESH_TOZERO)[1]
    return Thresholded(spans, expected_dice(sum_of(levels), sum_of(car), rle.area(spans)))


def sum_of(levels: Pixels) -> int:
    """The sum of uint8 levels."""
    return int(cv2.sumElems(levels)[0])


def expected_dice(levels: int, inside: int, area: int) -> float:
    """The Dice that a mask is expected to have if the predicted probabilities are right.

    2 E|A and B| / (E|A| + |B|), the ratio of the expectations, where A is the car and B the mask.

    Args:
        levels: the sum of the levels of all pixels.
        inside: the sum of the levels of the pixels of the mask.
        area: the number of pixels of the mask.
    """
    both = levels + (LEVELS - 1) * area
    return 2 * inside / both if both else 1.0


def dice_curve(levels: Pixels, truth: Spans) -> FloatArray:
    """The Dice that one image would have at every threshold, exactly.

    Args:
        levels: (H, W) uint8.
        truth: the spans of the image's mask.

    Returns:
        (255,) float64: the Dice of ``levels >= l`` for l = 1 .. 255.
    """
    predicted = _at_or_above(levels)
    both = _at_or_above(levels, rle.to_mask(truth, (levels.shape[0], levels.shape[1])))
    total = predicted + rle.area(truth)
    curve: FloatArray = np.divide(2 * both, total, out=np.ones_like(total), where=total > 0)
    return curve


def kept_curve(levels: Pixels, truth: Spans) -> FloatArray:
    """Whether an image keeps at least half of its car and half of its background, by area, at every threshold.

    Args:
        levels: (H, W) uint8.
        truth: the spans of the image's mask.

    Returns:
        (255,): 0 or 1 for the masks ``levels >= l``, l = 1 .. 255; NaN if the image has no car or no background.
    """
    predicted, true = _at_or_above(levels), rle.area(truth)
    if not 0 < true < levels.size:
        return np.full_like(predicted, np.nan)
    kept = (2 * predicted >= true) & (2 * (levels.size - predicted) >= levels.size - true)
    return kept.astype(np.float64)


def _at_or_above(levels: Pixels, mask: Pixels | None = None) -> FloatArray:
    """(255,): the number of pixels, of those in a mask, at or above each of the levels 1 .. 255."""
    return np.cumsum(_histogram(levels, mask)[::-1])[::-1][1:]


def _histogram(levels: Pixels, mask: Pixels | None = None) -> FloatArray:
    """(256,): the number of pixels of each level, of those in a mask."""
    counted: FloatArray = cv2.calcHist([levels], [0], mask, [LEVELS], [0, LEVELS]).ravel().astype(np.float64)
    return counted
