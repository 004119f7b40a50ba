"""``make score``: the offline CV. The out-of-fold masks are written as a submission, read back, and scored at full
size; a threshold and weights of the runs are used where they help on folds that did not choose them.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import pandas as pd

from competition import files, mask_table
from competition.command import parser, run_command
from competition.data_folder import DataFolder, Photo
from competition.files import sha256
from competition.images import shape_of
from competition.mask_table import Truth
from competition.run.environment import require_same_data
from competition.run.folder import SCORE_COLUMNS, RunFolder
from competition.run.records import CV, FoldScore, Gain, ThresholdCurve, ThresholdTuning
from competition.settings.schema import Inference, Settings
from folds import ranks
from folds.device import pick_device
from folds.split import photos_by_fold
from inference.cv.gains import EQUAL, gain, gain_of_choice, gains_of_runs, gains_of_views, in_words, print_gains
from inference.cv.mixtures import Mixture, Shares, equal, grid, measured_mixtures
from inference.cv.out_of_fold import Chosen, OutOfFold, predict_out_of_fold
from inference.cv.tuning import Tuning, thresholds, tune_threshold, tune_weights
from inference.engine.host_masks import level_of
from inference.members import add_member_arguments, checkpoints, one_at_a_time, open_members, print_unfinished
from inference.shards import facts_of, parts_of, remove_parts
from inference.weights import by_name, given_shares, heard
from submissions import submission_file


class Score(NamedTuple):
    """The score of one image."""

    photo: Photo
    fold: int
    dice: float
    iou: float


def score_file(path: Path, data: DataFolder, by_fold: Mapping[int, list[Photo]]) -> list[Score]:
    """Score a file of out-of-fold masks, image by image and at full size."""
    photos = {photo.img: (photo, fold) for fold, photos in by_fold.items() for photo in photos}

    def truth(img: str) -> Truth:
        photo, _ = photos[img]
        return Truth(data.truth_spans(photo), shape_of(photo.path))

    counts = mask_table.score(path, photos, truth)
    return [Score(*photos[img], count.dice, count.iou) for img, count in counts.items()]


def score_run(run: RunFolder, settings: Settings, data: DataFolder, members: Sequence[RunFolder]) -> None:
    """Write oof.csv.gz, oof_scores.csv and cv.json, and print the CV.

    Raises:
        Failure: a fold is not trained, the data are not the run's, a photo or mask is damaged, or the settings
            give weights to more or fewer runs than there are.
    """
    require_same_data(run, data)
    by_fold = photos_by_fold(run.folds, data.train)
    how = settings.inference
    given = given_shares(settings, members)
    answering, shares = heard(members, given or equal(len(members)))
    level = level_of(0.5 if how.threshold == "auto" else how.threshold)
    chosen = Chosen(level, dict.fromkeys(by_fold, level), shares, dict.fromkeys(by_fold, shares))

    digests = {path: sha256(path) for fold in by_fold for path in checkpoints(answering, fold)}
    print_unfinished(answering, list(by_fold))  # once it is known that there are weights to speak of
    facts = {
        **facts_of(how, pick_device()),
        "checkpoints": {fold: [digests[path] for path in checkpoints(answering, fold)] for fold in by_fold},
        "folds": sha256(run.folds),
        "data": data.fingerprint,
        "masks": data.masks_fingerprint,  # the numbers beside the parts are scores against them
    }
    parts = parts_of(run.root / "oof", facts, "what they would predict")

    def predict(chosen: Chosen, mixtures: Sequence[Mixture] = ()) -> OutOfFold:
        return predict_out_of_fold(
            settings,
            data,
            members=answering,
            by_fold=by_fold,
            digests=digests,
            parts=parts,
            chosen=chosen,
            mixtures=mixtures,
        )

    tried = [equal(len(answering)), shares] if given else grid(len(answering))
    found = predict(chosen, measured_mixtures(shares, len(how.tta), tried))
    gains = gains_of_views(how.tta, shares, found.mixtures, found.folds)
    gains += gains_of_runs([member.name for member in answering], len(how.tta), found.mixtures, found.folds)
    if len(answering) > 1:
        row, weights = weigh(found, tried, how)
        gains.append(row)
        if weights:
            print(f"weights: {weights.gain:+.5f} when chosen on the other folds; predicting again", flush=True)
            chosen = chosen.with_weights(weights, tried)
            found = predict(chosen)
    tuning = tune_threshold(found.curves, found.folds)
    used = how.threshold == "auto" and tuning.helps
    what = f"best threshold {thresholds()[tuning.choice]:.3f}"
    gains.append(gain_of_choice(what, tuning, found.folds, over="0.5", used=used))
    if used:
        print(f"threshold: {tuning.gain:+.5f} when chosen on the other folds; predicting again", flush=True)
        chosen = chosen.with_threshold(tuning)
        found = found._replace(shards=predict(chosen).shards)
    if not ranks.first():
        return
    submission_file.join(run.oof, found.shards)
    scores = score_file(run.oof, data, by_fold)
    write_scores(run.oof_scores, scores)
    cv = CV(
        **mean_scores(scores),
        threshold=thresholds()[chosen.level - 1],
        tta=list(how.tta),
        folds=fold_scores(scores, chosen, members, answering),
        member_weights=weights_by_name(members, answering, chosen.shares),
        tuning=describe(tuning, used),
        curve=ThresholdCurve(thresholds=thresholds(), dice=found.curves.mean(axis=0).tolist()),
        gains=gains,
        checkpoints={str(path): digest for path, digest in digests.items()},
    )
    cv.write(run.cv)
    remove_parts(parts.parent)
    print_table(cv)


def weigh(found: OutOfFold, tried: Sequence[Shares], how: Inference) -> tuple[Gain, Tuning | None]:
    """What weights add to runs that count the same, and the choice of them where it is worth using.

    Args:
        found: with the mixtures of all runs by these shares.
        tried: equal shares first; after them those that the settings give, or all that may be chosen.
        how: the settings.
    """
    views = equal(len(how.tta))
    scores = np.stack([found.mixtures[Mixture(shares, views)] for shares in tried], axis=1)
    if not isinstance(how.member_weights, str):
        words = in_words(tried[-1])
        return gain(words, scores[:, -1], found.folds, over=EQUAL, before=scores[:, 0], note="as set"), None
    tuning = tune_weights(scores, found.folds)
    used = how.member_weights == "auto" and tuning.helps
    row = gain_of_choice(f"best {in_words(tried[tuning.choice])}", tuning, found.folds, over=EQUAL, used=used)
    return row, tuning if used else None


class MeanScores(TypedDict):
    """The fields of cv.json that are means over all images, and the spread of the folds."""

    dice: float
    iou: float
    spread: float
    spread_iou: float
    images: int
    cars: int


def mean_scores(scores: Sequence[Score]) -> MeanScores:
    """Dice and IoU over all images, and their standard deviation over the folds."""
    table = _table(scores)
    folds = table.groupby("fold")[["dice", "iou"]].mean()
    several = len(folds) > 1
    return {
        "dice": float(table["dice"].mean()),
        "iou": float(table["iou"].mean()),
        "spread": float(folds["dice"].std(ddof=1)) if several else 0.0,
        "spread_iou": float(folds["iou"].std(ddof=1)) if several else 0.0,
        "images": len(table),
        "cars": int(table["car"].nunique()),
    }


def fold_scores(
    scores: Sequence[Score], chosen: Chosen, members: Sequence[RunFolder], answering: Sequence[RunFolder]
) -> list[FoldScore]:
    """The CV of each fold."""
    table = _table(scores)
    return [
        FoldScore(
            fold=fold,
            cars=int(rows["car"].nunique()),
            images=len(rows),
            dice=float(rows["dice"].mean()),
            iou=float(rows["iou"].mean()),
            threshold=thresholds()[chosen.level_of_fold[fold] - 1],
            member_weights=weights_by_name(members, answering, chosen.shares_of_fold[fold]),
        )
        for fold, rows in ((fold, table[table["fold"] == fold]) for fold in sorted(chosen.level_of_fold))
    ]


def _table(scores: Sequence[Score]) -> pd.DataFrame:
    rows = [(score.photo.car, score.fold, score.dice, score.iou) for score in scores]
    return pd.DataFrame(rows, columns=["car", "fold", "dice", "iou"])


def weights_by_name(
    members: Sequence[RunFolder], answering: Sequence[RunFolder], shares: Shares
) -> dict[str, float] | None:
    """The weight of each member, 0 for those that are not used; None for a single run."""
    if len(members) == 1:
        return None
    return by_name(members, (0.0,) * len(members)) | by_name(answering, shares)


def describe(tuning: Tuning, used: bool) -> ThresholdTuning:
    """The tuning of the threshold."""
    return ThresholdTuning(
        threshold=thresholds()[tuning.choice],
        dice=float(tuning.scores.mean()),
        dice_at_half=float(tuning.before.mean()),
        gain=tuning.gain,
        used=used,
    )


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """Write oof_scores.csv, atomically."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(SCORE_COLUMNS)
    for photo, fold, dice, iou in scores:
        rows.writerow((photo.img, photo.car, photo.view, fold, f"{dice:.6f}", f"{iou:.6f}"))
    files.write_text(path, text.getvalue())


def print_table(cv: CV) -> None:
    """The CV as a table, and what each part of the answers adds to it."""
    print("\nfold  cars  images     Dice      IoU")
    for fold in cv.folds:
        print(f"{fold.fold:>4}  {fold.cars:>4}  {fold.images:>6}  {fold.dice:.5f}  {fold.iou:.5f}")
    print(f" all  {cv.cars:>4}  {cv.images:>6}  {cv.dice:.5f}  {cv.iou:.5f}")
    print(f"spread of the folds   {cv.spread:.5f}  {cv.spread_iou:.5f}\n")
    weights = f"{in_words(tuple(cv.member_weights.values()))}; " if cv.member_weights else ""
    print(f"tta {', '.join(cv.tta)}; {weights}threshold {cv.threshold:.3f}\n")
    print_gains(cv.gains, len(cv.folds))


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Score a run, or several together."""
    arguments = parser("The offline CV: every training image by the fold that did not see it, at full size.")
    add_member_arguments(arguments)
    run, settings, data, members = open_members(arguments.parse_args(argv))
    with one_at_a_time(run):
        score_run(run, settings, data, members)
    print(f"{run.cv}  next: make predict RUN={run.called}, or make report RUN={run.called}")


if __name__ == "__main__":
    run_command(main)
