"""The Dice of other weighted means of networks and test-time augmentations than the one that predicts.

A component is the prediction of one network with one test-time augmentation (TTA), and a prediction is a weighted
mean of components. While an image is predicted its components are in memory, so other mixtures of them are measured
without running a network again. Components are rounded to levels before they are mixed, a prediction after it: a few
pixels of the outline may differ.
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

Weights = tuple[float, ...]  # they sum to 1
MemberWeights = Weights
HALF = level_of(0.5)
STEPS = 4  # member weights are tried in steps of a quarter,
MOST = 99  # or in larger steps if there would be more mixtures than this


class Mixture(NamedTuple):
    """The weight of each member, and of each TTA within each member."""

    members: MemberWeights
    tta: Weights


def equal(number: int, total: int | None = None) -> Weights:
    """Equal weights for the first ``number`` of ``total`` items, by default of all, and 0 for the rest."""
    return (1 / number,) * number + (0.0,) * ((total or number) - number)


def one_hot(index: int, total: int) -> Weights:
    """Weight 1 for one of several items."""
    return tuple(float(each == index) for each in range(total))


def grid(members: int) -> list[MemberWeights]:
    """The member weights to try: equal ones first, then the others by their distance from these."""
    steps = next((steps for steps in range(STEPS, 1, -1) if comb(members + steps - 1, steps) <= MOST), 1)
    # Each step goes to one of the members.
    counts = [
        tuple(chosen.count(member) for member in range(members))
        for chosen in combinations_with_replacement(range(members), steps)
    ]
    # All have the same sum, so the sum of squares orders them by their distance from equal weights.
    counts.sort(key=lambda each: sum(count**2 for count in each))
    return list(dict.fromkeys([equal(members), *(tuple(count / steps for count in each) for each in counts)]))


def measured_mixtures(weights: MemberWeights, tta: int, tried: Sequence[MemberWeights]) -> list[Mixture]:
    """The mixtures that show what each component adds; none if there is only one component.

    Args:
        weights: of the members, in the prediction.
        tta: number of test-time augmentations.
        tried: other member weights.
    """
    members = len(weights)
    if members * tta == 1:
        return []
    by_member = [weights, equal(members), *(one_hot(member, members) for member in range(members)), *tried]
    by_tta = [one_hot(index, tta) for index in range(tta)]
    by_tta += [equal(number, tta) for number in range(2, tta + 1)]
    mixtures = [Mixture(each, equal(tta)) for each in by_member] + [Mixture(weights, each) for each in by_tta]
    return list(dict.fromkeys(mixtures))


def component_weights(mixtures: Sequence[Mixture], ensembles: Sequence[Ensemble]) -> FloatArray:
    """Mixtures as weights of the components, (K, P), in the order in which the ensembles return components."""
    components = [
        (member, index) for ensemble in ensembles for index in range(len(ensemble.tta)) for member in ensemble.indices
    ]
    return np.array(
        [[mixture.members[member] * mixture.tta[index] for member, index in components] for mixture in mixtures]
    )


def dice_of_mixtures(components: Pixels, mixtures: FloatArray, truth: Spans) -> FloatArray:
    """The exact Dice of one image for each mixture, at threshold 0.5.

    Where all components are on the same side of 0.5, every mixture is too. Only the other pixels are mixed; good
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
    mixed_levels, inside = flat[:, places].astype(np.float64), mask[places] != 0
    both, area, truth_area = _count(mask[agreed]), _count(agreed), rle.area(truth)
    dice = []
    for weights in mixtures:
        # The mean is rounded to a level, half up; the tolerance makes a tie independent of errors in the sum.
        car = weights @ mixed_levels >= HALF - 0.5 - 1e-9
        dice.append(Counts(both + _count(car & inside), area + _count(car), truth_area).dice)
    return np.array(dice)


def _count(pixels: NDArray[np.generic]) -> int:
    return int(np.count_nonzero(pixels))
