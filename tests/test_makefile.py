"""What make hands on to the programs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The tests are themselves started by make, whose variables must not reach the makes that are tested.
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "MESSAGE"))}


def dry_run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``make -n`` with these arguments, where no package is missing."""
    command = ["make", "-n", *arguments]
    return subprocess.run(command, cwd=ROOT, env=OUTSIDE | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        (["RUN=cpu", "PRESET=cpu", "DATA=cpu"], "--run cpu --data cpu --preset cpu"),
        (["RUNS=a b", "DATA=d"], "--runs a b --data d"),
        (["RUNS=a b", "RUN=both"], "--runs a b --run both"),
        (["SET=seed=1 inference.tta=[identity]"], "--run default --set seed=1 inference.tta=[identity]"),
    ],
)
@pytest.mark.parametrize("target", ["score", "predict", "pseudo"])
def test_what_is_named_is_handed_on(target: str, variables: list[str], arguments: str) -> None:
    last = dry_run(target, *variables).stdout.splitlines()[-1]
    assert " ".join(last.replace("'", "").split()).endswith(f"-m inference.{target} {arguments}")


@pytest.mark.parametrize("target", ["train", "cv", "validate", "submit", "masks", "report"])
def test_several_runs_are_refused_where_one_is_meant(target: str) -> None:
    refused = dry_run(target, "RUNS=a b")
    assert refused.returncode
    assert "RUNS is for score, predict and pseudo" in refused.stderr
    assert not refused.stdout


@pytest.mark.parametrize(
    ("target", "variable", "reason"),
    [
        ("cv", "HQ=1", "HQ is for data and check; a run learns from the hq photos by SET=data.hq=true"),
        ("predict", "HQ=1", "HQ is for data and check"),
        ("cv", "FOLD=3", "FOLD is for train; cv trains every fold that is not finished"),
    ],
)
def test_what_a_target_does_not_read_is_refused(target: str, variable: str, reason: str) -> None:
    refused = dry_run(target, variable)
    assert refused.returncode
    assert reason in refused.stderr
    assert not refused.stdout


@pytest.mark.parametrize(("value", "given"), [("1", True), ("yes", True), ("0", False), ("no", False), ("", False)])
def test_a_switch_can_be_named_and_off(value: str, given: bool) -> None:
    assert ("--dry-run" in dry_run("submit", f"DRY_RUN={value}").stdout) == given


def test_a_missing_python_is_named_in_one_line(tmp_path: Path) -> None:
    command = ["make", "setup", "PYTHON=nopython", f"VENV={tmp_path / 'venv'}"]
    refused = subprocess.run(command, cwd=ROOT, env=OUTSIDE, capture_output=True, text=True, check=False)
    assert refused.returncode
    assert refused.stderr.splitlines()[0].startswith(
        "error: Python 3.11 or newer is needed, and nopython is missing;"
    )


def handed_on(folder: Path, *arguments: str) -> list[str]:
    """What reaches the program; in place of Python it is the shell's ``printf``."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    command = ["make", *arguments, f"VENV={folder}"]
    return subprocess.run(
        command, cwd=ROOT, env=OUTSIDE, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_a_message_reaches_the_program_as_it_is(tmp_path: Path) -> None:
    message = 'five folds, "new" loss; it\'s `date` for $5 and $HOME'
    assert f"--message={message}" in handed_on(tmp_path, "submit", f"MESSAGE={message}", "RUN=x")


@pytest.mark.parametrize(
    "target",
    [
        "data",
        "synthetic",
        "check",
        "folds",
        "train",
        "cv",
        "score",
        "predict",
        "pseudo",
        "validate",
        "submit",
        "masks",
        "report",
    ],
)
def test_a_folder_reaches_the_program_as_it_is(tmp_path: Path, target: str) -> None:
    folder = 'my cars/it\'s "new" (2); `date`'
    given = handed_on(tmp_path, target, f"DATA={folder}")
    assert given[given.index("--data") + 1] == folder


@pytest.mark.parametrize(
    ("target", "variable", "option"),
    [
        ("train", "PRESET", "--preset"),
        ("settings", "PRESET", "--preset"),
        ("train", "SETTINGS", "--settings"),
        ("validate", "FILE", "--file"),
        ("masks", "FILE", "--file"),
    ],
)
def test_a_file_reaches_the_program_as_it_is(tmp_path: Path, target: str, variable: str, option: str) -> None:
    given = handed_on(tmp_path, target, f"{variable}=my files/a.yaml")
    assert given[given.index(option) + 1] == "my files/a.yaml"


def test_a_folder_may_be_below_home(tmp_path: Path) -> None:
    given = handed_on(tmp_path, "check", "DATA=~/my cars")
    assert given[given.index("--data") + 1] == str(Path.home() / "my cars")


@pytest.mark.parametrize("name", ["a b", ""])
def test_a_run_has_one_word(name: str) -> None:
    refused = dry_run("cv", f"RUN={name}")
    assert refused.returncode
    assert refused.stderr.splitlines()[0].endswith(
        f'RUN="{name}" is no name of a run, which is one word; several runs together are RUNS="a b".  Stop.'
    )
    assert not refused.stdout


@pytest.mark.parametrize("given", ["FLOD=1", "fold=1", 'RNU=it\'s "$(error no)" $x', "FLOD:=1"])
def test_an_unknown_variable_is_refused_in_one_line(given: str) -> None:
    refused = dry_run("train", given, "SET=a.b='$x y'", 'MESSAGE=$(none) "')
    [line] = refused.stderr.splitlines()
    name = given.partition("=")[0].rstrip(":")
    assert f"unknown variable {name}; there are " in line
    assert " FOLD FOLDS " in line
    assert refused.returncode
    assert not refused.stdout


@pytest.mark.parametrize(
    ("given", "environment"),
    [
        (["MAKEFLAGS=-s"], {}),
        (["SHELL=/bin/bash", "-j2"], {}),
        ([], {"FLOD": "1", "MAKEFLAGS": "-j2"}),
        (["-e"], {"FLOD": "1"}),
        (["FLOD=1"], {"MAKELEVEL": "1"}),  # of a Makefile that calls this one
    ],
)
def test_what_is_not_the_user_s_mistake_is_no_unknown_variable(given: list[str], environment: dict[str, str]) -> None:
    accepted = dry_run("train", *given, **environment)
    assert (accepted.returncode, accepted.stderr) == (0, "")


def test_every_variable_of_the_makefile_and_the_readme_is_known() -> None:
    makefile = (ROOT / "Makefile").read_text()
    own = set(re.findall(r"^([A-Z_]+) :?= ", makefile, flags=re.MULTILINE))
    read = set(re.findall(r"\$\(([A-Z_]+)\)", makefile)) - own - {"MAKECMDGOALS", "MAKELEVEL"}
    lines = re.findall(r"\bmake [^`\n]*", (ROOT / "README.md").read_text())
    named = {name for line in lines for name in re.findall(r" ([A-Z_]+)=", line)}
    assert {"DATA", "RUN", "SIZE"} <= read
    assert {"FOLD", "NPROC", "WEIGHTS"} <= named
    known = dry_run("train", "FLOD=1").stderr.partition("there are ")[2].partition(".")[0].split()
    assert (read | named | {"BENCHMARKS"}) == set(known)
