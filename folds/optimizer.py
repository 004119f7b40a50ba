"""The optimizer, and the learning rate which depends only on the number of the update, so it needs no saved state."""

import math

import torch
from torch import nn

from competition.settings.schema import Train


def make_optimizer(network: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum; biases and normalization have no weight decay."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in learned if parameter.ndim > 1]
    others = [parameter for parameter in learned if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.lr)


def learning_rate(settings: Train, update: int, updates: int) -> float:
    """The learning rate of one update.

    It rises linearly over the first ``warmup`` of the updates. After that it is constant, or is multiplied by
    ``gamma`` at each of the ``milestones`` (step), or falls to 0 along half a cosine (onecycle and cosine; Loshchilov
    and Hutter, SGDR, 2017). Onecycle also rises along a cosine, from 1/25 (Smith and Topin, 2018).

    Args:
        settings: lr, schedule, warmup, milestones and gamma.
        update: number of the update, from 0.
        updates: number of updates of the whole training.
    """
    rising = settings.warmup * updates
    if update < rising:
        part = (update + 1) / (rising + 1)
        if settings.schedule == "onecycle":
            return settings.lr * (0.04 + 0.96 * (1 - math.cos(math.pi * part)) / 2)
        return settings.lr * part
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "step":
        passed = sum(update >= milestone * updates for milestone in settings.milestones)
        return settings.lr * settings.gamma**passed
    part = (update - rising) / max(1, updates - rising)
    return settings.lr * (1 + math.cos(math.pi * part)) / 2
