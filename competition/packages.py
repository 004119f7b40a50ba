"""``make SYSTEM=1 ...``: are the packages of this Python recent enough? Imports only Python's own library.

The oldest versions that work are the dependencies in pyproject.toml. requirements.txt has the versions that the
published scores were made with.
"""

import re
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from competition.command import Failure, parser, run_command

ROOT = Path(__file__).parent.parent
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)[>=]=(?P<version>[\d.]+)")
# Each of these distributions contains the package cv2.
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
# What an exported model runs with.
WITHOUT_TORCH = ("numpy", "opencv-python-headless", "pillow", "onnxruntime")


def oldest() -> dict[str, str]:
    """The oldest version of each package that works."""
    return dict(_parsed(_project()["dependencies"]))


def oldest_without_torch() -> dict[str, str]:
    """The same for the packages that an exported model runs with."""
    every = oldest() | dict(_parsed(_project()["optional-dependencies"]["onnx"]))
    return {name: every[name] for name in WITHOUT_TORCH}


def project_version() -> str:
    """The version of this project."""
    return str(_project()["version"])


def pinned() -> dict[str, str]:
    """The version of each package in requirements.txt."""
    return dict(_parsed((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()))


def installed(package: str) -> tuple[str, str | None]:
    """The distribution that provides a package, and its version; None if it is not installed."""
    found = []
    for name in OPENCV if package in OPENCV else [package]:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return max(found, key=lambda one: numbers(one[1]), default=(package, None))


def numbers(text: str) -> tuple[int, ...]:
    """The release of a version as numbers, without zeros at its end: "2.10.0+cu124" is (2, 10)."""
    release = re.match(r"[\d.]*", text)
    found = [int(number) for number in re.findall(r"\d+", release[0])] if release else []
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def require_packages(bounds: Mapping[str, str]) -> list[str]:
    """Raise a Failure that names all missing and too old packages; returns those of a newer major version.

    Args:
        bounds: the oldest version of each package.
    """
    pins = pinned()
    missing, old, newer, wanted = [], [], [], []
    for package, bound in bounds.items():
        name, now = installed(package)
        if now is None:
            missing.append(name)
        elif numbers(now) < numbers(bound):
            old.append(f"{name} {now} ({bound} or newer is needed)")
        elif package in pins and numbers(now)[:1] > numbers(pins[package])[:1]:
            newer.append(f"{name} {now} (tested: {pins[package]})")
        if now is None or numbers(now) < numbers(bound):
            wanted.append(f"{name}>={bound}")
    if wanted:
        problems = [
            f"{kind}: {', '.join(names)}" for kind, names in (("missing", missing), ("too old", old)) if names
        ]
        command = shlex.join([sys.executable, "-m", "pip", "install", *wanted])
        raise Failure(f"packages of {sys.executable} are {'; '.join(problems)}; install them: {command}")
    return newer


def _project() -> dict[str, Any]:
    """The section "project" of pyproject.toml."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _parsed(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if match := REQUIREMENT.match(line):
            yield match["name"], match["version"]


def main() -> None:
    """Check the packages of this Python."""
    arguments = parser("Check that this Python has the packages that the pipeline needs.")
    arguments.add_argument("--without-torch", action="store_true", help="only those that an exported model needs")
    options = arguments.parse_args()
    newer = require_packages(oldest_without_torch() if options.without_torch else oldest())
    if newer:
        print(f"note: newer than tested: {', '.join(newer)}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
