"""From the scores of the images to those of cv.json: per fold and over all images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from competition.run.records import FoldScore, ThresholdTuning
from inference.choice import Choice
from inference.cv.tuning import Tuning, thresholds

if TYPE_CHECKING:
    import pandas as pd


def spread(values: Sequence[float]) -> float:
    """The standard deviation over the folds; 0 for a single fold."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def fold_score(fold: int, scores: "pd.DataFrame", choice: Choice, member_weights: Mapping[str, float]) -> FoldScore:
    """The scores of one fold, and the choice that was used for it."""
    own = scores[scores["fold"] == fold]
    return FoldScore(
        fold=fold,
        cars=int(own["car"].nunique()),
        images=len(own),
        dice=float(own["dice"].mean()),
        iou=float(own["iou"].mean()),
        threshold=choice.threshold,
        member_weights=dict(member_weights) or None,
    )


def threshold_tuning(tuning: Tuning, used: bool) -> ThresholdTuning:
    """The record of the best threshold and its gain; ``used`` says whether the test set is predicted with it."""
    return ThresholdTuning(
        threshold=thresholds()[tuning.choice],
        dice=float(tuning.scores.mean()),
        dice_at_half=float(tuning.before.mean()),
        gain=tuning.gain,
        used=used,
    )
