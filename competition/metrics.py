"""Dice and IoU of two masks, from their pixels or from their spans.

Both come from the same three counts, so J = D / (2 - D) always holds. Two empty masks score 1, as on Kaggle.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from competition import rle
from competition.rle import Mask, Spans


class Counts(NamedTuple):
    """How many pixels are car in both masks, in the first, and in the second."""

    both: int
    first: int
    second: int

    @property
    def dice(self) -> float:
        """Sørensen-Dice coefficient 2|A∩B| / (|A| + |B|) in [0, 1]: Carvana's score of one image."""
        total = self.first + self.second
        return 2 * self.both / total if total else 1.0

    @property
    def iou(self) -> float:
        """Jaccard index |A∩B| / |A∪B| in [0, 1]."""
        union = self.first + self.second - self.both
        return self.both / union if union else 1.0


class Scores(NamedTuple):
    """Mean Dice (Kaggle's score) and mean IoU over images, in [0, 1]."""

    dice: float
    iou: float
    images: int


def mean(each: Sequence[Counts]) -> Scores:
    """The mean of the scores of the images; not the score of the pooled pixels."""
    return Scores(fmean(one.dice for one in each), fmean(one.iou for one in each), len(each))


def counts(a: Mask, b: Mask) -> Counts:
    """Count the pixels of two (H, W) masks of any dtype, non-zero is car."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise ValueError(f"masks of different shapes: {a.shape} and {b.shape}")
    if a.ndim != 2:  # Dice pooled over a batch is not the mean over images
        raise ValueError(f"a mask has two dimensions (height, width), not shape {a.shape}")
    a, b = a != 0, b != 0
    return Counts(int(np.count_nonzero(a & b)), int(np.count_nonzero(a)), int(np.count_nonzero(b)))


def counts_of_spans(a: Spans, b: Spans) -> Counts:
    """Count the pixels of two masks given as spans, without decoding them."""
    return Counts(rle.intersection(a, b), rle.area(a), rle.area(b))


def dice(a: Mask, b: Mask) -> float:
    """Dice of two (H, W) masks."""
    return counts(a, b).dice


def iou(a: Mask, b: Mask) -> float:
    """IoU of two (H, W) masks."""
    return counts(a, b).iou


def dice_rle(a: str, b: str) -> float:
    """Dice of two run-length codes of one image; raises ValueError if one is malformed."""
    return counts_of_spans(rle.parse(a), rle.parse(b)).dice
