"""How benchmarks measure and report: alternating repetitions, medians, and a description of the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from competition import files
from competition.cores import usable_cores
from competition.packages import installed
from competition.run.environment import git_revision

RESULTS = Path("benchmarks/results")
PACKAGES = ("torch", "numpy", "opencv-python-headless", "pandas", "timm")
HOW_TO_GET_PEERS = "`make bench-setup` installs them; then .venv-bench/bin/python -m benchmarks.NAME"

Way = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Target:
    """A figure and its limit."""

    what: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is within its limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        """A line of the table."""
        side = "at most" if self.at_most else "at least"
        return f"{self.what:56}{self.value:10.2f}   {side} {self.limit:g}: {'yes' if self.met else 'NO'}"


def in_turns(ways: Mapping[str, Way], repeats: int, clock: Clock = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of each function. Repetitions alternate, so that a busy machine slows all functions equally.

    Args:
        ways: functions by name.
        repeats: number of repetitions.
        clock: ``time.perf_counter``, or ``time.process_time`` for CPU time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = clock()
            way()
            seconds[name].append(clock() - start)
    return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each function."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def median_ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """The median over repetitions of the ratio of two times; each pair was measured at about the same time."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def peer(package: str) -> str | None:
    """The version of a package to compare with; None, and a hint, if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        print(f"{package} is not installed, so its rows are missing; {HOW_TO_GET_PEERS}")
        return None


def print_rows(title: str, rows: Mapping[str, float], unit: str, digits: int = 2) -> None:
    """Print a table with one figure in each row."""
    print(title)
    for name, value in rows.items():
        print(f"  {name:48}{value:14,.{digits}f} {unit}")


def report(name: str, result: Mapping[str, Any], targets: Sequence[Target]) -> None:
    """Print the targets, and write the result and the machine to benchmarks/results/."""
    for target in targets:
        print(f"  {target}")
    recorded = [asdict(target) | {"met": target.met} for target in targets]
    files.write_json(RESULTS / f"{name}.json", {**result, "targets": recorded, "machine": machine()})


def machine() -> dict[str, Any]:
    """The machine, the package versions and the git revision."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "load": os.getloadavg()[0],
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": _gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": dict(map(installed, PACKAGES)),
        "git": git_revision(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
