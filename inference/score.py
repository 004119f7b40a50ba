"""``make score``: the offline CV. Every training image is predicted by the networks that did not see its car, through
the code that predicts the test set; the masks are written as a submission, read back, and scored at full size.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition import atomic, metrics, rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, Photo, read_rle_rows
from competition.images import Pixels, shape_of
from competition.run_folder import RunFolder, require_same_data
from competition.settings import Settings
from folds import ranks
from folds.device import cpu_threads, pick_device, resolve_precision
from folds.split import photos_by_fold
from inference.ensemble import Ensemble, load_ensembles
from inference.masks import dice_curve, level_of, runs_at
from inference.members import (
    add_member_arguments,
    checkpoints,
    one_at_a_time,
    open_members,
    print_unfinished,
)
from inference.shards import digest, key_of, numbers_of, remove_others, run_shards, write_with_numbers
from inference.stream import stream_levels
from inference.tuning import Tuning, thresholds, tune
from submissions import submission_file

Curves = NDArray[np.floating]
SCORE_COLUMNS = ["img", "car", "view", "fold", "dice", "iou"]


class Score(NamedTuple):
    """The score of one image."""

    photo: Photo
    fold: int
    dice: float
    iou: float


def predict_out_of_fold(
    run: RunFolder,
    settings: Settings,
    data: DataFolder,
    *,
    members: Sequence[RunFolder],
    by_fold: Mapping[int, list[Photo]],
    level_of_fold: Mapping[int, int],
) -> tuple[list[Path], Curves, NDArray[np.int64]]:
    """Predict each fold's photographs with the networks that did not see them, in shards that a restart takes up.

    Returns:
        The shards in the order of the folds, the Dice curve of each image, and the fold of each image.
    """
    device = pick_device()
    chosen = settings.inference
    key = key_of(
        checkpoints={fold: [digest(path) for path in checkpoints(members, fold)] for fold in by_fold},
        views=list(chosen.views),
        levels=dict(level_of_fold),
        precision=resolve_precision(chosen.precision, device),
        compile=chosen.compile,
        device=device.type,
        threads=cpu_threads(device),
        batch_size=chosen.batch_size,
        shard=chosen.shard,
        folds=digest(run.folds),
        data=data.fingerprint,
    )
    ranks.require_same("what they would predict", key)
    parts = run.root / "oof" / key
    shards: list[Path] = []
    for fold, photos in by_fold.items():
        ensembles = load_ensembles(checkpoints(members, fold), chosen, device=device)

        def work(
            part: Sequence[Photo],
            file: Path,
            ensembles: Sequence[Ensemble] = ensembles,
            level: int = level_of_fold[fold],
        ) -> None:
            predict_shard(part, file, ensembles, data=data, settings=settings, level=level)

        shards += run_shards(parts / f"fold{fold}", photos, chosen.shard, work, f"score fold {fold}")
    curves = np.concatenate([np.load(numbers_of(shard)) for shard in shards])
    folds = np.concatenate([np.full(len(photos), fold) for fold, photos in by_fold.items()])
    ranks.barrier()  # the parts are removed in the end, when nobody reads them any more
    return shards, curves, folds


def predict_shard(
    photos: Sequence[Photo],
    file: Path,
    ensembles: Sequence[Ensemble],
    *,
    data: DataFolder,
    settings: Settings,
    level: int,
) -> None:
    """Predict photographs; write their masks as one shard of a submission, and beside it their Dice curves."""

    def finish(photo: Photo, levels: Pixels) -> tuple[str, str, NDArray[np.float64]]:
        curve = dice_curve(levels, data.truth_runs(photo))
        return photo.img, rle.to_text(runs_at(levels, level)), curve

    chosen = settings.inference
    write_with_numbers(
        file, stream_levels(photos, ensembles, finish, batch_size=chosen.batch_size, readers=chosen.readers)
    )


def score_file(path: Path, data: DataFolder, by_fold: Mapping[int, list[Photo]]) -> list[Score]:
    """Score a file of out-of-fold masks image by image, from the runs.

    Raises:
        Failure: an image is missing, doubled or foreign, or a row is malformed.
    """
    expected = {photo.img: (photo, fold) for fold, photos in by_fold.items() for photo in photos}
    scores: dict[str, Score] = {}
    for line, img, code in read_rle_rows(path):
        if img in scores or img not in expected:
            raise Failure(f"{path} line {line}: {img} {'is doubled' if img in scores else 'is no training image'}")
        photo, fold = expected[img]
        try:
            counts = metrics.counts_of_runs(rle.parse(code, shape_of(photo.path)), data.truth_runs(photo))
        except ValueError as error:
            raise Failure(f"{path} line {line}, {img}: {error}") from error
        scores[img] = Score(photo, fold, counts.dice, counts.iou)
    if len(scores) < len(expected):
        missing = next(img for img in expected if img not in scores)
        raise Failure(f"{path} lacks {len(expected) - len(scores)} images, such as {missing}; remove it, score again")
    return list(scores.values())


def score_run(run: RunFolder, settings: Settings, data: DataFolder, members: Sequence[RunFolder]) -> None:
    """Write oof.csv.gz, oof_scores.csv and cv.json, and print the CV.

    Raises:
        Failure: a fold is not trained, the data are not the run's, or a photograph or mask is damaged.
    """
    require_same_data(run, data)
    by_fold = photos_by_fold(run.folds, data.train)
    print_unfinished(members, list(by_fold))
    asked = settings.inference.threshold
    level = level_of(0.5 if asked == "auto" else asked)
    levels = dict.fromkeys(by_fold, level)
    shards, curves, folds = predict_out_of_fold(
        run, settings, data, members=members, by_fold=by_fold, level_of_fold=levels
    )
    tuning = tune(curves, folds)
    used = asked == "auto" and tuning.helps
    if used:
        print(f"threshold: {tuning.gain:+.5f} when chosen on the other folds; predicting again", flush=True)
        level, levels = tuning.level, tuning.level_of_fold
        shards, _, _ = predict_out_of_fold(
            run, settings, data, members=members, by_fold=by_fold, level_of_fold=levels
        )
    if not ranks.first():
        return
    submission_file.join(run.oof, shards)
    scores = score_file(run.oof, data, by_fold)
    write_scores(run.oof_scores, scores)
    cv = summary(scores, settings, levels, level)
    cv["tuning"] = describe(tuning, used)
    cv["curve"] = {"thresholds": thresholds(), "dice": curves.mean(axis=0).tolist()}
    atomic.write_json(run.cv, cv)
    remove_others(run.root / "oof")
    print_table(cv, tuning, used)


def summary(scores: Sequence[Score], settings: Settings, levels: Mapping[int, int], level: int) -> dict[str, object]:
    """What cv.json says: Dice and IoU over all images, per fold, and the spread of the folds."""
    table = pd.DataFrame(
        [(score.photo.car, score.fold, score.dice, score.iou) for score in scores],
        columns=["car", "fold", "dice", "iou"],
    )
    folds = []
    for fold in sorted(levels):
        rows = table[table["fold"] == fold]
        folds.append(
            {
                "fold": fold,
                "cars": int(rows["car"].nunique()),
                "images": len(rows),
                "dice": float(rows["dice"].mean()),
                "iou": float(rows["iou"].mean()),
                "threshold": thresholds()[levels[fold] - 1],
            }
        )
    return {
        "dice": float(table["dice"].mean()),
        "iou": float(table["iou"].mean()),
        "spread": float(np.std([fold["dice"] for fold in folds], ddof=1)) if len(folds) > 1 else 0.0,
        "spread_iou": float(np.std([fold["iou"] for fold in folds], ddof=1)) if len(folds) > 1 else 0.0,
        "images": len(table),
        "cars": int(table["car"].nunique()),
        "threshold": thresholds()[level - 1],
        "views": list(settings.inference.views),
        "folds": folds,
    }


def describe(tuning: Tuning, used: bool) -> dict[str, object]:
    """What cv.json says of the threshold."""
    return {
        "threshold": thresholds()[tuning.level - 1],
        "dice": tuning.dice,
        "dice_at_half": tuning.dice_at_half,
        "gain": tuning.gain,
        "used": used,
    }


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """Write oof_scores.csv, atomically."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(SCORE_COLUMNS)
    for photo, fold, dice, iou in scores:
        rows.writerow((photo.img, photo.car, photo.view, fold, f"{dice:.6f}", f"{iou:.6f}"))
    atomic.write_text(path, text.getvalue())


