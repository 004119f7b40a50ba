"""Whether a run's submission may be submitted."""

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from sample_records import make_cv
from submittable import NAMES, SubmittableRun

from competition.command import Failure
from competition.data_folder import DataFolder, fingerprint_of
from competition.files import sha256
from submissions import candidate, submission_file, validate
from submissions.candidate import Candidate

pytestmark = pytest.mark.usefixtures("small_test_set")


@pytest.fixture
def run(tmp_path: Path) -> SubmittableRun:
    return SubmittableRun(tmp_path)


def prepare(run: SubmittableRun, force: bool = False, message: str = "first") -> Candidate:
    return candidate.prepare(run.folder, run.data, message, force)


def rejection(run: SubmittableRun, force: bool = False, message: str = "first") -> str:
    with pytest.raises(Failure) as raised:
        prepare(run, force, message)
    return str(raised.value)


def test_a_predicted_and_scored_run(run: SubmittableRun) -> None:
    found = candidate.prepare(run.folder, None, " first\n try", force=False)  # the data folder of submission.json
    assert found.sha256 == sha256(run.file)
    assert found.description == f"first try [sha256:{found.sha256[:16]}]"
    assert found.cv == make_cv()
    assert found.made_by
    assert found.made_by.sha256 == found.sha256
    assert prepare(run, message="long " * 100).description == f"{'long ' * 40} {found.mark}"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"engine": "onnxruntime"}, "engine is onnxruntime, in the CV torch"),
        ({"tta": ["identity"]}, "tta is identity, in the CV identity+hflip"),
        ({"threshold": 0.45}, "threshold is 0.45, in the CV 0.5"),
        (
            {"member_weights": {"runs/a": 0.5, "runs/b": 0.5}},
            "member_weights are {'runs/a': 0.5, 'runs/b': 0.5}, in the CV those of one run",
        ),
        ({"checkpoints": {"runs/a": "3"}}, "runs/a is not among the weights that the CV scored"),
    ],
    ids=["engine", "tta", "threshold", "member_weights", "checkpoints"],
)
def test_what_the_cv_did_not_score_needs_force(
    run: SubmittableRun, changes: dict[str, object], difference: str
) -> None:
    run.predict(**changes)
    folder = run.folder
    assert rejection(run) == (
        f"{run.file} is not what {folder.cv} scored: {difference}; run make predict RUN={folder.root} and make score "
        f"RUN={folder.root} with the same SET, or add FORCE=1"
    )
    assert prepare(run, force=True).made_by


def predict_again(run: SubmittableRun) -> None:
    prepare(run)
    run.predict("1 500000")


UNKNOWN = "submission.json does not describe {root}/submission.csv.gz; write both again with make predict"
# What is missing after the change, the change, and the error.
CHANGES: list[tuple[str, Callable[[SubmittableRun], object], str]] = [
    ("cv", lambda run: run.folder.cv.unlink(), "has no CV to compare the score with; make cv RUN={root}, or add"),
    ("record", lambda run: run.folder.submission_record.unlink(), UNKNOWN),
    ("record", lambda run: run.predict(sha256="0" * 64), UNKNOWN),
    ("", predict_again, "is not the file that was validated; check it with make validate RUN={root}, or add FORCE=1"),
]


@pytest.mark.parametrize(("missing", "change", "reason"), CHANGES)
def test_an_unknown_or_changed_file_needs_force(
    run: SubmittableRun, missing: str, change: Callable[[SubmittableRun], object], reason: str
) -> None:
    change(run)
    assert reason.format(root=run.folder.root) in rejection(run)
    forced = prepare(run, force=True)
    assert (forced.cv is None, forced.made_by is None) == (missing == "cv", missing == "record")


