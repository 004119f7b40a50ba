"""The learning rate: a function of the update's number alone, so that no kill can lose its place."""

import math

from competition.settings.schema import Train


def learning_rate(settings: Train, update: int, updates: int) -> float:
    """The learning rate of one update.

    It rises linearly over the first ``warmup`` of the updates. Then it stays (constant), is multiplied by ``gamma``
    at each of the ``milestones`` (step), or falls to nothing along half a cosine (onecycle and cosine; Loshchilov and
    Hutter, SGDR, 2017). Onecycle rises along a cosine too and starts at a 25th (Smith and Topin, 2018).

    Args:
        settings: lr, schedule, warmup, milestones and gamma.
        update: number of the update, from 0.
        updates: how many there will be.
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
