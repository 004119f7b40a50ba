"""Whether the levels of an image are those of a mask with smooth edges, rather than several classes or a photo.

Anti-aliasing, resizing, blurring and JPEG compression put levels between background and car at the outline, where
they change from pixel to pixel. A class is an area of one level. The limits were chosen on Carvana's masks, made
smooth in many ways, and on maps of classes drawn on them; ``benchmarks.mask_edges`` counts the errors that remain
(docs/your-photos.md).
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Levels = NDArray[Any]

NOISE = 0.03  # of the range: lossy compression shifts flat areas by up to so much
NEARLY_FLAT = 1 / 16  # of the range
NEARLY_PLATEAU = 0.1  # of the range
SETTLED = 0.25  # a smooth mask is background or car in at least this part of the picture
# At most so many pixels, as parts of the number of pixels at the outline:
FLAT = 0.001  # in areas of a third level
SHALLOW = 0.15  # in nearly flat areas between the two levels
HARD = 0.1  # a mask with fewer pixels between the two levels has no smooth edge


class Plateaus(NamedTuple):
    """The levels of background and car, each the most frequent one in flat areas."""

    low: int
    high: int


def plateaus(levels: Levels) -> Plateaus:
    """The levels of background and car of a mask with smooth edges: (H, W) uint8 or uint16, not constant."""
    low, high = int(levels.min()), int(levels.max())
    flat = levels[_variation(levels, 5) == 0]
    middle = (low + high + 1) // 2
    return Plateaus(_most_frequent(flat[flat < middle], low), _most_frequent(flat[flat >= middle], high))


def has_smooth_edges(
    levels: Levels, found: Plateaus, *, lossy: bool = False, other: NDArray[np.bool_] | None = None
) -> bool:
    """Whether the levels apart from two plateaus are at the outline only.

    Args:
        levels: (H, W) uint8 or uint16.
        found: the plateaus.
        lossy: whether the file was compressed with loss.
        other: (H, W), whether the color of a pixel is not one between background and car.
    """
    low, high = found
    span = high - low
    values = levels.astype(np.float32)
    apart = np.minimum(np.abs(values - low), np.abs(values - high))
    car = (values >= (low + high) / 2).astype(np.uint8)
    outline = np.count_nonzero(car - cv2.erode(car, np.ones((3, 3), np.uint8)))
    between = (values > low + NEARLY_PLATEAU * span) & (values < high - NEARLY_PLATEAU * span)
    smooth = lossy or np.count_nonzero(between) > HARD * outline
    third = apart > (NOISE * span if smooth else 0)
    if other is not None:
        third |= other
    nearly_flat = _variation(levels, 5) <= NEARLY_FLAT * span
    settled = nearly_flat & (apart <= NEARLY_PLATEAU * span)
    return bool(
        np.count_nonzero(settled) >= SETTLED * levels.size
        and np.count_nonzero(third & (_variation(levels, 3) == 0)) <= FLAT * outline
        and np.count_nonzero(between & nearly_flat) <= SHALLOW * outline
    )


def _variation(levels: Levels, side: int) -> Levels:
    """The difference of the highest and the lowest level in a square window around each pixel."""
    window = np.ones((side, side), np.uint8)
    return np.asarray(cv2.dilate(levels, window) - cv2.erode(levels, window))


def _most_frequent(levels: Levels, otherwise: int) -> int:
    return int(np.bincount(levels).argmax()) if levels.size else otherwise
