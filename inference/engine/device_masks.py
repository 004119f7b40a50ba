"""Averaged probabilities to spans on the device that made them: a GPU sends back the spans' ends, and no picture.

The arithmetic is that of ``masks``, pixel for pixel, so that both give the same spans for the same probabilities.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from competition.rle import Shape, Spans
from folds.frame import Frame


class BatchAnswer(NamedTuple):
    """What the networks of one frame say of a batch: ``masks.Answer`` with one more dimension, N, in front."""

    levels: Tensor
    frame: Frame
    weight: float
    components: Tensor | None = None


def full_size(answers: Sequence[BatchAnswer], shape: Shape) -> Tensor:
    """The answers for photos of one (H, W), each enlarged and then averaged by weight: (N, H, W) uint8."""
    enlarged = [in_shape(answer, shape) for answer in answers]
    if len(answers) == 1:
        return enlarged[0]
    total = torch.zeros_like(enlarged[0], dtype=torch.float32)
    for answer, levels in zip(answers, enlarged, strict=True):
        total += answer.weight * levels.float()
    # A tensor, since a GPU would multiply by the reciprocal of a number, which rounds otherwise than the host.
    weights = torch.full((), sum(answer.weight for answer in answers), device=total.device)
    return (total / weights).round().to(torch.uint8)


def in_shape(answer: BatchAnswer, shape: Shape) -> Tensor:
    """Levels in the (H, W) of the photos, still soft: what ``Frame.full_size`` does to each."""
    if answer.frame.fit == "pad":
        return answer.levels[:, : shape[0], : shape[1]]
    return enlarge(answer.levels, shape)


def enlarge(levels: Tensor, shape: Shape) -> Tensor:
    """Bilinear interpolation of (N, h, w) uint8 to (N, H, W), as cv2.resize does with INTER_LINEAR_EXACT.

    OpenCV defines that mode in whole numbers, alike on every processor: weights are rounded to 1/256, and the sum,
    exact in 24 bits, is rounded once at the end.
    """
    if tuple(levels.shape[1:]) == shape:
        return levels
    above, below, part = _neighbours(levels.shape[1], shape[0], levels.device)
    left, right, across = _neighbours(levels.shape[2], shape[1], levels.device)
    whole = levels.int()
    rows = whole[:, above] * (256 - part)[:, None] + whole[:, below] * part[:, None]
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


@lru_cache(maxsize=64)
def _neighbours(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``target`` places the two of ``source`` that it lies between, and the second's weight in 1/256."""
    place = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5
    first = place.floor()
    part = ((place - first) * 256).round().int()
    near = first.long().clamp(0, source - 1), (first.long() + 1).clamp(0, source - 1)
    return near[0].to(device), near[1].to(device), part.to(device)
