"""What the Dice would be if the answers of runs and views were mixed otherwise.

A component is one network's answer to one view, and an answer is a mixture of components. While an answer is made its
components are at hand, so that other mixtures of them are measured without asking a network again. Components are
rounded to levels before they are mixed, the answer itself after: a pixel of the outline may differ.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from competition import rle
from competition.images import Pixels
from competition.metrics import Counts
from competition.rle import Spans
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import FloatArray, level_of

Shares = tuple[float, ...]  # the part of the whole that each has; they sum to 1
HALF = level_of(0.5)
STEPS = 4  # shares of runs are tried in steps of a quarter,
MOST = 99  # or in larger ones, where that would be more than this


class Mixture(NamedTuple):
    """The share of each run, and of each view in the answer of each run."""

    runs: Shares
    views: Shares


def equal(number: int, among: int | None = None) -> Shares:
    """The same for each of the first ones among several, by default for all, and nothing for the rest."""
    return (1 / number,) * number + (0.0,) * ((among or number) - number)


def alone(place: int, among: int) -> Shares:
    """All for one among several."""
    return tuple(float(each == place) for each in range(among))


def grid(runs: int) -> list[Shares]:
    """The shares that are tried for several runs: equal ones, and then others by their distance from these."""
    steps = next((steps for steps in range(STEPS, 1, -1) if comb(runs + steps - 1, steps) <= MOST), 1)
    given = combinations_with_replacement(range(runs), steps)  # each step to one of the runs
    counts = [tuple(whose.count(run) for run in range(runs)) for whose in given]
    # Their sums are the same, so that this is their distance from equal shares.
    counts.sort(key=lambda each: sum(count**2 for count in each))
    return list(dict.fromkeys([equal(runs), *(tuple(count / steps for count in each) for each in counts)]))


def measured_mixtures(shares: Shares, views: int, tried: Sequence[Shares]) -> list[Mixture]:
    """The mixtures that tell what each component adds; none where there is only one component.

    Args:
        shares: of the runs, in the answer that is made.
        views: how many there are.
        tried: other shares of the runs.
    """
    runs = len(shares)
    if runs * views == 1:
        return []
    by_run = [shares, equal(runs), *(alone(run, runs) for run in range(runs)), *tried]
    by_view = [alone(view, views) for view in range(views)]
    by_view += [equal(number, views) for number in range(2, views + 1)]
    mixtures = [Mixture(each, equal(views)) for each in by_run] + [Mixture(shares, each) for each in by_view]
    return list(dict.fromkeys(mixtures))


def matrix(mixtures: Sequence[Mixture], ensembles: Sequence[Ensemble]) -> FloatArray:
    """Mixtures as weights of the components, (K, P), in the order in which ensembles give these."""
    components = [
        (run, view) for ensemble in ensembles for view in range(len(ensemble.tta)) for run in ensemble.indices
    ]
    return np.array([[mixture.runs[run] * mixture.views[view] for run, view in components] for mixture in mixtures])


def dice_of_mixtures(components: Pixels, mixtures: FloatArray, truth: Spans) -> FloatArray:
    """The Dice at one half that one image would have by each mixture, exactly.

    Where all components are on the same side of one half, every mixture is. Only the other pixels are mixed; good
    components have few of them.

    Args:
        components: (P, H, W) uint8 levels.
        mixtures: (K, P), the weights of the components, which sum to 1 in each row.
        truth: the spans of the image's mask.

    Returns:
        (K,) float64.
    """
    mask = rle.to_mask(truth, (components.shape[1], components.shape[2])).ravel()
    flat = components.reshape(len(components), -1)
    agreed = flat.min(axis=0) >= HALF
    places = np.flatnonzero((flat.max(axis=0) >= HALF) & ~agreed)
    open_levels, inside = flat[:, places].astype(np.float64), mask[places] != 0
    both, area, of_truth = _count(mask[agreed]), _count(agreed), rle.area(truth)
    dice = []
    for weights in mixtures:
        # The mean is rounded to a level; what lies between two is car whatever the last bits of the sum.
        car = weights @ open_levels >= HALF - 0.5 - 1e-9
        dice.append(Counts(both + _count(car & inside), area + _count(car), of_truth).dice)
    return np.array(dice)


def _count(pixels: NDArray[np.generic]) -> int:
    return int(np.count_nonzero(pixels))
