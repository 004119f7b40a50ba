"""The threshold or the member weights that score best on out-of-fold predictions, without bias in the CV.

Each fold is scored with the choice that is best on the other folds, and a choice is used only if the CV rises that
way. The best choice over all images, scored on the same images, would always look like a gain.

A threshold is not chosen if it makes predictions empty or full whose masks are not. Otherwise "nothing is car" would
win for a network that has learned nothing and a data set with many empty masks, because two empty masks score 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.engine.host_masks import LEVELS, level_of, threshold_of

Scores = NDArray[np.floating]
# The leaderboard shows this digit, and smaller gains depend on the sample of images.
SMALLEST_GAIN = 0.00005
KEPT = 0.9  # of the images with car and background must keep half of both


class Tuning(NamedTuple):
    """The result of choosing among several thresholds or member weights.

    Attributes:
        choice: index of the best over all images, for the test set.
        choice_of_fold: for each fold, index of the best on the other folds.
        scores: (images,), the Dice if each fold has its own choice.
        before: (images,), the Dice of the default.
    """

    choice: int
    choice_of_fold: dict[int, int]
    scores: Scores
    before: Scores

    @property
    def gain(self) -> float:
        """The increase of the CV."""
        return float(self.scores.mean()) - float(self.before.mean())

    @property
    def helps(self) -> bool:
        """Whether the gain is large enough to use the choice."""
        return self.gain >= SMALLEST_GAIN


def tune(
    scores: Scores, folds: NDArray[np.integer], *, default: int, best: Callable[[NDArray[np.bool_]], int]
) -> Tuning:
    """Choose by out-of-fold Dice; with a single fold there are no other folds to choose on, and the default stays.

    Args:
        scores: (images, choices), the Dice of each image for each choice.
        folds: (images,), the fold of each image.
        default: index of the default choice.
        best: returns the index of the best choice on some of the images.
    """
    before = scores[:, default]
    numbers = [int(fold) for fold in np.unique(folds)]
    if len(numbers) < 2:
        return Tuning(default, dict.fromkeys(numbers, default), before, before)
    choice_of_fold = {fold: best(folds != fold) for fold in numbers}
    own = np.array([choice_of_fold[int(fold)] for fold in folds])
    choice = best(np.ones(len(scores), dtype=np.bool_))
    return Tuning(choice, choice_of_fold, scores[np.arange(len(scores)), own], before)


def tune_threshold(curves: Scores, kept: Scores, folds: NDArray[np.integer]) -> Tuning:
    """Choose among ``thresholds()``; among equally good ones the middle, which is far from where the Dice falls.

    Args:
        curves: (images, 255), the Dice of each image at levels 1 .. 255, from ``host_masks.dice_curve``.
        kept: (images, 255), from ``host_masks.kept_curve``. A threshold is not chosen unless 9 of 10 images with car
            and background keep half of both. If there is no such threshold, 0.5 stays.
        folds: (images,), the fold of each image.
    """
    default = level_of(0.5) - 1

    def best(some: NDArray[np.bool_]) -> int:
        counted = kept[some & ~np.isnan(kept[:, 0])]
        allowed = counted.sum(axis=0) >= KEPT * max(1, len(counted))
        return middle_of_best(np.where(allowed, curves[some], -1)) if allowed.any() else default

    return tune(curves, folds, default=default, best=best)


def tune_weights(scores: Scores, folds: NDArray[np.integer]) -> Tuning:
    """Choose among the member weights of ``grid()``; among equally good ones the first, nearest to equal weights."""
    return tune(scores, folds, default=0, best=lambda some: int(_best(scores[some])[0]))


def middle_of_best(scores: Scores) -> int:
    """The index of the highest mean; among equal ones the middle."""
    best = _best(scores)
    return int(best[len(best) // 2])


def thresholds() -> list[float]:
    """The thresholds of the levels 1 .. 255."""
    return [threshold_of(level) for level in range(1, LEVELS)]


def effective(threshold: float) -> float:
    """The threshold in ``thresholds()`` that gives the same masks."""
    return threshold_of(level_of(threshold))


def _best(scores: Scores) -> NDArray[np.intp]:
    mean = scores.mean(axis=0)
    return np.flatnonzero(mean >= mean.max() - 1e-12)
