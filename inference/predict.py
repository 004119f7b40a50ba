"""``make predict``: the test set through all folds and views of one run or several, into a submission file."""

from collections.abc import Sequence
from pathlib import Path

from competition import rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, Photo, fingerprint_of
from competition.files import sha256
from competition.rle import Spans
from competition.run.folder import RunFolder
from competition.run.records import CV, SubmissionRecord
from competition.settings.schema import Settings
from folds import ranks
from folds.device import pick_device
from folds.split import read_folds
from inference.cv.gains import in_words
from inference.engine.ensemble import Ensemble, load_ensembles
from inference.engine.host_masks import level_of
from inference.engine.stream import stream_spans
from inference.members import (
    add_member_arguments,
    checkpoints,
    one_at_a_time,
    open_members,
    print_unfinished,
)
from inference.shards import facts_of, key_of, parts_of, remove_parts, require_unchanged, run_shards
from inference.weights import by_name, chosen_shares, heard
from submissions import submission_file


def predict_to(
    file: Path, photos: Sequence[Photo], ensembles: Sequence[Ensemble], *, threshold: float, settings: Settings
) -> None:
    """Predict photos and write their masks as one shard of a submission."""
    level = level_of(threshold)

    def encode(photo: Photo, spans: Spans) -> tuple[str, str]:
        return photo.img, rle.to_text(spans)

    chosen = settings.inference
    rows = stream_spans(photos, ensembles, encode, level=level, batch_size=chosen.batch_size, readers=chosen.readers)
    submission_file.write_shard(file, rows)


def test_photos(data: DataFolder) -> list[Photo]:
    """The test photos in the order of the submission.

    Raises:
        Failure: a name in sample_submission.csv has no photo.
    """
    by_name = {photo.img: photo for photo in data.test}
    missing = [name for name in data.submission_names if name not in by_name]
    if missing:
        raise Failure(
            f"{len(missing)} names of {data.root / 'sample_submission.csv'} are not in the test folder, such as "
            f"{missing[0]}; `make check` lists them"
        )
    return [by_name[name] for name in data.submission_names]


def chosen_threshold(run: RunFolder, settings: Settings) -> float:
    """The threshold of the settings; for "auto" what the CV used, or one half where there is no CV."""
    if settings.inference.threshold != "auto":
        return settings.inference.threshold
    cv = CV.read_if_exists(run.cv)
    return cv.threshold if cv else 0.5


def is_done(submission: Path, record: Path, key: str) -> bool:
    """Whether a submission is that of the prediction with this key, and whole."""
    made = SubmissionRecord.read_if_exists(record)
    return made is not None and made.key == key and submission.is_file() and made.sha256 == sha256(submission)


def predict(run: RunFolder, settings: Settings, data: DataFolder, members: Sequence[RunFolder]) -> None:
    """Write the run's submission; what an earlier call has finished is taken up.

    Raises:
        Failure: a fold is not trained, a photo is missing or damaged, or the disk refuses.
    """
    photos = test_photos(data)
    if len(photos) < len(data.test):
        print(
            f"note: {len(data.test) - len(photos):,} photos of the test folder are not in sample_submission.csv "
            "and are left out; without that file all are predicted"
        )
    folds = sorted(set(read_folds(run.folds).values()))
    answering, shares = heard(members, chosen_shares(run, settings, members))
    paths = [path for fold in folds for path in checkpoints(answering, fold)]
    print_unfinished(answering, folds)
    device = pick_device()
    chosen = settings.inference
    digests = {path: sha256(path) for path in paths}
    threshold = chosen_threshold(run, settings)
    facts = {
        "images": len(photos),
        "folds": len(folds),
        "networks": len(paths),
        **facts_of(chosen, device),
        "data": str(data.root.resolve()),
        "photos": fingerprint_of(photo.path for photo in photos),
        "member_weights": by_name(answering, shares),
        "threshold": threshold,
        "checkpoints": {str(path): known for path, known in digests.items()},
    }
    key = key_of(**facts)
    record = run.submission_record
    if is_done(run.submission, record, key):
        print(f"{run.submission} is there: {facts['images']:,} images, {facts['networks']} networks")
        return
    parts = parts_of(run.root / "shards", facts, "what they would predict")
    ensembles = load_ensembles(paths, chosen, device=device, member_weights=shares * len(folds))
    require_unchanged(digests)

    def work(part: Sequence[Photo], file: Path) -> None:
        predict_to(file, part, ensembles, threshold=threshold, settings=settings)

    shards = run_shards(parts, photos, chosen.shard, work, "predict")
    ranks.barrier()  # the parts are removed in the end, when nobody looks for them any more
    if not ranks.first():
        return
    submission_file.join(run.submission, shards)
    SubmissionRecord.model_validate({"key": key, **facts, "sha256": sha256(run.submission)}).write(record)
    remove_parts(parts.parent)
    weights = f"{in_words(shares)}, " if len(answering) > 1 else ""
    print(
        f"{run.submission}: {len(photos):,} images by {len(paths)} networks, tta {', '.join(chosen.tta)}, "
        f"{weights}threshold {threshold:.3f}"
    )


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Predict the test set."""
    arguments = parser("Predict the test set with all folds, into a submission file.")
    add_member_arguments(arguments)
    run, settings, data, members = open_members(arguments.parse_args(argv))
    with one_at_a_time(run):
        predict(run, settings, data, members)
    print(f"next: make validate RUN={run.called}")


if __name__ == "__main__":
    run_command(main)
