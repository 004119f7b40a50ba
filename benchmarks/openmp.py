"""Images per second of one training, and of two trainings side by side, for several OpenMP wait policies.

A thread that waits for others either spins or sleeps. If there are more threads than cores, spinning threads take the
cores from the threads they wait for.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.material import data_folder
from benchmarks.measure import print_rows, report
from competition.command import Failure, parser, run_command
from competition.cores import usable_cores
from competition.run.folder import RunFolder
from competition.run.records import read_history

# GOMP_SPINCOUNT has priority over OMP_WAIT_POLICY, which the project sets to PASSIVE.
POLICIES: Mapping[str, Mapping[str, str]] = {
    "spin (GOMP_SPINCOUNT=300000, libgomp's default)": {"GOMP_SPINCOUNT": "300000"},
    "spin briefly (GOMP_SPINCOUNT=1000)": {"GOMP_SPINCOUNT": "1000"},
    "sleep (OMP_WAIT_POLICY=PASSIVE)": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def train(data: Path, folder: Path, policy: Mapping[str, str], processes: int, threads: int) -> float:
    """Train fold 0 of preset ``demo`` for one epoch in several processes; returns their mean images per second."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **policy}
    runs = [RunFolder(folder / f"run{number}") for number in range(processes)]
    options = ["--fold", "0", "--data", str(data), "--preset", "demo", "--epochs", "1", "--set", "split.folds=2"]
    commands = [[sys.executable, "-m", "folds.train", "--run", str(run.root), *options] for run in runs]
    started = [subprocess.Popen(each, env=environment, stdout=subprocess.DEVNULL) for each in commands]
    statuses = [process.wait() for process in started]
    if any(statuses):
        raise Failure("a training failed; its error is above")
    return sum(read_history(run.history(0))[-1].images_per_second for run in runs) / processes


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Time one training and two trainings side by side, for several OpenMP wait policies.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--threads", type=int, default=usable_cores(), help="per process")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    result: dict[str, dict[str, float]] = {}
    for processes in (1, 2):
        title = f"{processes} training{'s' if processes > 1 else ''} of {options.threads} threads each"
        result[title] = {}
        for name, policy in POLICIES.items():
            with tempfile.TemporaryDirectory() as folder:
                result[title][name] = train(data.root, Path(folder), policy, processes, options.threads)
        print_rows(f"{title}; images per second of each", result[title], "images/s", digits=1)
    report("openmp", result, [])


if __name__ == "__main__":
    run_command(main)