def test_equal_choices_may_be_written_differently(run: SubmittableRun) -> None:
    """TTA in another order, a threshold between the same levels, and a run of weight 0 that was not predicted."""
    make_cv(member_weights={"runs/a": 1.0, "runs/b": 0.0}, threshold=77 / 255).write(run.folder.cv)
    equal = {"tta": ["hflip", "identity"], "threshold": 0.3}
    run.predict(**equal, member_weights={"runs/a": 1.0})
    prepare(run)
    run.predict(**equal, member_weights={"runs/b": 1.0})
    assert "member_weights are {'runs/b': 1.0}, in the CV {'runs/a': 1.0}" in rejection(run)


def test_weights_are_compared_by_content(run: SubmittableRun) -> None:
    best = run.folder.best(0)
    best.parent.mkdir()
    best.write_text("trained")
    make_cv(checkpoints={"runs/moved": sha256(best), "runs/gone": "2"}).write(run.folder.cv)
    run.predict(checkpoints={str(best): sha256(best), "runs/elsewhere": "2"})
    prepare(run)
    best.write_text("trained again")
    assert f"scored: {best} was trained again after the prediction; run make predict" in rejection(run)
    prepare(run, force=True)


def test_an_invalid_file_is_rejected_even_with_force(run: SubmittableRun, capsys: pytest.CaptureFixture[str]) -> None:
    run.predict(names=NAMES[1:])
    for force in (False, True):
        assert re.search(r"is (no|not a) valid submission \(1 x missing name", rejection(run, force))
        assert NAMES[0] in capsys.readouterr().out


def test_a_file_that_is_not_what_its_name_says_is_rejected_even_with_force(
    run: SubmittableRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kaggle would get a plain file named .csv.gz."""
    run.file.write_bytes(gzip.decompress(run.file.read_bytes()))
    run.record()
    for force in (False, True):
        assert "1 x wrong name" in rejection(run, force)
        assert "holds plain text, but its name says gzip" in capsys.readouterr().out


def test_a_valid_file_is_validated_once(run: SubmittableRun, capsys: pytest.CaptureFixture[str]) -> None:
    run.predict(code="")  # implausible masks
    prepare(run, force=True)
    assert "valid submission" in rejection(run), "force counts for one call"
    run.predict()
    capsys.readouterr()
    prepare(run)
    assert "is a valid submission" in capsys.readouterr().out
    prepare(run)
    assert capsys.readouterr().out == ""


def test_a_message_and_a_submission_are_required(run: SubmittableRun) -> None:
    assert rejection(run, message=" \n") == 'a submission needs a message; add MESSAGE="what is new"'
    run.file.unlink()
    assert (
        rejection(run, force=True) == f"no submission {run.file}; make one first: make predict RUN={run.folder.root}"
    )


def test_names_of_other_data_need_force_whatever_was_validated(run: SubmittableRun) -> None:
    names = ["van_01.jpg", *NAMES[1:]]
    submission_file.write(run.data / "sample_submission.csv", ((name, "1 1") for name in names))
    run.predict(names=names)
    prepare(run, force=True)
    validate.main(["--run", str(run.folder.root)])
    assert rejection(run) == (
        f"{run.file} is not for Kaggle: it must have the 100,064 names of Carvana's test set, and {run.data} has 16 "
        "names; not in the form 0cdf5b5d0ce1_01.jpg: 1, such as van_01.jpg; name Carvana's folder with DATA=..., "
        "or add FORCE=1"
    )


def test_only_masks_of_the_own_data_are_submitted(run: SubmittableRun, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    for folder in (copy, other):
        shutil.copytree(run.data, folder)
        (folder / "test").mkdir()
        for name in NAMES:
            Image.new("1", (1918, 1280 if folder == copy else 640)).save(folder / "test" / name)
    run.predict(photos=fingerprint_of(DataFolder(copy).submission_photos))
    candidate.prepare(run.folder, copy, "first", force=False)
    for force in (False, True):
        with pytest.raises(Failure, match=f"{other} is not the data of run unet, and only masks of the run's own"):
            candidate.prepare(run.folder, other, "first", force)
