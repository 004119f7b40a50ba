"""The packages of a Python that is not ours, such as a notebook's."""

import subprocess
import sys
from pathlib import Path

import pytest

from competition.packages import installed, numbers, oldest, oldest_without_torch, pinned

ROOT = Path(__file__).parent.parent
NAMES = list(oldest())


def check(folder: Path, versions: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the check in a Python that has only these distributions."""
    for name, version in versions.items():
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    code = f"import sys; sys.path += [{str(folder)!r}, {str(ROOT)!r}]\n"
    code += "from competition.packages import main; from competition.command import run_command; run_command(main)"
    # Without the site packages: the check must run where nothing is installed.
    return subprocess.run(
        [sys.executable, "-S", "-I", "-c", code, *options], capture_output=True, text=True, check=False
    )


def test_the_oldest_versions_pass(tmp_path: Path) -> None:
    done = check(tmp_path, oldest())
    assert (done.returncode, done.stderr) == (0, "")


def test_an_exported_model_needs_few_packages(tmp_path: Path) -> None:
    versions = oldest_without_torch()
    assert versions.keys() == {"numpy", "opencv-python-headless", "pillow", "onnxruntime"}
    done = check(tmp_path, versions, "--without-torch")
    assert (done.returncode, done.stderr) == (0, "")
    assert "are missing: torch, torchvision, " in check(tmp_path, {}).stderr


def test_the_small_requirements_are_those_packages_in_the_tested_versions() -> None:
    lines = (ROOT / "requirements-onnx.txt").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    assert wanted[0] == "-c requirements.txt"
    assert set(wanted[1:]) == oldest_without_torch().keys() <= pinned().keys()


def test_all_problems_are_one_line_with_the_command_that_repairs_them(tmp_path: Path) -> None:
    versions = oldest() | {"numpy": "1.25.2", "torch": "2.5.1+cu121", "opencv-contrib-python": "4.9.0.80"}
    for name in ("timm", "opencv-python-headless"):
        del versions[name]
    done = check(tmp_path, versions)
    python = sys.executable
    assert done.returncode == 1
    assert done.stderr == (
        f"error: packages of {python} are missing: timm; too old: torch 2.5.1+cu121 (2.6 or newer is needed), "
        "numpy 1.25.2 (1.26 or newer is needed), opencv-contrib-python 4.9.0.80 (4.10 or newer is needed); install "
        f"them: {python} -m pip install 'torch>=2.6' 'timm>=1.0.12' 'numpy>=1.26' 'opencv-contrib-python>=4.10'\n"
    )


def test_a_newer_major_version_is_a_note(tmp_path: Path) -> None:
    done = check(tmp_path, oldest() | {"numpy": "99.0"})
    assert (done.returncode, done.stderr) == (
        0,
        f"note: newer than tested: numpy 99.0 (tested: {pinned()['numpy']})\n",
    )


def test_any_distribution_of_opencv_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"opencv-python": "4.12.0.88", "opencv-python-headless": "4.9.0.80"}
    monkeypatch.setattr("competition.packages.OPENCV", tuple(versions))
    monkeypatch.setattr("competition.packages.version", versions.__getitem__)
    assert installed("opencv-python-headless") == ("opencv-python", "4.12.0.88")


@pytest.mark.parametrize(
    ("older", "newer"), [("1.9", "1.10"), ("1.26", "1.26.1"), ("2.6.0a0+git1", "2.6.1"), ("2.6.0+cu124", "2.10.0rc1")]
)
def test_versions_are_compared_by_number(older: str, newer: str) -> None:
    assert numbers(older) < numbers(newer)
    assert numbers("2.6.0+cu124") == numbers("2.6")


def test_the_pins_are_not_below_the_oldest_versions() -> None:
    pins = pinned()
    assert {"torch", "timm", "numpy", "opencv-python-headless"} <= pins.keys()
    assert not [name for name in NAMES if numbers(pins[name]) < numbers(oldest()[name])]
