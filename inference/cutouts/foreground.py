"""Foreground colours: the colours of an object without the background that shows through at its edges.

A pixel on the outline of an object mixes the colours of the object and of what is behind it: I = a F + (1 - a) B.
Over another background, the colours I show a halo of the old one. This module estimates F by blur fusion in two
passes (Forte and Pitié, "Approximate Fast Foreground Colour Estimation", ICIP 2021).
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from competition.images import Pixels
from competition.rle import Shape

Floats = NDArray[np.float32]

# The windows of the two passes, in pixels of a photo whose longer side is SIDE or less. The authors use 90 and 6, for
# hair. The soft edge of a car is a few pixels wide: with 30 the remaining error is smaller (benchmarks.foreground).
WINDOWS = (30, 6)
SIDE = 1918
SMALLEST_TILE = 256
EPSILON = np.float32(1e-5)  # the authors'; it avoids a division by zero


def foreground(photo: Pixels, alpha: Floats, windows: Sequence[int] = WINDOWS) -> Pixels:
    """Estimate the colours of the object at its edges, in tiles, so that the memory for large photos is bounded.

    Args:
        photo: (H, W, 3) uint8 RGB.
        alpha: (H, W) float32 in [0, 1], the part of each pixel that is object.
        windows: of the passes, in pixels of a photo whose longer side is SIDE or less.

    Returns:
        (H, W, 3) uint8 RGB. Opaque pixels (alpha 1) keep their colours. Transparent pixels (alpha 0) beside the edges
        have the colours of the object, because programs that scale a picture without regard to its alpha mix them
        into the edges. All other transparent pixels are 0.
    """
    scale = scale_of((alpha.shape[0], alpha.shape[1]))
    scaled = [round(size * scale) | 1 for size in windows]  # odd: the centre of an even window is between two pixels
    reach = sum(window // 2 for window in scaled)
    cleaned: Pixels = photo * (alpha == 1)[..., None]
    for inner, outer in _tiles(alpha.shape, max(SMALLEST_TILE, 4 * scaled[0]), reach):
        around = alpha[outer]
        if ((around > 0) & (around < 1)).any():
            inside = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
            estimated = _estimate(photo[outer], around, scaled)[inside]
            cv2.copyTo(estimated, (alpha[inner] < 1).astype(np.uint8), cleaned[inner])
    return cleaned


def scale_of(shape: Shape) -> float:
    """How many times as wide as in Carvana's photos a soft edge is; as wide in smaller photos of (H, W) pixels."""
    return max(1.0, max(shape) / SIDE)


def _tiles(
    shape: tuple[int, ...], size: int, margin: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Cut (H, W) into tiles: each without and with a margin."""
    height, width = shape
    for top in range(0, height, size):
        for left in range(0, width, size):
            inner = slice(top, min(top + size, height)), slice(left, min(left + size, width))
            yield (
                inner,
                (
                    slice(max(0, top - margin), min(inner[0].stop + margin, height)),
                    slice(max(0, left - margin), min(inner[1].stop + margin, width)),
                ),
            )


def _estimate(photo: Pixels, alpha: Floats, windows: Sequence[int]) -> Pixels:
    """The foreground colours of a tile, (h, w, 3) uint8."""
    image = photo.astype(np.float32)
    front, back = image, image
    for window in windows:
        front, back = _fuse(image, front, back, alpha, window)
    return np.rint(front).astype(np.uint8)


def _fuse(image: Floats, front: Floats, back: Floats, alpha: Floats, window: int) -> tuple[Floats, Floats]:
    """One pass: better colours of the foreground, and blurred ones of the background, both (h, w, 3) float32."""
    opacity = alpha[..., None]
    blurred = _blur(alpha, window)[..., None]
    smooth_front = _blur(front * opacity, window) / (blurred + EPSILON)
    smooth_back = _blur(back * (1 - opacity), window) / (1 - blurred + EPSILON)
    # What the smooth colours do not explain is detail of the object.
    detail = image - opacity * smooth_front - (1 - opacity) * smooth_back
    return np.clip(smooth_front + opacity * detail, 0, 255), smooth_back


def _blur(image: Floats, window: int) -> Floats:
    blurred: Floats = cv2.blur(image, (window, window))
    return blurred
