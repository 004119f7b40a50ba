"""A small demo: the whole pipeline through make, killed while it generates cars, and resumed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from competition.run.folder import RunFolder
from competition.run.records import CV

ROOT = Path(__file__).parent.parent
SMALL = (
    "split.folds=2 input.height=64 input.width=96 network.width=8 network.depth=3 train.epochs=6 train.lr=0.01 "
    "train.ema=0.9 train.validate_every=6 inference.shard=16"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A working folder like a fresh clone, with its own data and runs."""
    for name in ("competition", "folds", "inference", "submissions", "Makefile", "requirements.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def demo(checkout: Path) -> subprocess.Popen[str]:
    stamp = next(iter(Path(sys.prefix).glob(".installed-*")), Path("none"))
    command = ["make", "--no-print-directory", f"--old-file={stamp}", "demo", f"VENV={sys.prefix}"]
    command += ["CARS=3", "TEST_CARS=1", "SEED=3", "SIZE=120x80", f"SET={SMALL}"]
    return subprocess.Popen(
        command,
        cwd=checkout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.long
def test_the_demo_resumes_after_a_kill(checkout: Path) -> None:
    killed = demo(checkout)
    while killed.poll() is None and not list(checkout.glob("data/demo*/train/*.jpg")):
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    first, _ = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, first

    again = demo(checkout)
    screen, _ = again.communicate(timeout=240)
    assert again.returncode == 0, screen

    run = RunFolder(checkout / "runs" / "demo")
    cv = CV.read(run.cv)
    assert [fold.fold for fold in cv.folds] == [0, 1]
    assert cv.dice > 0.85
    table = re.findall(r"^ *(\d|all) +\d+ +\d+ +(\d\.\d{5}) +(\d\.\d{5})$", screen, re.MULTILINE)
    assert [row[0] for row in table] == ["0", "1", "all"]
    assert table[-1][1] == f"{cv.dice:.5f}"
    grade = re.search(r"16 images: Dice (\d\.\d+)", screen)
    assert grade is not None, screen
    assert abs(float(grade[1]) - cv.dice) < 0.06
    report = run.report.read_text()
    assert f"{cv.dice:.4f}"[:6] in report
    assert not [path for path in run.root.rglob("*") if path.name.endswith(".part")], "no temporary file is left"
