"""What a user sees when the input is wrong: exit status 1, one line that says what to do, and no file is changed.

Each error is tested in detail where it is raised. This table checks that it reaches the command line.
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CARS, full_disk, save_mask
from trained_run import Trained

from competition import check
from competition.command import run_command
from competition.run.records import SubmissionRecord
from folds import train
from inference import predict, score
from submissions import grade, masks, submission_file, validate

Main = Callable[[Sequence[str] | None], None]
Fails = Callable[[Main, Sequence[str]], str]
FIRST = f"{sorted(CARS)[0]}_01"  # the first photo of own_data


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail, and give its one line on stderr."""

    def run(main: Main, arguments: Sequence[str]) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: main(arguments))
        lines = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 1
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def truncate_photos(data: Path) -> None:
    """All of them, so that training fails at the first one that it reads."""
    for path in (data / "train").iterdir():
        truncate(path)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def add_photo(data: Path) -> None:
    cv2.imwrite(str(data / "train" / "ffffffffffff_01.jpg"), np.zeros((64, 96, 3), np.uint8))


def damage_row(data: Path) -> None:
    rows = (data / "train_masks.csv").read_text().splitlines()
    rows[9] += " 7"
    (data / "train_masks.csv").write_text("\n".join(rows) + "\n")


# A command on a damaged data folder: the settings of a new run or None for `make check`, the damage, the error.
DataFault = tuple[list[str] | None, Callable[[Path], object], str]
DATA_FAULTS: dict[str, DataFault] = {
    "no folder": ([], shutil.rmtree, "no data folder .*DATA="),
    "no photos": ([], lambda data: empty(data / "train"), "holds no photos"),
    "truncated photo, read before training": (["train.cache=true"], truncate_photos, r"train/\w+\.jpg is damaged"),
    "truncated photo, read by a worker": (
        ["train.cache=false", "train.workers=1"],
        truncate_photos,
        r"train/\w+\.jpg is damaged",
    ),
    "truncated photo, found by check": (None, truncate_photos, "10 problems"),
    "mask of another size": (
        [],
        lambda data: save_mask(data / "train_masks" / f"{FIRST}_mask.gif", np.zeros((10, 20), np.uint8)),
        f"{FIRST}_mask.gif is 20 x 10",
    ),
    "photo without a mask": ([], add_photo, "ffffffffffff_01.jpg has no mask"),
    "malformed RLE": ([], damage_row, r"train_masks\.csv line 10, .*: odd count"),
    "unknown setting": (["train.epoch=3"], lambda _: None, "did you mean train.epochs"),
    "not enough cars": (["split.folds=6"], lambda _: None, "folds"),
}


@pytest.mark.parametrize("fault", DATA_FAULTS.values(), ids=DATA_FAULTS)
def test_data(fails: Fails, own_data: Path, tmp_path: Path, fault: DataFault) -> None:
    settings, damage, line = fault
    run = tmp_path / "new"
    damage(own_data)
    if settings is None:
        error = fails(check.main, ["--data", str(own_data)])
    else:
        start = ["--fold", "0", "--run", str(run), "--data", str(own_data), "--preset", "demo"]
        error = fails(train.main, [*start, "--set", "split.folds=2", *settings])
    assert re.search(line, error), error
    assert not list(tmp_path.rglob("last.pt"))


def write_submission(trained: Trained, code: str = "1 999") -> None:
    """A submission with the same mask in each row, and a solution with one more image."""
    names = sorted(path.name for path in (trained.data / "test").iterdir())
    submission_file.write(trained.run.submission, ((name, code) for name in names))
    submission_file.write(trained.run.root / "solution.csv", ((name, "1 999") for name in [*names, "other_01.jpg"]))


def truncate_submission(trained: Trained) -> None:
    write_submission(trained)
    truncate(trained.run.submission)


# A command on a damaged run: the command, more arguments, the damage, the error.
RunFault = tuple[Main, list[str], Callable[[Trained], object], str]
RUN_FAULTS: dict[str, RunFault] = {
    "score without a fold": (score.main, [], lambda t: t.run.best(1).unlink(), "fold 1 .*make train FOLD=1"),
    "damaged checkpoint": (predict.main, [], lambda t: truncate(t.run.best(0)), r"best\.safetensors is damaged"),
    "other settings": (train.main, ["--fold", "0", "--set", "train.lr=0.5"], lambda _: None, r"train\.lr is 0\.01"),
    "unknown preset": (train.main, ["--fold", "0", "--preset", "cpuu"], lambda _: None, "did you mean cpu"),
    "no submission": (validate.main, [], lambda _: None, "no submission .*make predict RUN="),
    "damaged submission": (validate.main, [], truncate_submission, r"submission\.csv\.gz is not a valid submission"),
    "malformed RLE": (masks.main, [], lambda t: write_submission(t, "1 2 3"), "line 2, .*: odd count"),
    "another solution": (
        grade.main,
        ["--solution", "{run}/solution.csv"],
        write_submission,
        "no row for 1 of .*other_01",
    ),
}


@pytest.mark.parametrize("fault", RUN_FAULTS.values(), ids=RUN_FAULTS)
def test_run(fails: Fails, trained: Trained, fault: RunFault) -> None:
    main, more, damage, line = fault
    damage(trained)
    before = contents(trained.run.root)
    error = fails(main, [*trained.arguments, *(argument.format(run=trained.run.root) for argument in more)])
    assert re.search(line, error), error
    assert before.items() <= contents(trained.run.root).items()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_folder_that_cannot_be_written(fails: Fails, own_data: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where the run folder should be")
    arguments = ["--fold", "0", "--data", str(own_data), "--preset", "demo", "--set", "split.folds=2"]
    assert f"{tmp_path / 'blocked'}" in fails(train.main, [*arguments, "--run", str(tmp_path / "blocked" / "run")])
    if os.geteuid():  # root may write into a read-only folder
        (tmp_path / "new").mkdir(mode=0o500)
        assert "permission denied" in fails(train.main, [*arguments, "--run", str(tmp_path / "new")])


def test_a_full_disk(fails: Fails, trained: Trained) -> None:
    write_submission(trained)
    before = contents(trained.run.root)
    command = [*trained.arguments, "--set", "inference.tta=[identity]"]
    with full_disk(2_000):
        assert fails(predict.main, command).startswith("error: cannot write ")
    assert before.items() <= contents(trained.run.root).items()
    assert not list(trained.run.root.rglob("*.part"))
    predict.main(command)
    assert SubmissionRecord.read(trained.run.submission_record).tta == ["identity"]
