"""What make passes to the commands, and what it rejects itself."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
# These tests may be started by make, whose variables must not reach the makes under test.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
PRINT_ARGUMENTS = 'printf "%s\\0" "$@"; echo'


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def fake_venv(folder: Path, command: str) -> str:
    """VENV=... of an environment in which pip installs nothing and Python is a shell command."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$2" = pip ] && exit\n{command}\n')
    python.chmod(0o755)
    return f"VENV={folder}"


def passed(folder: Path, *arguments: str, **environment: str) -> list[list[str]]:
    """The arguments of every command that make runs."""
    done = make(*arguments, fake_venv(folder, PRINT_ARGUMENTS), **environment)
    assert done.returncode == 0, done.stderr
    return [line.split("\0")[:-1] for line in done.stdout.splitlines() if "\0" in line]


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("train", ["folds.train --fold 0"]),
        ("train FOLD=2 RUN=x", ["folds.train --run=x --fold=2"]),
        ("train FOLDS=3 SET='seed=2 a.b=1'", ["folds.train --fold 0 --set split.folds=3 --set seed=2 a.b=1"]),
        ("cv DATA=d", ["inference.cv --data=d"]),
        ("check DATA='~/my cars'", [f"competition.check --data={Path.home()}/my cars"]),
        (
            "check SET=data.cars=photo ALL=1 SHEET=s.png",
            ["competition.check --set data.cars=photo --sheet=s.png --all"],
        ),
        ("adopt IMAGES='a b' MASKS=m TEST=t DATA=d", ["competition.adopt --data=d --images=a b --masks=m --test=t"]),
        ("cv NPROC=2", ["folds.launch --nproc 2 inference.cv"]),
        ("score RUNS='a b' DATA=d", ["inference.score --runs a b --data=d"]),
        ("predict RUNS='a b' RUN=both", ["inference.predict --run=both --runs a b"]),
        ("pseudo SET=inference.tta=[identity]", ["inference.pseudo --set inference.tta=[identity]"]),
        ("cv HOURS=11", ["inference.cv --hours=11"]),
        ("masks RUN=x DATA=d FORMAT=coco", ["submissions.masks --run=x --data=d --format=coco"]),
        ("pack RUN=x STATE=1 FILE=x.zip", ["competition.run.pack --run=x --file=x.zip --state"]),
        ("export RUN=x FOLD=1 FILE=x.onnx", ["inference.export --run=x --fold=1 --file=x.onnx"]),
        ("unpack FILE=x.zip", ["competition.run.unpack --file=x.zip"]),
        (
            "cutout PHOTOS='my photos' RUN=x FOLD=1 TYPE='rgba #ff8800' OUT='cut outs' CROP=1",
            ["inference.cutout my photos --run=x --fold=1 --type rgba #ff8800 --out=cut outs --crop"],
        ),
        ("cutout PHOTOS='a/*.jpg' MODEL=x.onnx", ["inference.cutout_onnx a/*.jpg --model=x.onnx"]),
        ("settings PRESET=cpu", ["competition.settings --preset=cpu"]),
        ("synthetic CARS=2 TEST_CARS=1 SEED=3", ["competition.studio --cars=2 --test-cars=1 --seed=3"]),
        ("data HQ=1", ["competition.kaggle.download --hq"]),
        (
            "data FROM='/kaggle/input/my zips' ONLY=train DATA=d",
            ["competition.kaggle.download --data=d --from=/kaggle/input/my zips --only=train"],
        ),
        ("submit DRY_RUN=1 FORCE=yes", ["submissions.submit --dry-run --force"]),
        ("submit DRY_RUN=0 FORCE=", ["submissions.submit"]),
        (
            "gpu-check STEPS='speed predict' DATA=d OUT=o SET=network.detail=8 REHEARSE=1",
            ["benchmarks.gpu_check --data=d --set network.detail=8 --out=o --steps speed predict --rehearse"],
        ),
        ("ablation VARIANTS='bce hard'", ["benchmarks.ablation --markdown --variants bce hard"]),
        ("studio-weights WEIGHTS=f HOURS=2", ["benchmarks.studio_weights --hours=2 --weights f"]),
    ],
)
def test_variables_become_options(tmp_path: Path, line: str, commands: list[str]) -> None:
    assert [" ".join(words[1:]) for words in passed(tmp_path, *shlex.split(line))] == commands


@pytest.mark.parametrize(
    ("target", "variable"),
    [("cv", "DATA"), ("train", "PRESET"), ("train", "SETTINGS"), ("validate", "FILE"), ("submit", "MESSAGE")],
)
def test_values_are_quoted(tmp_path: Path, target: str, variable: str) -> None:
    value = '-my cars/it\'s "new" (2), `date` for $5 and $HOME'
    for words in passed(tmp_path, target, f"{variable}={value}"):
        assert f"--{variable.lower()}={value}" in words


