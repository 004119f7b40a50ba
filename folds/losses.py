"""The loss: binary cross-entropy on logits, heavier near the outline where asked for, and Dice."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from competition.settings.schema import Loss


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of (N, 1, H, W) logits against a soft target in [0, 1] of the same shape."""
    return F.binary_cross_entropy_with_logits(logits, target)


def weighted_bce(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy averaged with weights over the pixels of each image, and then over the images.

    Dividing by the sum of the weights keeps the loss, and with it the learning rate, at the scale of ``bce``. By
    image and not by batch: the mean of two halves of a batch is then that of the batch.

    Args:
        logits, target, weights: (N, 1, H, W) each.
    """
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((losses * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)).mean()


def boundary_weights(target: Tensor, weight: float, width: int) -> Tensor:
    """Pixel weights: ``weight`` where the window around a pixel is neither all car nor all background, else 1.

    The winners of Carvana weighted a border of 41 pixels three times (Giannakopoulos, 2017, with an average pool).
    The window is cut off at the image's border, which therefore is no outline.

    Args:
        target: (N, 1, H, W) float, soft: a pixel on the outline is neither car nor background.
        weight: near the outline.
        width: side of the square window in pixels, odd.

    Returns:
        (N, 1, H, W), of target's dtype.
    """
    radius = width // 2
    padded = F.pad(target, (radius, radius, radius, radius), mode="replicate")
    mixed = extreme(padded, width, torch.maximum) > extreme(padded, width, torch.minimum)
    return 1 + (weight - 1) * mixed.to(target.dtype)


def extreme(padded: Tensor, width: int, of_two: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The maximum or minimum in every square window of (N, C, H, W), which shrinks by width - 1.

    Columns first, then rows, and each by doubling: two windows that overlap make one of up to twice the length. 41
    pixels take 6 passes over memory, where max_pool2d takes 41 comparisons a pixel: the weights of 1024 x 1024 pixels
    take 8 ms on one core in place of 300.
    """
    for dim in (2, 3):
        length = 1
        while length < width:
            step = min(length, width - length)
            rest = padded.shape[dim] - step
            padded = of_two(padded.narrow(dim, 0, rest), padded.narrow(dim, step, rest))
            length += step
    return padded


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice, of each image by itself as the competition does, and then the mean.

    Soft Dice after Milletari et al., V-Net (2016), with squares in the denominator: for a soft target it is 1 where
    the prediction equals the target, and not elsewhere.
    """
    probabilities = logits.sigmoid().flatten(1)
    target = target.flatten(1)
    overlap = 2 * (probabilities * target).sum(1)
    total = probabilities.square().sum(1) + target.square().sum(1)
    return (1 - (overlap + 1) / (total + 1)).mean()


def segmentation_loss(settings: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """The weighted sum of the terms, in float32 whatever the network computed in.

    Args:
        settings: the weights, of which terms of weight 0 are not computed, and whether the target is rounded.
        logits: (N, 1, H, W), any float dtype.
        target: (N, 1, H, W), in [0, 1].

    Returns:
        A scalar.
    """
    logits, target = logits.float(), target.float()
    if settings.targets == "hard":
        target = (target >= 0.5).float()
    terms = ((settings.bce, cross_entropy(settings)), (settings.dice, dice_loss))
    weighted = [weight * term(logits, target) for weight, term in terms if weight]
    return torch.stack(weighted).sum()


def cross_entropy(settings: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """The cross-entropy that settings describe: plain, or heavier near the outline."""
    if settings.boundary == 1:
        return bce
    return lambda logits, target: weighted_bce(
        logits, target, boundary_weights(target, settings.boundary, settings.boundary_width)
    )
