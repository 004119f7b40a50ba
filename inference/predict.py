"""``make predict``: predict the test set with all folds of one run or several, and write the submission file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition import files, rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, fingerprint_of
from competition.deadline import Deadline, add_deadline_argument
from competition.files import sha256
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.run.records import CV, SubmissionFacts, SubmissionRecord
from competition.settings.schema import Inference, Settings
from folds import ranks
from folds.device import pick_device
from folds.split import read_folds
from inference.choice import choose, weights_by_name, with_weight
from inference.cv.gains import format_weights
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import Thresholded, level_of
from inference.engine.stream import map_masks
from inference.members import add_member_arguments, checkpoints, one_at_a_time, open_members, print_unfinished
from inference.shards import Numbers, ShardedJob, facts_of, key_of, read_numbers, write_with_numbers
from submissions import submission_file


def predict_to(
    file: Path, photos: Sequence[Photo], ensembles: Sequence[Ensemble], *, threshold: float, settings: Inference
) -> None:
    """Predict photos and write a shard: their masks, and the expected Dice of each."""

    def encode(photo: Photo, mask: Thresholded) -> tuple[str, str, Numbers]:
        return photo.img, rle.to_text(mask.spans), np.array(mask.expected_dice)

    write_with_numbers(file, map_masks(encode, photos, ensembles, settings, level=level_of(threshold)))


def write_certainty(path: Path, photos: Sequence[Photo], expected_dice: Numbers) -> None:
    """Write the expected Dice of each mask of a submission: a CSV of img,expected_dice."""
    table = pd.DataFrame({"img": [photo.img for photo in photos], "expected_dice": expected_dice})
    files.write_text(path, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def test_photos(data: DataFolder) -> list[Photo]:
    """The test photos in the order of the submission."""
    by_name = {photo.img: photo for photo in data.test}
    missing = [name for name in data.submission_names if name not in by_name]
    if missing:
        raise Failure(
            f"{len(missing)} names of {data.root / 'sample_submission.csv'} are not in the test folder, such as "
            f"{missing[0]}; `make check` lists them"
        )
    photos = [by_name[name] for name in data.submission_names]
    if len(photos) < len(data.test):
        print(
            f"note: {len(data.test) - len(photos):,} photos of the test folder are not in sample_submission.csv and "
            "are not predicted; remove that file to predict all"
        )
    return photos


def is_done(run: RunFolder, facts: SubmissionFacts) -> bool:
    """Whether the run has a complete submission with these facts."""
    record = SubmissionRecord.read_if_exists(run.submission_record)
    return (
        record is not None
        and record.key == key_of(**facts.model_dump())
        and run.submission.is_file()
        and record.sha256 == sha256(run.submission)
    )


def predict(
    run: RunFolder, settings: Settings, data: DataFolder, members: Sequence[RunFolder], deadline: Deadline
) -> None:
    """Write the run's submission and its record; finished shards of an interrupted call are reused."""
    how = settings.inference
    photos = test_photos(data)
    folds = sorted(set(read_folds(run.folds).values()))
    threshold, weights = choose(how, members, CV.read_if_exists(run.cv))
    members, weights = with_weight(members, weights)
    networks = [path for fold in folds for path in checkpoints(members, fold)]
    print_unfinished(members, folds)
    digests = {path: sha256(path) for path in networks}
    device = pick_device()
    facts = SubmissionFacts(
        images=len(photos),
        folds=len(folds),
        networks=len(networks),
        data=str(data.root.resolve()),
        photos=fingerprint_of(photos),
        member_weights=weights_by_name(members, weights),
        threshold=threshold,
        checkpoints={str(path): digest for path, digest in digests.items()},
        **facts_of(how, device),
    )
    if is_done(run, facts):
        print(f"{run.submission} is complete: {facts.images:,} images, {facts.networks} networks; nothing to do")
        return

    def write(ensembles: Sequence[Ensemble], shard: Sequence[Photo], file: Path) -> None:
        predict_to(file, shard, ensembles, threshold=threshold, settings=how)

    job = ShardedJob(
        run.submission_shards,
        facts.model_dump() | {"numbers": ["expected_dice"]},
        digests,
        settings=how,
        device=device,
        deadline=deadline,
    )
    shards = job.run(photos, networks, weights * len(folds), write, title="predict")
    if ranks.first():
        submission_file.join(run.submission, shards)
        write_certainty(run.certainty, photos, read_numbers(shards))
        record = SubmissionRecord(
            **facts.model_dump(), key=key_of(**facts.model_dump()), sha256=sha256(run.submission)
        )
        record.write(run.submission_record)
    job.remove()
    member_weights = f"{format_weights(weights)}, " if len(members) > 1 else ""
    print(
        f"{run.submission}: {len(photos):,} images by {len(networks)} networks, tta {', '.join(how.tta)}, "
        f"{member_weights}threshold {threshold:g}"
    )


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Predict the test set."""
    arguments = parser("Predict the test set with all folds, and write a submission file.")
    add_member_arguments(arguments)
    add_deadline_argument(arguments)
    options = arguments.parse_args(argv)
    deadline = Deadline(options.hours)
    run, settings, data, members = open_members(options)
    with one_at_a_time(run):
        predict(run, settings, data, members, deadline)
    print(f"next: make validate RUN={run.called}")


if __name__ == "__main__":
    run_command(main)
