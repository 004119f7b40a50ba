"""From the scores of the images to those of cv.json: per fold and over all images."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd

from competition.run.records import FoldScore, ThresholdTuning
from inference.choice import Choice
from inference.cv.tuning import Tuning, thresholds


class MeanScores(TypedDict):
    """The fields of cv.json that are means over all images, and standard deviations over the folds."""

    dice: float
    iou: float
    spread: float
    spread_iou: float
    images: int
    cars: int


def mean_scores(scores: pd.DataFrame, folds: Sequence[FoldScore]) -> MeanScores:
    """Dice and IoU over all images (rows: img, car, view, fold, dice, iou), and how much the folds differ."""
    several = len(folds) > 1
    return {
        "dice": float(scores["dice"].mean()),
        "iou": float(scores["iou"].mean()),
        "spread": float(np.std([fold.dice for fold in folds], ddof=1)) if several else 0.0,
        "spread_iou": float(np.std([fold.iou for fold in folds], ddof=1)) if several else 0.0,
        "images": len(scores),
        "cars": int(scores["car"].nunique()),
    }


def fold_score(fold: int, scores: pd.DataFrame, choice: Choice, member_weights: Mapping[str, float]) -> FoldScore:
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
    """The result of tuning the threshold."""
    return ThresholdTuning(
        threshold=thresholds()[tuning.choice],
        dice=float(tuning.scores.mean()),
        dice_at_half=float(tuning.before.mean()),
        gain=tuning.gain,
        used=used,
    )
