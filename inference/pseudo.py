"""``make pseudo``: pseudo-labels, the masks of those test photos that the networks are most certain of.

The pseudo-labels of a fold come from the networks of that fold only. Networks of other folds have seen its held-out
cars, and their pseudo-labels would leak these cars into the training.
"""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from competition import rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, fingerprint_of
from competition.deadline import Deadline, add_deadline_argument
from competition.files import sha256
from competition.hint import hint
from competition.photo import Photo
from competition.run.folder import DEFAULT_DATA, RunFolder
from competition.run.records import CV
from competition.settings.schema import Inference, Settings
from folds import ranks
from folds.device import pick_device
from folds.split import photos_by_fold
from inference.choice import choose, with_weight
from inference.engine.host_masks import Prediction, full_size, level_of, threshold_at
from inference.engine.stream import map_in_threads, predict_photos
from inference.engine.trial_export import with_able_engine
from inference.members import add_member_arguments, checkpoints, one_at_a_time, open_members
from inference.shards import Count, Load, MeasuredRow, ShardedJob, facts_of, read_numbers, write_with_numbers
from submissions import submission_file


def photos_to_label(data: DataFolder) -> list[Photo]:
    """The test photos of cars that are not in the training set: a training car may be one that a fold holds out."""
    known = {photo.car for photo in data.train}
    photos = [photo for photo in data.test if photo.car not in known]
    if not photos:
        raise Failure(
            f"{data.root} has no test photos of cars that are not in the training set; add test photos of other cars"
        )
    return photos


def pseudo_label(
    run: RunFolder, settings: Settings, data: DataFolder, members: Sequence[RunFolder], deadline: Deadline
) -> None:
    """Write the run's pseudo-labels, one file per fold; finished shards of an interrupted call are reused."""
    device = pick_device()
    how = with_able_engine(settings.inference, device, members)
    cv = CV.read_if_exists(run.cv)
    folds = list(photos_by_fold(run.folds, data.train))
    photos = photos_to_label(data)
    choices = {fold: choose(how, members, cv, fold) for fold in folds}
    used = {fold: with_weight(members, choices[fold].member_weights) for fold in folds}
    networks = {fold: checkpoints(used[fold][0], fold) for fold in folds}
    digests = {path: sha256(path) for paths in networks.values() for path in paths}
    facts = {
        **facts_of(how, device),
        "photos": fingerprint_of(photos),
        "folder": str(photos[0].path.parent),
        "choices": choices,
        "checkpoints": {str(path): digest for path, digest in digests.items()},
    }
    job = ShardedJob(run.pseudo_shards, facts, digests, settings=how, device=device, deadline=deadline)
    for fold in folds:
        write = partial(label_to, level=level_of(choices[fold].threshold), settings=how)
        shards = job.run(
            photos, networks[fold], used[fold][1], write, title=f"pseudo-label fold {fold}", folder=f"fold{fold}"
        )
        if ranks.first():
            write_most_certain(run.pseudo(fold), shards, photos, keep=how.pseudo)
    job.remove()


def label_to(
    load: Load,
    photos: Sequence[Photo],
    file: Path,
    count: Count[MeasuredRow],
    *,
    level: int,
    settings: Inference,
) -> None:
    """Predict photos and write a shard: their masks, and the expected Dice of each."""

    def label(photo: Photo, predictions: Sequence[Prediction]) -> MeasuredRow:
        mask = threshold_at(full_size(predictions, photo.shape), level)
        return photo.img, rle.to_text(mask.spans), np.array(mask.expected_dice)

    predicted = predict_photos(photos, load(), settings)
    write_with_numbers(file, count(map_in_threads(label, predicted, settings)))


def write_most_certain(path: Path, shards: Sequence[Path], photos: Sequence[Photo], keep: float) -> None:
    """Write a fraction of the masks, those with the highest expected Dice."""
    dice = read_numbers(shards)
    # Stable: among equally certain images the first are kept, so the same call writes the same file.
    best = np.argsort(-dice, kind="stable")[: max(1, round(keep * len(photos)))]
    write_rows_of(path, shards, {photos[index].img for index in best})
    print(
        f"{path}: {len(best):,} of {len(photos):,} test images, expected Dice {dice[best].mean():.5f}",
        flush=True,
    )


def write_rows_of(path: Path, shards: Sequence[Path], names: Collection[str]) -> None:
    """Write the rows of some images."""
    rows = (row for shard in shards for row in submission_file.read_shard(shard) if row[0] in names)
    submission_file.write(path, rows)


def training_with(run: RunFolder, data: DataFolder) -> str:
    """The command that trains a new run like this one, with its pseudo-labels."""
    return hint(
        "cv",
        RUN=f"{run.called}-pseudo",
        DATA=None if data.root.resolve() == DEFAULT_DATA.resolve() else data.root,
        SETTINGS=run.settings,
        SET=[f"data.pseudo={run.called}"],
    )


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Write the pseudo-labels of a run."""
    arguments = parser("Write pseudo-labels: the test masks that the networks of each fold are most certain of.")
    add_member_arguments(arguments)
    add_deadline_argument(arguments)
    options = arguments.parse_args(argv)
    deadline = Deadline(options.hours)
    run, settings, data, members = open_members(options)
    with one_at_a_time(run):
        pseudo_label(run, settings, data, members, deadline)
    print(f"next: {training_with(run, data)}")


if __name__ == "__main__":
    run_command(main)
