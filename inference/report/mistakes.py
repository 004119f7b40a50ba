"""Wrong pixels: which, how many, and where most of them are."""

from typing import NamedTuple

import cv2
import numpy as np

from competition.images import Pixels
from competition.rle import Mask, Shape

RIGHT, MISSED, EXTRA = 0, 1, 2


class Window(NamedTuple):
    """A rectangle of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Pixels) -> Pixels:
        """The part of an (H, W) or (H, W, C) image that lies in the window."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def mistakes(truth: Mask, predicted: Mask) -> Pixels:
    """Compare a prediction with the truth, pixel by pixel.

    Args:
        truth: (H, W) mask, non-zero is car.
        predicted: (H, W) mask.

    Returns:
        (H, W) uint8: RIGHT, MISSED (car that was predicted as background) or EXTRA (background predicted as car).

    Raises:
        ValueError: the masks differ in shape.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"masks of different shapes: {truth.shape} and {predicted.shape}")
    wrong = np.full(truth.shape, RIGHT, dtype=np.uint8)
    wrong[(truth != 0) & (predicted == 0)] = MISSED
    wrong[(truth == 0) & (predicted != 0)] = EXTRA
    return wrong


def count(wrong: Pixels) -> tuple[int, int]:
    """The number of missed and of extra pixels."""
    return int(np.count_nonzero(wrong == MISSED)), int(np.count_nonzero(wrong == EXTRA))


def worst_windows(wrong: Pixels, shape: Shape, limit: int) -> list[Window]:
    """The windows that contain most of the mistakes, in descending order.

    Each contains the most wrong pixels that are in no earlier window, and is moved so that these are in its middle.

    Args:
        wrong: (H, W) of ``mistakes``.
        shape: (height, width) of a window, cut to the size of the image.
        limit: the largest number of windows; fewer if these contain all mistakes.
    """
    height, width = min(shape[0], wrong.shape[0]), min(shape[1], wrong.shape[1])
    remaining = (wrong != RIGHT).astype(np.uint8)
    windows: list[Window] = []
    while len(windows) < limit and remaining.any():
        fullest = _fullest(remaining, height, width)
        window = _centered(fullest, remaining)
        window.of(remaining)[:] = 0
        windows.append(window)
    return windows


def _fullest(marked: Pixels, height: int, width: int) -> Window:
    """The window of one size that contains the most marked pixels."""
    below = cv2.integral(marked)
    held = below[height:, width:] - below[:-height, width:] - below[height:, :-width] + below[:-height, :-width]
    top, left = np.unravel_index(int(held.argmax()), held.shape)
    return Window(int(top), int(left), height, width)


def _centered(window: Window, marked: Pixels) -> Window:
    """The window moved so that its marked pixels are in its middle; it still contains all of them."""
    rows, columns = np.nonzero(window.of(marked))
    top = window.top + (int(rows.min()) + int(rows.max()) + 1 - window.height) // 2
    left = window.left + (int(columns.min()) + int(columns.max()) + 1 - window.width) // 2
    return window._replace(
        top=min(max(top, 0), marked.shape[0] - window.height), left=min(max(left, 0), marked.shape[1] - window.width)
    )
