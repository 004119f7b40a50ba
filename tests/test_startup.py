"""What happens before the imports of a command: an old Python, and Ctrl-C."""

import ast
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from competition.startup import INTERRUPTION, OLDEST_PYTHON

ROOT = Path(__file__).parent.parent
BEFORE_IMPORTS = ["competition/__init__.py", "competition/startup.py", "folds/__init__.py", "inference/__init__.py"]
BEFORE_IMPORTS += ["submissions/__init__.py", "benchmarks/__init__.py"]
COMMANDS = ["competition.check", "folds.train", "inference.predict", "submissions.validate", "benchmarks.rle"]


def start_with(tmp_path: Path, library: str, module: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose import of numpy or torch runs this code instead."""
    for name in ("numpy", "torch"):
        (tmp_path / f"{name}.py").write_text(library)
    return subprocess.run(
        [sys.executable, "-P", "-m", module],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("module", COMMANDS)
def test_ctrl_c_during_imports(tmp_path: Path, module: str) -> None:
    """Also if a library catches every exception."""
    library = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    done = start_with(tmp_path, library, module)
    assert (done.returncode, done.stderr.strip()) == (128 + signal.SIGINT, INTERRUPTION)


def test_a_background_job_ignores_ctrl_c_during_imports(tmp_path: Path) -> None:
    library = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('it went on')\n"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = start_with(tmp_path, library, "competition.check")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stderr.strip()) == (1, "it went on")


def test_error_during_imports_shows_the_traceback(tmp_path: Path) -> None:
    done = start_with(tmp_path, "raise ImportError('a broken installation')", "competition.check")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ImportError: a broken installation" in done.stderr


@pytest.mark.parametrize("package", ["competition", "folds", "inference", "submissions", "benchmarks"])
def test_a_simulated_old_python_gets_one_line(package: str) -> None:
    code = f"import sys\nsys.version_info, sys.version = (3, 10, 4), '3.10.4 (main)'\nimport {package}\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: Python 3.11 or newer is needed, and {sys.executable} is 3.10.4; "
        "run the same command with a newer one, such as python3.12\n"
    )


@pytest.mark.parametrize("version", ["3.6", "3.8", "3.9", "3.10"])
def test_a_real_old_python_gets_one_line(version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no Python {version}")
    done = subprocess.run([python, "-m", "folds.train"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Python 3.11 or newer is needed, and ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", BEFORE_IMPORTS)
def test_an_old_python_can_parse_what_runs_before_the_check(path: str) -> None:
    ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 6))


def test_the_oldest_python_is_that_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}"' in text
    assert f"sys.version_info < {OLDEST_PYTHON}" in (ROOT / "Makefile").read_text()
