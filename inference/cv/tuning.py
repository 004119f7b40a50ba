"""What is best on out-of-fold predictions, a threshold or the weights of runs, chosen so that the CV stays honest.

A fold is scored with what is best on the other folds. Only if the CV rises that way is it worth using; the best over
all images, scored on those same images, would always look like a gain.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.engine.host_masks import LEVELS, level_of

Scores = NDArray[np.floating]
# The leaderboard shows this digit, and a gain below it is within what the choice of images does.
SMALLEST_GAIN = 0.00005


class Tuning(NamedTuple):
    """What choosing gives.

    Attributes:
        choice: the best over all images, for the test set.
        choice_of_fold: for each fold the best on the other folds.
        scores: (images,), the Dice with each fold at its own choice.
        before: (images,), the Dice of the default.
    """

    choice: int
    choice_of_fold: dict[int, int]
    scores: Scores
    before: Scores

    @property
    def gain(self) -> float:
        """What the CV gains."""
        return float(self.scores.mean()) - float(self.before.mean())

    @property
    def helps(self) -> bool:
        """Whether the gain is worth it."""
        return self.gain >= SMALLEST_GAIN


def tune(scores: Scores, folds: NDArray[np.integer], *, default: int, best: Callable[[Scores], int]) -> Tuning:
    """Choose by out-of-fold Dice.

    Args:
        scores: (images, choices), the Dice of each image by each choice.
        folds: (images,), the fold of each image.
        default: the choice that is left where another does not help.
        best: which choice is best on some of the images.

    Returns:
        What was chosen. With a single fold there are no others to choose on, and the default stays.
    """
    before = scores[:, default]
    numbers = [int(fold) for fold in np.unique(folds)]
    if len(numbers) < 2:
        return Tuning(default, dict.fromkeys(numbers, default), before, before)
    choice_of_fold = {fold: best(scores[folds != fold]) for fold in numbers}
    own = np.array([choice_of_fold[int(fold)] for fold in folds])
    return Tuning(best(scores), choice_of_fold, scores[np.arange(len(scores)), own], before)


def tune_threshold(curves: Scores, folds: NDArray[np.integer]) -> Tuning:
    """Choose among ``thresholds``, of several equal ones the middle, far from where the Dice falls.

    Args:
        curves: (images, 255), the Dice of each image at levels 1 .. 255, as ``masks.dice_curve`` gives it.
        folds: (images,), the fold of each image.
    """
    return tune(curves, folds, default=level_of(0.5) - 1, best=middle_of_best)


def tune_weights(scores: Scores, folds: NDArray[np.integer]) -> Tuning:
    """Choose among weights of which the first are equal and the others go away from them; of equal ones the first."""
    return tune(scores, folds, default=0, best=lambda some: int(_best(some)[0]))


def middle_of_best(scores: Scores) -> int:
    """The choice of the highest mean; of several equal ones the middle."""
    best = _best(scores)
    return int(best[len(best) // 2])


def thresholds() -> list[float]:
    """The probabilities that stand for levels 1 .. 255."""
    return [level / (LEVELS - 1) for level in range(1, LEVELS)]


def _best(scores: Scores) -> NDArray[np.intp]:
    mean = scores.mean(axis=0)
    return np.flatnonzero(mean >= mean.max() - 1e-12)
