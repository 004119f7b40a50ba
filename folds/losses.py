"""The loss: binary cross-entropy on logits, and Dice, weighted by the settings."""

import torch
import torch.nn.functional as F
from torch import Tensor

from competition.settings import Loss


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of (N, 1, H, W) logits against a soft target in [0, 1] of the same shape."""
    return F.binary_cross_entropy_with_logits(logits, target)


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
        settings: the weights; terms of weight 0 are not computed.
        logits: (N, 1, H, W), any float dtype.
        target: (N, 1, H, W), in [0, 1].

    Returns:
        A scalar.
    """
    logits, target = logits.float(), target.float()
    terms = ((settings.bce, bce), (settings.dice, dice_loss))
    weighted = [weight * term(logits, target) for weight, term in terms if weight]
    return torch.stack(weighted).sum()
