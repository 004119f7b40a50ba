"""What cutting out needs of a model: trained folds with torch, or an exported file with onnxruntime."""

from typing import Protocol

from competition.images import Pixels
from folds.frame import Frame


class Model(Protocol):
    """Networks that predict together.

    Attributes:
        frame: photos are read with ``frame.read(photo)``.
        threshold: the lowest probability of the object.
    """

    frame: Frame
    threshold: float

    def levels(self, images: Pixels) -> Pixels:
        """The mean probability as levels, (N, h, w) uint8, for photos in the frame, (N, h, w, 3) uint8 RGB."""
