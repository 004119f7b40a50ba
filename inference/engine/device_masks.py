"""Averaged probabilities to spans on the device that computed them: a GPU sends back the ends of the spans, no image.

The arithmetic is that of ``host_masks``, pixel for pixel, so that both give the same spans for equal levels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from competition import rle
from competition.rle import Shape, Spans
from folds.frame import Frame
from inference.engine.host_masks import Thresholded, expected_dice


class BatchPrediction(NamedTuple):
    """What one ensemble predicts for a batch: ``host_masks.Prediction`` with one more dimension, N, in front."""

    levels: Tensor
    frame: Frame
    weight: float
    components: Tensor | None = None
    others: Tensor | None = None


def full_size(predictions: Sequence[BatchPrediction], shape: Shape) -> Tensor:
    """The weighted mean of predictions for photos of one (H, W), each enlarged before: (N, H, W) uint8."""
    enlarged = [enlarge_in_frame(prediction, shape) for prediction in predictions]
    if len(predictions) == 1:
        return enlarged[0]
    total = torch.zeros_like(enlarged[0], dtype=torch.float32)
    for prediction, levels in zip(predictions, enlarged, strict=True):
        total += prediction.weight * levels.float()
    # A GPU would multiply by the reciprocal of a Python number, which rounds differently from the host's division.
    weights = torch.full((), sum(prediction.weight for prediction in predictions), device=total.device)
    return (total / weights).round().to(torch.uint8)


def enlarge_in_frame(prediction: BatchPrediction, shape: Shape) -> Tensor:
    """Soft levels in the (H, W) of the photos: ``Frame.full_size`` for a batch."""
    if prediction.frame.fit == "pad":
        return prediction.levels[:, : shape[0], : shape[1]]
    return enlarge(prediction.levels, shape)


def enlarge(levels: Tensor, shape: Shape) -> Tensor:
    """Bilinear interpolation of (N, h, w) uint8 to (N, H, W), equal to cv2.resize with INTER_LINEAR_EXACT.

    OpenCV defines this mode in integers, so that it is the same on every processor: weights are rounded to 1/256, and
    the sum, exact in 24 bits, is rounded once at the end.
    """
    if tuple(levels.shape[1:]) == shape:
        return levels
    above, below, down = _neighbors(levels.shape[1], shape[0], levels.device)
    left, right, across = _neighbors(levels.shape[2], shape[1], levels.device)
    integers = levels.int()
    rows = integers[:, above] * (256 - down)[:, None] + integers[:, below] * down[:, None]
    pixels = rows[:, :, left] * (256 - across) + rows[:, :, right] * across
    return ((pixels + (1 << 15)) >> 16).to(torch.uint8)


def spans_at(levels: Tensor, level: int) -> list[Spans]:
    """The spans of the pixels of (N, H, W) uint8 levels that are at or above a level, for each image."""
    car = (levels >= level).flatten(1)
    edge = torch.ones(len(car), car.shape[1] + 1, dtype=torch.bool, device=car.device)
    edge[:, 1:-1] = car[:, 1:] != car[:, :-1]
    edge[:, 0], edge[:, -1] = car[:, 0], car[:, -1]
    found = edge.nonzero().cpu().numpy()  # (image, place), in order; waits for the device
    ends = np.searchsorted(found[:, 0], np.arange(1, len(car)))
    return [places[:, 1].reshape(-1, 2).copy() for places in np.split(found, ends)]


def threshold_at(levels: Tensor, level: int) -> list[Thresholded]:
    """The mask of each of (N, H, W) uint8 levels at a level."""
    car = levels * (levels >= level)
    totals, inside = (each.flatten(1).sum(1, dtype=torch.int64).tolist() for each in (levels, car))
    found = zip(totals, inside, spans_at(levels, level), strict=True)
    return [Thresholded(spans, expected_dice(total, within, rle.area(spans))) for total, within, spans in found]


@lru_cache(maxsize=64)
def _neighbors(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``target`` places the two of ``source`` that it lies between, and the second's weight in 1/256."""
    place = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5
    first = place.floor()
    part = ((place - first) * 256).round().int()
    near = first.long().clamp(0, source - 1), (first.long() + 1).clamp(0, source - 1)
    return near[0].to(device), near[1].to(device), part.to(device)
