"""The commands that messages name."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from trained_run import Trained

from competition.hint import MAKE, MODULES, hint
from competition.run.folder import RunFolder
from competition.run.records import CV, Environment, SubmissionRecord
from competition.settings.resolve import load_settings
from inference.pseudo import main as pseudo
from inference.score import main as score


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """As if a command line had started this process."""

    def start(line: str) -> None:
        words = shlex.split(line)
        monkeypatch.setattr(sys, "orig_argv", words)
        monkeypatch.setattr(sys, "argv", words[2:] if "-m" in words else words)

    return start


@pytest.mark.parametrize(
    ("line", "made", "expected"),
    [
        ("pytest", None, "make predict RUN=a"),
        ("python -m inference.score --run a", "make", "make predict RUN=a"),
        (
            "python -m inference.score --run a",
            "make SYSTEM='1' VENV='my env'",
            "make SYSTEM=1 'VENV=my env' predict RUN=a",
        ),
        ("python3 -m inference.score --run a", None, "python3 -m inference.predict --run=a"),
        ("python -m pytest", None, "make predict RUN=a"),
        (
            "python -m inference.score --run a --data 'my data' --preset demo --set a=1 b=2 --set c=3",
            "make",
            "make predict RUN=a DATA='my data' PRESET=demo SET='a=1 b=2 c=3'",
        ),
        (
            "python -m inference.score --run=a --data=d --set 'input={height: 64}' b=2 --hours 3",
            None,
            "python -m inference.predict --run=a --data=d --set 'input={height: 64}' b=2",
        ),
        ("python -m inference.score --run b --data d --set c=3", "make", "make predict RUN=a DATA=d"),
        ("python -m inference.score --runs b a --data d --set c=3", "make", "make predict RUN=a DATA=d"),
        ("python -m inference.score --runs b c --set c=3", "make", "make predict RUN=a SET=c=3"),
        ("python -m inference.score --runs b c --run a --set c=3", "make", "make predict RUN=a SET=c=3"),
    ],
)
def test_a_hint_has_the_form_of_the_command_that_prints_it(
    started: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, line: str, made: str | None, expected: str
) -> None:
    started(line)
    if made:
        monkeypatch.setenv(MAKE, made)
    assert hint("predict", RUN="a") == expected


def test_variables_are_quoted_and_may_be_lists_or_missing(
    started: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hint("cv", RUN="it's", SET=["a=1", "b=[x,y]"], DATA=None) == """make cv RUN='it'"'"'s' SET='a=1 b=[x,y]'"""
    assert hint("train", FOLD=0, RUN="a+b") == "make train FOLD=0 RUN=a+b"
    started("python -m folds.train --fold 0")
    assert hint("cv", RUN="a") == "python -m inference.cv --run=a"
    assert hint("train", RUN="a") == "python -m folds.train --fold=0 --run=a"
    assert hint("data", HQ=1, DATA="d") == "python -m competition.kaggle.download --hq --data=d"
    monkeypatch.setenv("DEVICE", "cpu")
    assert hint("score", RUN="a") == "DEVICE=cpu python -m inference.score --run=a"
    assert hint("cutout", PHOTOS="a b", MODEL="c") == "python -m inference.cutout_onnx 'a b' --model=c"
    assert hint("report", RUN="a") == "python -m inference.report --run=a"


def test_targets_and_their_options_are_those_of_the_makefile() -> None:
    """``make -n`` prints the command that a hint without make names."""
    options = {
        name: ["RUN=a", "DATA=my d"] for name in ("folds", "cv", "score", "predict", "pseudo", "validate", "report")
    }
    options |= {
        "train": ["FOLD=1", "RUN=a"],
        "check": ["DATA=d"],
        "unpack": ["FILE=a.zip"],
        "data": ["FROM=a", "DATA=b"],
    }
    options |= {
        "adopt": ["IMAGES=a", "MASKS=b", "DATA=c"],
        "masks": ["RUN=a"],
        "cutout": ["PHOTOS=my photo", "RUN=a"],
        "export": ["RUN=a", "FOLD=1"],
        "submit": ["RUN=a"],
        "submissions": [],
    }
    options["synthetic"] = ["DATA=d"]
    assert options.keys() == MODULES.keys()
    for target, variables in options.items():
        call = ["make", "-n", "SYSTEM=1", "PYTHON=python", target, *variables]
        lines = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        [made] = [line.partition(" || ")[0] for line in lines if MODULES[target] in line]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "orig_argv", ["python", "-m", "folds.begin"])
            named = dict(variable.split("=") for variable in variables)
            assert sorted(shlex.split(hint(target, **named))) == sorted(shlex.split(made))


def run_hint(text: str) -> None:
    """Run the printed ``python -m MODULE ...`` in this process."""
    _, _, name, *arguments = shlex.split(text)
    module = importlib.import_module(name)
    (module if hasattr(module, "main") else importlib.import_module(f"{name}.__main__")).main(arguments)


def test_printed_hints_run_as_they_are(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The data was moved, the settings of the call are not the run's, and the names need quotes."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "inference.score"])
    data, root = tmp_path / "moved data", trained.run.root.rename(tmp_path / "it's")
    shutil.copytree(trained.data, data)
    run = RunFolder(root)
    Environment.read(run.environment).model_copy(update={"data": str(tmp_path / "gone")}).write(run.environment)
    call = ["--run", str(root), "--data", str(data), "--set", "inference.tta=[identity]", "inference.threshold=0.25"]
    score(call)
    predict, report = printed(r".*  next: (.*), or (.*)", capsys)
    run_hint(predict)
    record, cv = SubmissionRecord.read(run.submission_record), CV.read(run.cv)
    assert (record.tta, record.threshold) == (cv.tta, pytest.approx(cv.threshold, abs=0.01)) == (["identity"], 0.25)
    [validate] = printed(r"next: (.*)", capsys)
    run_hint(validate)
    run_hint(report)
    pseudo(call)
    [cv_hint] = printed(r"next: (.*)", capsys)
    assert "inference.cv" in cv_hint
    run_hint(cv_hint.replace("inference.cv", "folds.begin"))  # creates the run that would be trained
    new = RunFolder(root.with_name("it's-pseudo"))
    assert load_settings(new.settings).data.pseudo == str(root)
    assert load_settings(new.settings).input == load_settings(run.settings).input
    assert new.folds.read_bytes() == run.folds.read_bytes()


def printed(pattern: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, ...]:
    """What the groups of a pattern match in the last line that was printed."""
    found = re.fullmatch(pattern, capsys.readouterr().out.splitlines()[-1])
    assert found
    return found.groups()
