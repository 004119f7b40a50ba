"""The threshold that is best on out-of-fold predictions, chosen so that the CV stays honest.

A fold is scored at the threshold that is best on the other folds. Only if the CV rises that way is a threshold other
than one half worth using; the best over all images, scored on those same images, would always look like a gain.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.masks import LEVELS, level_of

# The leaderboard shows this digit, and a gain below it is within what the choice of images does.
SMALLEST_GAIN = 0.00005


class Tuning(NamedTuple):
    """What tuning the threshold gives.

    Attributes:
        level: the best level over all images, for the test set.
        level_of_fold: for each fold the best level on the other folds.
        dice: mean Dice with each fold at its own level.
        dice_at_half: mean Dice at one half.
    """

    level: int
    level_of_fold: dict[int, int]
    dice: float
    dice_at_half: float

    @property
    def gain(self) -> float:
        """What the CV gains."""
        return self.dice - self.dice_at_half

    @property
    def helps(self) -> bool:
        """Whether the gain is worth it."""
        return self.gain >= SMALLEST_GAIN


def tune(curves: NDArray[np.floating], folds: NDArray[np.integer]) -> Tuning:
    """Choose thresholds by out-of-fold Dice.

    Args:
        curves: (images, 255), the Dice of each image at levels 1 .. 255, as ``masks.dice_curve`` gives it.
        folds: (images,), the fold of each image.

    Returns:
        The choice. With a single fold there are no others to choose on, and one half stays.
    """
    half = level_of(0.5)
    at_half = float(curves[:, half - 1].mean())
    numbers = [int(fold) for fold in np.unique(folds)]
    if len(numbers) < 2:
        return Tuning(half, dict.fromkeys(numbers, half), at_half, at_half)
    level_of_fold = {fold: best_level(curves[folds != fold]) for fold in numbers}
    own = np.array([level_of_fold[int(fold)] for fold in folds])
    dice = float(curves[np.arange(len(curves)), own - 1].mean())
    return Tuning(best_level(curves), level_of_fold, dice, at_half)


def best_level(curves: NDArray[np.floating]) -> int:
    """The level of the highest mean Dice; of several equal ones the middle, far from where it falls."""
    mean = curves.mean(axis=0)
    best = np.flatnonzero(mean >= mean.max() - 1e-12)
    return int(best[len(best) // 2]) + 1


def thresholds() -> list[float]:
    """The probabilities that stand for levels 1 .. 255."""
    return [level / (LEVELS - 1) for level in range(1, LEVELS)]
