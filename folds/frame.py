"""The frame through which a network sees photos: how they get to its size, and its answer back to theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from competition.command import Failure
from competition.images import Pixels, read_halved, read_rgb, shape_of
from competition.rle import Shape
from competition.settings.schema import Input


@dataclass(frozen=True)
class Frame:
    """A network's input size, and whether photos are resized to it or padded.

    Padded photos keep their own pixels: 1918 x 1280 lies in the upper left of 1920 x 1280, and the columns
    beyond repeat the last one.
    """

    height: int
    width: int
    fit: Literal["resize", "pad"]

    @classmethod
    def of(cls, settings: Input) -> "Frame":
        """The frame that settings describe."""
        return cls(settings.height, settings.width, settings.fit)

    def read(self, path: Path) -> Pixels:
        """A photo as the network sees it: (height, width, 3) uint8 RGB.

        Raises:
            Failure: the file is damaged, or larger than a padding frame.
        """
        if self.fit == "pad":
            photo = read_rgb(path)
            self.require_room(photo.shape, path)
            return self._padded(photo)
        photo, divisor = read_halved(path, at_least=(self.height, self.width))
        height, width = (side / divisor for side in shape_of(path))
        # Below half the size every pixel has to be averaged in. Above it, which is the usual case after libjpeg's own
        # scaling, four neighbours hold nearly all there is, in a fifth of the time. Where one side shrinks and the
        # other grows, OpenCV has no averaging, and something that moves the picture in its place.
        shrinks = height >= self.height and width >= self.width
        halved = shrinks and (height >= 2 * self.height or width >= 2 * self.width)
        return self._resized(photo, (height, width), cv2.INTER_AREA if halved else cv2.INTER_LINEAR)

    def require_room(self, shape: Sequence[int], path: Path) -> None:
        """Raise a Failure if a photo of (H, W, ...) is larger than a padding frame."""
        if self.fit == "pad" and (shape[0] > self.height or shape[1] > self.width):
            raise Failure(
                f"{path} is {shape[1]} x {shape[0]}, larger than the frame of {self.width} x {self.height} that "
                "input.fit=pad pads to; enlarge input.height and input.width, or use input.fit=resize"
            )

    def target(self, mask: Pixels) -> Pixels:
        """A full-size mask of 0 and 1 as what the network should answer: (height, width) uint8, 255 is car.

        Resized masks are averaged by area, so that a pixel on the outline holds the part of it that is car.
        """
        full = mask * np.uint8(255)
        if self.fit == "pad":
            return self._padded(full)
        shrinks = full.shape[0] >= self.height and full.shape[1] >= self.width
        return self._resized(full, full.shape, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def full_size(self, levels: Pixels, shape: Shape) -> Pixels:
        """The network's answer, (height, width) uint8, in the (H, W) of the photo; still soft."""
        if self.fit == "pad":
            return levels[: shape[0], : shape[1]]
        # Exact: the mode that OpenCV defines bit by bit, so that a GPU can do the same.
        enlarged: Pixels = cv2.resize(levels, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR_EXACT)
        return enlarged

    def _resized(self, image: Pixels, shown: Sequence[float], interpolation: int) -> Pixels:
        """The first ``shown`` rows and columns of an image, which need not be whole, in the frame."""
        if (shown[0], shown[1]) == (self.height, self.width):
            return image
        by = {"fy": self.height / shown[0], "fx": self.width / shown[1]}
        resized: NDArray[np.uint8] = cv2.resize(image, None, **by, interpolation=interpolation)
        # What lies beyond a broken column may have become one more.
        return np.ascontiguousarray(resized[: self.height, : self.width])

    def _padded(self, image: Pixels) -> Pixels:
        missing = (self.height - image.shape[0], self.width - image.shape[1])
        padded: Pixels = cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
        return padded
