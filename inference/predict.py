"""``make predict``: predict the test set with all folds of one run or several, and write the submission file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition import files, rle
from competition.command import parser, run_command
from competition.data_folder import DataFolder, fingerprint_of
from competition.deadline import Deadline, add_deadline_argument
from competition.files import sha256
from competition.photo import Photo
from competition.plural import counted
from competition.run.folder import Predicted, RunFolder
from competition.run.open import next_hint
from competition.run.predictions import place_for
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
from inference.engine.trial_export import with_able_engine
from inference.members import add_member_arguments, checkpoints, one_at_a_time, open_members, print_unfinished
from inference.shards import (
    Count,
    Load,
    MeasuredRow,
    Numbers,
    ShardedJob,
    facts_of,
    key_of,
    read_numbers,
    write_with_numbers,
)
from submissions import submission_file


def predict_to(
    file: Path,
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    *,
    threshold: float,
    settings: Inference,
    count: Count[MeasuredRow] = iter,
) -> None:
    """Predict photos and write a shard: their masks, and the expected Dice of each."""

    def encode(photo: Photo, mask: Thresholded) -> MeasuredRow:
        return photo.img, rle.to_text(mask.spans), np.array(mask.expected_dice)

    write_with_numbers(file, count(map_masks(encode, photos, ensembles, settings, level=level_of(threshold))))


def write_certainty(path: Path, photos: Sequence[Photo], expected_dice: Numbers) -> None:
    """Write the expected Dice of each mask of a submission: a CSV of img,expected_dice."""
    table = pd.DataFrame({"img": [photo.img for photo in photos], "expected_dice": expected_dice})
    files.write_text(path, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def print_left_out(data: DataFolder) -> None:
    """Print how many test photos are not predicted."""
    if left_out := len(data.test) - len(data.submission_photos):
        print(
            f"note: {counted(left_out, 'photo')} of the test folder not in sample_submission.csv, and not predicted; "
            "remove that file to predict all"
        )


def is_done(place: Predicted, facts: SubmissionFacts, data: str) -> bool:
    """Whether there is a complete submission with these facts; records where its data folder is now."""
    record = SubmissionRecord.read_if_exists(place.submission_record)
    done = (
        record is not None
        and record.key == key_of(**facts.model_dump())
        and place.submission.is_file()
        and record.sha256 == sha256(place.submission)
    )
    if record and done and record.data != data and ranks.first():
        record.model_copy(update={"data": data}).write(place.submission_record)
    return done


def predict(
    run: RunFolder,
    settings: Settings,
    data: DataFolder,
    members: Sequence[RunFolder],
    *,
    place: Predicted,
    deadline: Deadline,
) -> None:
    """Write a submission and its record to a place; finished shards of an interrupted call are reused."""
    photos, root, device = data.submission_photos, str(data.root.resolve()), pick_device()
    how = with_able_engine(settings.inference, device, members)
    folds = sorted(set(read_folds(run.folds).values()))
    threshold, weights = choose(how, members, CV.read_if_exists(run.cv))
    members, weights = with_weight(members, weights)
    networks = [path for fold in folds for path in checkpoints(members, fold)]
    print_unfinished(members, folds)
    digests = {path: sha256(path) for path in networks}
    facts = SubmissionFacts(
        images=len(photos),
        folds=len(folds),
        networks=len(networks),
        photos=fingerprint_of(photos),
        member_weights=weights_by_name(members, weights),
        threshold=threshold,
        checkpoints={str(path): digest for path, digest in digests.items()},
        **facts_of(how, device),
    )
    if is_done(place, facts, root):
        print(
            f"{place.submission} is complete: {counted(facts.images, 'image')}, "
            f"{counted(facts.networks, 'network')}; nothing to do"
        )
        return

    def write(load: Load, shard: Sequence[Photo], file: Path, count: Count[MeasuredRow]) -> None:
        predict_to(file, shard, load(), threshold=threshold, settings=how, count=count)

    job = ShardedJob(
        place.submission_shards,
        facts.model_dump() | {"numbers": ["expected_dice"]},
        digests,
        settings=how,
        device=device,
        deadline=deadline,
    )
    shards = job.run(photos, networks, weights * len(folds), write, title="predict")
    if ranks.first():
        submission_file.join(place.submission, shards)
        write_certainty(place.certainty, photos, read_numbers(shards))
        found = facts.model_dump()
        record = SubmissionRecord(**found, data=root, key=key_of(**found), sha256=sha256(place.submission))
        record.write(place.submission_record)
    job.remove()
    member_weights = f"{format_weights(weights)}, " if len(members) > 1 else ""
    print(
        f"{place.submission}: {counted(len(photos), 'image')} by {counted(len(networks), 'network')}, "
        f"tta {', '.join(how.tta)}, {member_weights}threshold {threshold:g}"
    )


def reserved_place(run: RunFolder, data: DataFolder) -> Predicted:
    """Where all ranks write the masks; the first rank decides."""
    place = ranks.all_gather(place_for(run, data) if ranks.first() else run)[0]
    if place != run:
        print(f"note: {data.root} is not the data of run {run.name}; its masks go to {place.root}")
    return place


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Predict the test set."""
    arguments = parser("Predict the test set with all folds, and write a submission file.")
    add_member_arguments(arguments)
    add_deadline_argument(arguments)
    options = arguments.parse_args(argv)
    deadline = Deadline(options.hours)
    run, settings, data, members = open_members(options)
    print_left_out(data)
    place = reserved_place(run, data)
    with one_at_a_time(place):
        predict(run, settings, data, members, place=place, deadline=deadline)
    print(f"next: {next_hint('validate', run, settings, data)}")


if __name__ == "__main__":
    run_command(main)