def test_setup_passes_options_to_pip(tmp_path: Path) -> None:
    done = make("-n", "setup", f"VENV={tmp_path}", "PIP_OPTIONS=--index-url https://example.org/cpu")
    assert "pip install --quiet --disable-pip-version-check --index-url https://example.org/cpu -r" in done.stdout


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("cv HQ=1", "; a run learns from the hq photos by SET=data.hq=true"),
        ("cv FOLD=1", "; FOLD is for train, and cv trains every fold that is not finished"),
        (
            "submit RUNS='a b'",
            "; RUNS is for score, predict and pseudo, which make one run of them; name that one",
        ),
        ("train SEED=3", ""),
        ("masks SIZE=64x64", ""),
        ("test SYSTEM=1", ""),
        ("clean-demo RUN=x", ""),
    ],
)
def test_target_rejects_variable_of_another_target(line: str, advice: str) -> None:
    target, given = shlex.split(line)
    done = make("-n", target, given)
    assert done.returncode == 2
    assert f"make {target} takes no variable {given.partition('=')[0]}, only " in done.stderr
    assert advice in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("target", "environment", "command"),
    [
        ("submissions", {"DATA": "d"}, "submissions.ledger"),
        ("train", {"SEED": "3", "RUNS": "a b", "DATA": "d"}, "folds.train --fold 0 --data=d"),
        ("cv", {"HQ": "1", "FOLD": "1", "NPROC": ""}, "inference.cv"),
        ("synthetic", {"SEED": "3", "RUN": "a b"}, "competition.studio --seed=3"),
    ],
)
def test_environment_gives_only_variables_of_the_target(
    tmp_path: Path, target: str, environment: dict[str, str], command: str
) -> None:
    assert " ".join(passed(tmp_path, target, **environment)[0][1:]) == command


def test_several_targets_share_the_command_line(tmp_path: Path) -> None:
    commands = [words[1:] for words in passed(tmp_path, "predict", "submit", "RUN=x", "MESSAGE=a b", "NPROC=2")]
    assert commands == [
        ["folds.launch", "--nproc", "2", "inference.predict", "--run=x"],
        ["submissions.submit", "--run=x", "--message=a b"],
    ]


def test_system_uses_python_after_a_look_at_its_packages(tmp_path: Path) -> None:
    venv = fake_venv(tmp_path, PRINT_ARGUMENTS).removeprefix("VENV=")
    done = make("cv", "SYSTEM=1", f"PYTHON={venv}/bin/python", "VENV=none")
    assert done.returncode == 0, done.stderr
    commands = [line.split("\0")[1] for line in done.stdout.splitlines() if line.startswith("-m")]
    assert commands == ["competition.packages", "inference.cv"]
    assert "none/bin/python -m competition.settings" in make("-n", "settings", "SYSTEM=0", "VENV=none").stdout


def test_system_asks_for_torch_only_where_it_is_needed(tmp_path: Path) -> None:
    venv = fake_venv(tmp_path, PRINT_ARGUMENTS).removeprefix("VENV=")
    system = ("SYSTEM=1", f"PYTHON={venv}/bin/python")

    def options(*line: str) -> list[str]:
        lines = make(*line, *system, MODEL="x.onnx").stdout.splitlines()
        return next(line.split("\0")[2:-1] for line in lines if line.startswith("-m\0competition.packages"))

    assert options("cutout", "PHOTOS=a") == ["--without-torch"]
    assert options("cutout", "PHOTOS=a", "MODEL=") == options("train") == []


def test_an_exported_model_installs_few_packages_unless_all_are_there(tmp_path: Path) -> None:
    venv = fake_venv(tmp_path, "exit 0")
    cutout = ("cutout", "PHOTOS=a", "MODEL=x.onnx", venv)

    def installed(*line: str) -> list[str]:
        done = make(*line)
        assert done.returncode == 0, done.stderr
        return re.findall(r"installing the packages of (\S+) into", done.stdout)

    assert installed(*cutout) == ["requirements-onnx.txt"]
    assert installed(*cutout) == []
    assert installed("cutout", "PHOTOS=a", venv) == ["requirements.txt"]
    assert installed(*cutout) == [], "all packages are there"
    assert installed("setup", venv) == []
    for stamp in tmp_path.glob(".installed-*"):
        stamp.rename(tmp_path / ".installed-1")  # the packages of another version of this project
    assert installed(*cutout) == ["requirements-onnx.txt"]
    assert not (tmp_path / ".installed-1").exists(), "pip has replaced some of them"
    assert installed("setup", venv) == ["requirements.txt"]
    assert "-r requirements-onnx.txt" in make("-n", *cutout[:3], "VENV=none").stdout


