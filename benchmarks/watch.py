"""Run a command and sample its memory and its disk usage; optionally kill it after some time."""

import fnmatch
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from competition.command import Failure

INTERVAL = 0.05  # seconds between two samples


@dataclass
class Watched:
    """Measurements of a command."""

    seconds: float = 0.0
    killed: bool = False
    memory: list[int] = field(default_factory=list)  # resident bytes of each sample
    disk: list[int] = field(default_factory=list)  # bytes on disk of each sample

    def memory_mb_at(self, part: float) -> float:
        """Resident memory after a part of the time, in [0, 1]."""
        return self.memory[min(len(self.memory) - 1, int(part * len(self.memory)))] / 1e6 if self.memory else 0.0

    def memory_mb_of(self, size: int) -> float:
        """Resident memory when ``disk`` had first returned a size; at the end if it never did."""
        reached = (memory for memory, disk in zip(self.memory, self.disk, strict=False) if disk >= size)
        return next(reached, self.memory[-1]) / 1e6

    @property
    def peak_mb(self) -> float:
        """The largest resident memory of a sample."""
        return max(self.memory, default=0) / 1e6


def nothing() -> int:
    """The default of ``disk``: no files are measured."""
    return 0


def watch(
    module: str,
    *arguments: object,
    disk: Callable[[], int] = nothing,
    kill_after: float | None = None,
    kill_at: int | None = None,
    threads: int | None = None,
) -> Watched:
    """Run ``python -m MODULE ARGUMENTS`` to its end, or until it is killed.

    Args:
        module: a module of this project.
        arguments: its command line.
        disk: returns the bytes on disk, or another size that grows.
        kill_after: seconds until SIGKILL; None does not kill.
        kill_at: SIGKILL when ``disk`` returns so much; None does not kill.
        threads: OpenMP threads; None keeps the default.
    """
    seen, start = Watched(), time.perf_counter()
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            late = kill_after is not None and time.perf_counter() - start >= kill_after
            if late or (kill_at is not None and seen.disk and seen.disk[-1] >= kill_at):
                process.send_signal(signal.SIGKILL)
                break
            try:
                seen.memory.append(process.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            seen.disk.append(disk())
            time.sleep(INTERVAL)
        status = process.wait()
        seen.seconds = time.perf_counter() - start
        seen.killed = status == -signal.SIGKILL and (kill_after, kill_at) != (None, None)
        if status and not seen.killed:
            output.seek(0)
            lines = output.read().split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "no output")
            raise Failure(f"python -m {module} failed: {last}")
    seen.memory = [sample for sample in seen.memory if sample]
    return seen


def bytes_in(folder: Path, pattern: str = "*") -> int:
    """The current size of all matching files in a folder and its subfolders, in bytes."""
    total = 0
    for inner, _, names in os.walk(folder):  # skips folders that are removed meanwhile
        for name in fnmatch.filter(names, pattern):
            try:
                total += (Path(inner) / name).stat().st_size
            except FileNotFoundError:  # renamed or removed
                continue
    return total
