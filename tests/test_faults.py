"""Bad input and bad luck, as a user meets them: exit status 1, one line that says what to do, nothing lost."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from trained_run import Trained

from competition import check
from competition.command import run_command
from folds import train
from inference import predict, score
from submissions import validate

ROOT = Path(__file__).parent.parent
Main = Callable[[Sequence[str] | None], None]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[[Main, Sequence[str]], str]:
    """Run a command that must fail, and give its one line."""

    def run(main: Main, arguments: Sequence[str]) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: main(arguments))
        lines = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 1
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert "Traceback" not in lines[0]
        return lines[0]

    return run


Fails = Callable[[Main, Sequence[str]], str]


@pytest.fixture
def cars(trained: Trained, tmp_path: Path) -> Path:
    """A data folder of the test's own, to damage."""
    shutil.copytree(trained.data, tmp_path / "cars")
    return tmp_path / "cars"


def new_run(tmp_path: Path, data: Path) -> list[str]:
    run = ["--run", str(tmp_path / "new"), "--data", str(data)]
    return ["--fold", "0", *run, "--preset", "demo", "--set", "split.folds=2"]


def test_no_data_folder(fails: Fails, tmp_path: Path) -> None:
    line = fails(train.main, new_run(tmp_path, tmp_path / "nowhere"))
    assert "nowhere" in line
    assert "DATA=" in line


def test_an_empty_data_folder(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "empty" / "train").mkdir(parents=True)
    assert "holds no photos" in fails(train.main, new_run(tmp_path, tmp_path / "empty"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("reader", [["train.cache=true"], ["train.cache=false", "train.workers=1"]])
def test_a_truncated_photo(fails: Fails, cars: Path, tmp_path: Path, reader: list[str]) -> None:
    photo = sorted((cars / "train").iterdir())[5]
    content = photo.read_bytes()
    photo.write_bytes(content[: len(content) * 2 // 3])
    line = fails(train.main, [*new_run(tmp_path, cars), *reader])
    assert line.startswith(f"error: {photo} is damaged")
    line = fails(check.main, ["--data", str(cars)])
    assert "1 problem" in line


def test_a_mask_of_the_wrong_size(fails: Fails, cars: Path, tmp_path: Path) -> None:
    mask = sorted((cars / "train_masks").iterdir())[7]
    Image.fromarray(np.zeros((10, 20), dtype=np.uint8)).save(mask)
    line = fails(train.main, new_run(tmp_path, cars))
    assert mask.name in line
    assert "20 x 10" in line
    assert not (tmp_path / "new" / "fold0").exists()


def test_a_photo_without_a_mask(fails: Fails, cars: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(cars / "train" / "ffffffffffff_01.jpg"), np.zeros((160, 240, 3), dtype=np.uint8))
    assert "ffffffffffff_01.jpg has no mask" in fails(train.main, new_run(tmp_path, cars))


def test_a_bad_row_of_masks(fails: Fails, cars: Path, tmp_path: Path) -> None:
    rows = (cars / "train_masks.csv").read_text().splitlines()
    rows[9] += " 7"
    (cars / "train_masks.csv").write_text("\n".join(rows) + "\n")
    line = fails(train.main, new_run(tmp_path, cars))
    assert "train_masks.csv line 10" in line
    assert "odd count" in line


def test_a_missing_fold(fails: Fails, trained: Trained) -> None:
    trained.run.best(1).unlink()
    for command in (score.main, predict.main):
        line = fails(command, trained.arguments)
        assert "fold 1" in line
        assert "make train FOLD=1" in line


def test_an_unknown_preset_or_setting(fails: Fails, trained: Trained, tmp_path: Path) -> None:
    start = ["--fold", "0", "--run", str(tmp_path / "new"), "--data", str(trained.data)]
    assert "did you mean cpu" in fails(train.main, [*start, "--preset", "cpuu"])
    assert "did you mean train.epochs" in fails(train.main, [*start, "--set", "train.epoch=3"])
    assert not (tmp_path / "new").exists()


def test_other_settings_for_a_run_that_exists(fails: Fails, trained: Trained) -> None:
    before = trained.run.last(0).read_bytes()
    line = fails(train.main, ["--fold", "0", *trained.arguments, "--set", "train.lr=0.5"])
    assert "train.lr is 0.01, asked for 0.5" in line
    assert trained.run.last(0).read_bytes() == before


def test_a_damaged_checkpoint(fails: Fails, trained: Trained) -> None:
    best = trained.run.best(0)
    best.write_bytes(best.read_bytes()[:1000])
    line = fails(predict.main, trained.arguments)
    assert "fold0/best.safetensors is damaged" in line


def test_a_damaged_submission(fails: Fails, trained: Trained) -> None:
    predict.main(trained.arguments)
    file = trained.run.submission
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "submission.csv.gz" in fails(validate.main, trained.arguments)


def test_a_run_folder_that_cannot_be_written(fails: Fails, trained: Trained, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the run folder should be")
    start = [*new_run(tmp_path, trained.data), "--run", str(blocked / "run")]
    assert str(blocked) in fails(train.main, start)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder")
def test_a_read_only_run_folder(fails: Fails, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(mode=0o500)
    assert "permission denied" in fails(train.main, new_run(tmp_path, trained.data))


def test_a_full_disk(trained: Trained, tmp_path: Path) -> None:
    """A limit on the size of files is the full disk that a test can make: writing fails in the middle of a file."""
    predict.main(trained.arguments)
    before = trained.run.submission.read_bytes()

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))

    full = subprocess.run(
        [sys.executable, "-m", "inference.predict", *trained.arguments, "--set", "inference.tta=[identity]"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=fill,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1
    line = full.stderr.strip().splitlines()[-1]
    assert line.startswith("error: cannot write ")
    assert "Traceback" not in full.stderr
    assert trained.run.submission.read_bytes() == before
    assert not list(trained.run.root.rglob("*.part"))
    predict.main([*trained.arguments, "--set", "inference.tta=[identity]"])
    assert json.loads((trained.run.root / "submission.json").read_text())["tta"] == ["identity"]
