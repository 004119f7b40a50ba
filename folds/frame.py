"""The frame of a network: photos are resized or padded to its size, and predictions back to the photos' size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from competition import rle
from competition.command import Failure
from competition.images import Pixels
from competition.photo import Photo
from competition.rle import Shape, Spans

if TYPE_CHECKING:  # without torch, where an exported model runs, pydantic may be missing too
    from competition.settings.schema import Input


@dataclass(frozen=True)
class Frame:
    """A network's input size, and whether photos are resized to it or padded.

    A padded photo keeps its pixels: 1918 x 1280 becomes the upper left part of 1920 x 1280, and the last column is
    repeated.
    """

    height: int
    width: int
    fit: Literal["resize", "pad"]

    @classmethod
    def of(cls, settings: "Input") -> "Frame":
        """The frame of a run's settings."""
        return cls(settings.height, settings.width, settings.fit)

    def read(self, photo: Photo) -> Pixels:
        """Read a photo into the frame: (height, width, 3) uint8 RGB."""
        if self.fit == "pad":
            self.require_room(photo)
            return self._padded(photo.read())
        pixels, divisor = photo.read_halved(at_least=(self.height, self.width))
        height, width = (side / divisor for side in photo.shape)
        # Area averaging is needed only below half the size. Above it, the usual case because libjpeg has already
        # scaled the photo, bilinear interpolation is almost the same and five times as fast. If one side shrinks and
        # the other grows, OpenCV's INTER_AREA would shift the image.
        shrinks = height >= self.height and width >= self.width
        halved = shrinks and (height >= 2 * self.height or width >= 2 * self.width)
        return self._resized(pixels, (height, width), cv2.INTER_AREA if halved else cv2.INTER_LINEAR)

    def require_room(self, photo: Photo) -> None:
        """Raise a Failure if a photo is larger than a frame that pads."""
        height, width = photo.shape
        if self.fit == "pad" and (height > self.height or width > self.width):
            raise Failure(
                f"{photo.path} is {width} x {height}, larger than the frame of {self.width} x {self.height} that "
                "input.fit=pad pads to; enlarge input.height and input.width, or use input.fit=resize"
            )

    def target(self, mask: Pixels) -> Pixels:
        """The target of the network from a full-size mask of 0 and 1: (height, width) uint8, 255 is car.

        A resized mask is averaged by area, so a pixel on the outline has the part of it that is car.
        """
        full = mask * np.uint8(255)
        if self.fit == "pad":
            return self._padded(full)
        shrinks = full.shape[0] >= self.height and full.shape[1] >= self.width
        return self._resized(full, full.shape, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def target_of_spans(self, spans: Spans, shape: Shape) -> Pixels:
        """The target of a mask of this (H, W), computed from the spans of its RLE; ``target`` within 1 level of 255.

        A span changes the result at its two ends only: there the part of a pixel that is car begins or ends to be 1.
        The sum along each row then gives that part for all pixels, several times as fast as averaging all of them.
        """
        if not len(spans) or self.fit == "pad" or shape[0] < self.height or shape[1] < self.width:
            return self.target(rle.to_mask(spans, shape))
        down, across = self.height / shape[0], self.width / shape[1]
        rows, columns, signs = _ends(spans, shape[1])
        changes = np.zeros((self.height + 1, self.width + 2), dtype=np.float32)
        column = np.floor(columns * across).astype(np.int64)
        within = columns * across - column
        first = np.floor(rows * down).astype(np.int64)
        above = np.minimum((first + 1 - rows * down), down)  # the part of a row of the mask in its first row here
        for row, part in ((first, above), (first + 1, down - above)):
            np.add.at(changes, (row, column), (signs * part * (1 - within)).astype(np.float32))
            np.add.at(changes, (row, column + 1), (signs * part * within).astype(np.float32))
        # Outside of the box around the car all sums are 0.
        box = changes[first.min() : first.max() + 2, column.min() : column.max() + 2]
        np.cumsum(box, axis=1, out=box)
        covered = changes[: self.height, : self.width]
        levels: Pixels = cv2.convertScaleAbs(covered, alpha=255)
        return levels

    def full_size(self, levels: Pixels, shape: Shape) -> Pixels:
        """Resize or crop a prediction, (height, width) uint8 levels, to the (H, W) of the photo; not thresholded."""
        if self.fit == "pad":
            return levels[: shape[0], : shape[1]]
        # INTER_LINEAR_EXACT is defined bit by bit, so inference.engine.device_masks can do the same on a GPU.
        enlarged: Pixels = cv2.resize(levels, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR_EXACT)
        return enlarged

    def _resized(self, image: Pixels, shown: Sequence[float], interpolation: int) -> Pixels:
        """Resize the first ``shown`` rows and columns of an image, which can be fractions, to the frame."""
        if (shown[0], shown[1]) == (self.height, self.width):
            return image
        by = {"fy": self.height / shown[0], "fx": self.width / shown[1]}
        resized: NDArray[np.uint8] = cv2.resize(image, None, **by, interpolation=interpolation)
        # The rest of a fractional column can add one column.
        return np.ascontiguousarray(resized[: self.height, : self.width])

    def _padded(self, image: Pixels) -> Pixels:
        missing = (self.height - image.shape[0], self.width - image.shape[1])
        padded: Pixels = cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
        return padded


def _ends(spans: Spans, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Row, column and sign (1 where car begins, -1 where it ends) of all ends of spans; a row ends at ``width``."""
    starts, stops = spans.T
    # A span that reaches into the next rows begins again at the left border of each.
    counts = (stops - 1) // width - starts // width + 1
    rows = (
        np.repeat(starts // width, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    )
    begin = np.maximum(np.repeat(starts, counts), rows * width) - rows * width
    end = np.minimum(np.repeat(stops, counts), (rows + 1) * width) - rows * width
    signs = np.repeat([1.0, -1.0], len(rows))
    return np.tile(rows, 2).astype(float), np.concatenate([begin, end]).astype(float), signs
