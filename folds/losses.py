"""The loss: a weighted sum of terms.

To add a term, write its function here with ``@term`` and its weight, formula and description in
``competition.settings.schema.Loss``, as a field of the same name. Settings, help and report follow from that field.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from competition.settings.schema import Loss, Precision
from folds.device import autocast

Term = Callable[[Tensor, Tensor, Loss], Tensor]

TERMS: dict[str, Term] = {}


def term(function: Term) -> Term:
    """Register a term under the name of its function.

    A term takes logits and targets in [0, 1], both (N, 1, H, W) float32, and the settings; it returns a scalar.
    """
    TERMS[function.__name__] = function
    return function


def batch_loss(network: nn.Module, image: Tensor, target: Tensor, settings: Loss, precision: Precision) -> Tensor:
    """The loss of a batch: (N, h, w, 3) uint8 images and (N, h, w) uint8 targets on the network's device."""
    with autocast(precision, image.device):
        logits = network(image.permute(0, 3, 1, 2))
    return segmentation_loss(settings, logits, target.unsqueeze(1).float() / 255)


def segmentation_loss(settings: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """The weighted sum of the terms, a scalar in float32.

    Args:
        settings: the kind of target, and the weights of the terms; terms with weight 0 are not computed.
        logits: (N, 1, H, W), any float dtype.
        target: (N, 1, H, W), in [0, 1].
    """
    logits, target = logits.float(), target.float()
    if settings.targets == "hard":
        target = (target >= 0.5).float()
    weights = settings.weights()
    return torch.stack([weight * TERMS[name](logits, target, settings) for name, weight in weights.items()]).sum()


@term
def bce(logits: Tensor, target: Tensor, settings: Loss) -> Tensor:
    """Binary cross-entropy; with ``settings.boundary`` above 1, pixels near the outline have that weight.

    The weighted loss is divided by the sum of the weights of each image, so its scale stays that of the plain loss,
    and a batch has the mean loss of its halves.
    """
    if settings.boundary == 1:
        return F.binary_cross_entropy_with_logits(logits, target)
    weights = boundary_weights(target, settings.boundary, settings.boundary_width)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((losses * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)).mean()


@term
def dice(logits: Tensor, target: Tensor, _settings: Loss) -> Tensor:
    """1 - soft Dice of each image, averaged over the images as in the competition's score.

    Soft Dice has squares in the denominator (Milletari et al., V-Net, 2016): for a soft target it is 1 only where the
    prediction equals the target.
    """
    probabilities = logits.sigmoid().flatten(1)
    target = target.flatten(1)
    overlap = 2 * (probabilities * target).sum(1)
    total = probabilities.square().sum(1) + target.square().sum(1)
    return (1 - (overlap + 1) / (total + 1)).mean()


def boundary_weights(target: Tensor, weight: float, width: int) -> Tensor:
    """``weight`` for each pixel whose window contains both car and background, 1 for the others.

    The winners of Carvana gave a border of 41 pixels weight 3 (Giannakopoulos, 2017, with an average pool). Windows
    are clipped at the border of the image, so the border does not count as an outline.

    Args:
        target: (N, 1, H, W) float; soft pixels count as both car and background.
        weight: near the outline.
        width: side of the square window in pixels, odd.

    Returns:
        (N, 1, H, W), of the dtype of ``target``.
    """
    radius = width // 2
    padded = F.pad(target, (radius, radius, radius, radius), mode="replicate")
    mixed = sliding(torch.maximum, padded, width) > sliding(torch.minimum, padded, width)
    return 1 + (weight - 1) * mixed.to(target.dtype)


def sliding(of_two: Callable[[Tensor, Tensor], Tensor], padded: Tensor, width: int) -> Tensor:
    """The maximum or minimum of every square window of (N, C, H, W); H and W shrink by ``width - 1``.

    Each dimension is reduced by doubling: two overlapping windows make one of up to twice the length. A width of 41
    takes 6 passes per dimension, where max_pool2d compares 41 pixels: 8 ms for 1024 x 1024 on one core, not 300 ms.
    """
    for dim in (2, 3):
        length = 1
        while length < width:
            step = min(length, width - length)
            rest = padded.shape[dim] - step
            padded = of_two(padded.narrow(dim, 0, rest), padded.narrow(dim, step, rest))
            length += step
    return padded


if TERMS.keys() != Loss.formulas().keys():
    raise TypeError(f"terms {sorted(TERMS)} do not match the fields of Loss, {sorted(Loss.formulas())}")