def print_table(cv: Mapping[str, object], tuning: Tuning, used: bool) -> None:
    """The CV as a table."""
    folds = cv["folds"]
    assert isinstance(folds, list)
    print("\nfold  cars  images     Dice      IoU")
    for fold in folds:
        print(f"{fold['fold']:>4}  {fold['cars']:>4}  {fold['images']:>6}  {fold['dice']:.5f}  {fold['iou']:.5f}")
    print(f" all  {cv['cars']:>4}  {cv['images']:>6}  {cv['dice']:.5f}  {cv['iou']:.5f}")
    print(f"spread of the folds   {cv['spread']:.5f}  {cv['spread_iou']:.5f}\n")
    views = cv["views"]
    assert isinstance(views, list)
    print(f"views {', '.join(views)}; threshold {cv['threshold']:.3f}")
    verdict = "used" if used else "not used"
    print(
        f"best threshold {thresholds()[tuning.level - 1]:.3f}; chosen on the other folds it changes the CV by "
        f"{tuning.gain:+.5f}: {verdict}"
    )


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Score a run, or several together."""
    arguments = parser("The offline CV: every training image by the fold that did not see it, at full size.")
    add_member_arguments(arguments)
    run, settings, data, members = open_members(arguments.parse_args(argv))
    with one_at_a_time(run):
        score_run(run, settings, data, members)
    print(f"{run.cv}  next: make predict RUN={run.name}, or make report RUN={run.name}")


if __name__ == "__main__":
    run_command(main)