def test_a_failed_look_at_the_packages_ends_make(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$2" = competition.packages ] && exit 1\necho "$@"\n')
    python.chmod(0o755)
    done = make("cv", "SYSTEM=1", f"PYTHON={python}")
    assert (done.returncode, done.stdout.count("inference.cv")) == (2, 0)


def test_hours_count_from_the_start_of_make_for_all_targets(tmp_path: Path) -> None:
    venv = fake_venv(tmp_path, 'echo "since $CARVANA_STARTED"; sleep 0.01')
    since = re.findall(r"since (\d+)", make("cv", "predict", "HOURS=1", venv).stdout)
    assert len(since) == 2
    assert len(set(since)) == 1
    assert "since 5\n" in make("train", "HOURS=1", venv, CARVANA_STARTED="5").stdout


def test_ctrl_c_in_the_second_command_ends_make_as_a_shell_expects(tmp_path: Path) -> None:
    """The terminal signals the whole group. make dies by the signal, which a shell reports as status 130.

    The command ends a moment later, as ours do: make 4.3 fails with status 2 if it hears of both at once.
    """
    act = 'echo "$2"; [ "$2" = inference.cv ] && exit; trap "" INT; kill -INT 0; sleep 1; exit 130'
    venv = fake_venv(tmp_path, act)
    make("setup", venv)
    command = ["bash", "-c", f"make --no-print-directory cv predict report {venv}"]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, start_new_session=True
    )
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "inference.cv\ninference.predict\n"), done.stderr


@pytest.mark.parametrize(
    ("target", "status"), [("help", 0), ("settings", 0), ("folds", 0), ("submissions", 0), ("check", 2), ("train", 2)]
)
def test_a_closed_output_is_no_error_of_a_target_that_only_lists(tmp_path: Path, target: str, status: int) -> None:
    venv = fake_venv(tmp_path, "exit 141")
    make("setup", venv)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        ["make", "--no-print-directory", target, venv],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, bool(done.stderr)) == (status, status != 0)


@pytest.mark.parametrize("name", ["a b", ""])
def test_run_is_one_word(name: str) -> None:
    done = make("-n", "cv", f"RUN={name}")
    assert done.returncode == 2
    assert f'RUN="{name}" must be the name of one run, without spaces; for several runs use RUNS="a b"' in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("given", ["FLOD=1", "fold=1", 'RNU=it\'s "$(error no)" $x', "FLOD:=1"])
def test_unknown_variable(given: str) -> None:
    done = make("-n", "train", given, "SET=a.b='$x y'", 'DATA=$(none) "')
    assert done.returncode == 2
    name = given.partition("=")[0].rstrip(":")
    assert f"make train takes no variable {name}, only DATA DEVICE FOLD " in done.stderr
    assert not done.stdout


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
def test_variable_of_make_or_environment_is_no_error(given: list[str], environment: dict[str, str]) -> None:
    done = make("-n", "train", *given, **environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_some_target_takes_every_variable() -> None:
    # A recipe finds DEVICE in its environment.
    own = set(re.findall(r"^([A-Z_]+) :?= ", MAKEFILE, flags=re.MULTILINE))
    read = set(re.findall(r"(?:\$\(|call (?:text|list|switch),|value )([A-Z_]+)[,)]", MAKEFILE))
    lists = re.findall(r"^\$\(call takes,.*,(.*)\)", MAKEFILE, re.MULTILINE)
    taken = {name for names in lists for name in names.split()} | {"PIP_OPTIONS", "PYTHON", "VENV"}
    assert read - own - {"MAKELEVEL", "MAKECMDGOALS", "HOME", "MODULE", "LISTED"} == taken - {"BENCHMARKS", "DEVICE"}


def test_help_lists_every_target_and_variable() -> None:
    listed = make("help").stdout
    phony = re.search(r"^TARGETS := ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert phony is not None
    for target in phony[1].replace("\\\n", " ").split():
        assert re.search(rf"^  {target} ", listed, re.MULTILINE), target
    assert {"DATA", "RUN", "RUNS", "SET", "PIP_OPTIONS"} <= set(re.findall(r"[A-Z_]{3,}", listed))


@pytest.mark.parametrize("version", ["missing", "Python 3.8.1"])
def test_python_that_is_missing_or_old(tmp_path: Path, version: str) -> None:
    python = tmp_path / "some-python"
    if version != "missing":
        python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit 0\nexit 1\n')
        python.chmod(0o755)
    done = make("setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert f"error: Python 3.11 or newer is needed, and {python} is {version}; install it" in done.stderr
    assert not (tmp_path / "venv").exists()
