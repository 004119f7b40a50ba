"""Which masks belong to a data folder: the run's submission only to the run's own data."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from sample_records import make_environment, make_submission_record

from competition.command import Failure
from competition.data_folder import DataFolder, fingerprint_of
from competition.run.folder import RunFolder
from competition.run.predictions import is_own, place_for, predicted
from competition.run.records import SubmissionRecord


@pytest.fixture
def run(tiny_data: Path, tmp_path: Path) -> RunFolder:
    """A run that was trained from ``tiny_data``; nothing is predicted."""
    found = RunFolder(tmp_path / "runs" / "x")
    data = DataFolder(tiny_data)
    make_environment(data=str(tiny_data), fingerprint=data.fingerprint).write(found.environment)
    return found


def submit(run: RunFolder, data: Path) -> None:
    """Write the record of a submission of a data folder."""
    photos = fingerprint_of(DataFolder(data).submission_photos)
    make_submission_record(data=str(data), photos=photos).write(run.submission_record)


def photos(folder: Path, size: tuple[int, int] = (30, 20)) -> DataFolder:
    """A data folder with only test photos."""
    (folder / "test").mkdir(parents=True)
    Image.new("RGB", size).save(folder / "test" / "van_01.jpg")
    return DataFolder(folder)


def other_test(data: Path) -> None:
    next((data / "test").iterdir()).write_bytes(b"another photo")


def without(*names: str) -> Callable[[Path], None]:
    def remove(data: Path) -> None:
        for name in names:
            path = data / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (lambda _: None, (True, True)),
        (without("train_masks", "train_masks.csv", "metadata.csv"), (True, True)),
        (without("train", "train_masks", "train_masks.csv"), (False, True)),
        (without("test", "sample_submission.csv"), (True, False)),
        (other_test, (True, False)),
        (lambda data: next((data / "train").iterdir()).write_bytes(b"another photo"), (False, True)),
    ],
    ids=["copy", "no masks", "only test", "no test", "another test photo", "another training photo"],
)
def test_a_copy_is_known_by_its_photos(
    run: RunFolder, tiny_data: Path, own_data: Path, change: Callable[[Path], None], known: tuple[bool, bool]
) -> None:
    """Before there is a submission by its training photos, after that by its test photos."""
    change(own_data)
    assert is_own(run, DataFolder(own_data)) is known[0]
    submit(run, tiny_data)
    assert is_own(run, DataFolder(own_data)) is known[1]
    assert is_own(run, DataFolder(tiny_data))


def test_changed_photos_in_the_folder_of_the_run_or_of_its_submission_are_its_own(
    run: RunFolder, tiny_data: Path, own_data: Path
) -> None:
    submit(run, own_data)
    other_test(own_data)
    assert is_own(run, DataFolder(own_data))
    submit(run, tiny_data)
    moved = make_environment(data=str(own_data))
    moved.write(run.environment)
    assert is_own(run, DataFolder(own_data))


def test_a_run_whose_records_are_lost_accepts_every_folder(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    run.environment.unlink()
    assert is_own(run, photos(tmp_path / "other"))


def test_folders_of_one_name_have_places_of_their_own(run: RunFolder, tmp_path: Path) -> None:
    one, two = photos(tmp_path / "one" / "photos"), photos(tmp_path / "two" / "photos")
    with pytest.raises(Failure, match=f"run x has not predicted {one.root}; predict it first: make predict RUN="):
        predicted(run, one)
    assert place_for(run, one).root == run.root / "predictions" / "photos"
    assert place_for(run, two).root == run.root / "predictions" / "photos-2"
    again = DataFolder(tmp_path / "two" / ".." / "two" / "photos")
    assert place_for(run, again) == predicted(run, again)
    assert predicted(run, again).root.name == "photos-2"
    shutil.rmtree(run.predictions / "photos")
    assert predicted(run, two).root.name == "photos-2"
    assert place_for(run, one).root.name == "photos"


def test_masks_without_a_record_are_not_replaced(run: RunFolder, tmp_path: Path) -> None:
    place = place_for(run, photos(tmp_path / "photos"))
    place.submission.touch()
    (place.root / "data.json").unlink()
    assert place_for(run, DataFolder(tmp_path / "photos")).root.name == "photos-2"


def test_a_damaged_record_is_named_with_what_to_do(run: RunFolder, tmp_path: Path) -> None:
    data = photos(tmp_path / "photos")
    place = place_for(run, data)
    place.submission_record.write_text("{")
    with pytest.raises(Failure, match=rf"write it again: make predict RUN={run.root} DATA=\.\.\.$"):
        SubmissionRecord.read(place.submission_record)
    (place.root / "data.json").write_text("{")
    with pytest.raises(Failure, match=rf"remove its folder and predict again: make predict RUN={run.root} DATA="):
        predicted(run, data)
