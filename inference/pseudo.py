"""``make pseudo``: masks of the test set that the networks are sure of, for the folds to learn from.

A fold's pseudo-labels come from that fold's own networks. Those of the other folds have seen its held-out cars, and
labels of theirs would carry what they know into the training that is scored on those cars.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from competition import rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, Photo, fingerprint_of
from competition.files import sha256
from competition.images import Pixels
from competition.run.folder import RunFolder
from competition.run.records import CV
from competition.settings.schema import Settings
from folds import ranks
from folds.device import pick_device
from folds.split import photos_by_fold
from inference.engine.ensemble import Ensemble, load_ensembles
from inference.engine.host_masks import LEVELS, level_of, spans_at
from inference.engine.stream import stream_levels
from inference.members import add_member_arguments, checkpoints, one_at_a_time, open_members
from inference.shards import (
    facts_of,
    key_of,
    numbers_of,
    parts_of,
    remove_parts,
    require_unchanged,
    run_shards,
    write_with_numbers,
)
from inference.weights import chosen_shares, heard
from submissions import submission_file


def expected_dice(levels: Pixels, level: int) -> float:
    """The Dice that a mask should have if each pixel is car with the probability that the networks give it.

    2 E|A∩B| / (E|A| + |B|), the ratio of the expectations, for the mask B of the pixels at or above a level.

    Args:
        levels: (H, W) uint8.
        level: car is at or above it.
    """
    pixels = cv2.calcHist([levels], [0], None, [LEVELS], [0, LEVELS]).ravel().astype(np.float64)
    car = pixels * np.arange(LEVELS) / (LEVELS - 1)
    total = car.sum() + pixels[level:].sum()
    return float(2 * car[level:].sum() / total) if total else 1.0


def pseudo_label(run: RunFolder, settings: Settings, data: DataFolder, members: Sequence[RunFolder]) -> None:
    """Write the run's pseudo-labels, one file a fold; what an earlier call has finished is taken up.

    Raises:
        Failure: a fold is not trained, a photo is damaged, there are none, or the disk refuses.
    """
    by_fold = photos_by_fold(run.folds, data.train)
    known = {photo.car for photo in data.train}
    photos = [photo for photo in data.test if photo.car not in known]  # its car may be one that a fold holds out
    if not photos:
        raise Failure(f"{data.root} has no test photos of other cars than the training ones to label")
    keep = max(1, round(settings.inference.pseudo * len(photos)))
    facts = {
        **facts_of(settings.inference, pick_device()),
        "photos": fingerprint_of(photo.path for photo in photos),
        "folder": str(photos[0].path.parent),
    }
    parts = parts_of(run.root / "pseudo" / "shards", facts, "what they would label")
    for fold in by_fold:
        shards = predict_fold(run, settings, photos, members, fold=fold, parts=parts)
        sure = np.concatenate([np.load(numbers_of(shard)) for shard in shards])
        if ranks.first():
            # Of equally sure ones the first, so that the same call gives the same file.
            surest = np.argsort(-sure, kind="stable")[:keep]
            write_surest(run.pseudo(fold), shards, {photos[index].img for index in surest})
            print(
                f"{run.pseudo(fold)}: the surest {keep:,} of {len(photos):,} test images, expected Dice "
                f"{sure[surest].mean():.5f}",
                flush=True,
            )
    ranks.barrier()  # the parts are removed when nobody reads them any more
    if ranks.first():
        remove_parts(parts.parent)


def write_surest(path: Path, shards: Sequence[Path], names: Collection[str]) -> None:
    """Write those rows of shards that belong to some images."""
    rows = (row for shard in shards for row in submission_file.read_shard(shard) if row[0] in names)
    submission_file.write(path, rows)


def threshold_of_fold(run: RunFolder, settings: Settings, fold: int) -> float:
    """The threshold of the settings; for "auto" the one that the CV chose for a fold on the other folds, or one half.

    Raises:
        Failure: cv.json is damaged.
    """
    if settings.inference.threshold != "auto":
        return settings.inference.threshold
    cv = CV.read_if_exists(run.cv)
    score = cv.fold(fold) if cv else None
    return score.threshold if score else 0.5


def predict_fold(
    run: RunFolder,
    settings: Settings,
    photos: Sequence[Photo],
    members: Sequence[RunFolder],
    *,
    fold: int,
    parts: Path,
) -> list[Path]:
    """Predict photos with the networks of one fold, into shards with the expected Dice of each mask beside."""
    chosen = settings.inference
    answering, shares = heard(members, chosen_shares(run, settings, members, fold))
    paths = checkpoints(answering, fold)
    level = level_of(threshold_of_fold(run, settings, fold))
    digests = {path: sha256(path) for path in paths}
    key = key_of(checkpoints=list(digests.values()), shares=shares, level=level)
    ranks.require_same("what they would label", key)
    ensembles = load_ensembles(paths, chosen, device=pick_device(), member_weights=shares)
    require_unchanged(digests)

    def work(part: Sequence[Photo], file: Path) -> None:
        label_shard(part, file, ensembles, level=level, settings=settings)

    return run_shards(parts / key, photos, chosen.shard, work, f"pseudo-label fold {fold}")


def label_shard(
    photos: Sequence[Photo], file: Path, ensembles: Sequence[Ensemble], *, level: int, settings: Settings
) -> None:
    """Predict photos; write their masks as one shard, and beside it the Dice that they should have."""

    def finish(photo: Photo, levels: Pixels) -> tuple[str, str, NDArray[np.float64]]:
        code = rle.to_text(spans_at(levels, level))
        return photo.img, code, np.array(expected_dice(levels, level))

    chosen = settings.inference
    answered = stream_levels(photos, ensembles, finish, batch_size=chosen.batch_size, readers=chosen.readers)
    write_with_numbers(file, answered)


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Label the test set."""
    arguments = parser("Label the test photos that each fold's networks are surest of, for training.")
    add_member_arguments(arguments)
    run, settings, data, members = open_members(arguments.parse_args(argv))
    with one_at_a_time(run):
        pseudo_label(run, settings, data, members)
    print(f"next: make cv RUN={run.called}-pseudo SET=data.pseudo={run.called}")


if __name__ == "__main__":
    run_command(main)
