"""The time and memory that validating a whole Carvana submission takes: ``python -m benchmarks.validate``."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil

from competition import atomic, rle
from competition.command import parser, run_command
from submissions import submission_file
from submissions.validate import CARVANA

RESULTS = Path("benchmarks/results/validate.json")
RUNS = 764  # of a real mask, on average


def outline(random: np.random.Generator) -> str:
    """The code of a mask with as many runs as a real one has, one a row, each about 800 pixels long."""
    rows = np.arange(RUNS) + 200
    middle = 960 + np.cumsum(random.integers(-2, 3, RUNS))
    half = 400 + np.cumsum(random.integers(-1, 2, RUNS))
    start = rows * CARVANA[1] + middle - half
    return rle.to_text(np.stack([start, start + 2 * half], axis=1))


def codes_of(data: Path | None) -> list[str]:
    """Different masks: those of train_masks.csv where there is one, else a thousand drawn ones."""
    table = data / "train_masks.csv" if data else None
    if table and table.is_file():
        return [code for _, _, code in submission_file.read(table)][:1000]
    random = np.random.default_rng(1)
    return [outline(random) for _ in range(1000)]


def rows(count: int, codes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Rows of 16 views a car; the masks serve again and again."""
    return ((f"{image // 16:012x}_{image % 16 + 1:02d}.jpg", codes[image % len(codes)]) for image in range(count))


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and the largest resident memory, MB, of a command."""
    start, peak = time.perf_counter(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} failed")
    return time.perf_counter() - start, peak / 1e6


def main() -> None:
    """Write a submission, validate it, print a table."""
    arguments = parser("Measure the validation of a submission.")
    arguments.add_argument("--images", type=int, default=100_064)
    arguments.add_argument("--data", type=Path, help="data folder whose train_masks.csv has the masks; else drawn")
    options = arguments.parse_args()
    count, codes = options.images, codes_of(options.data)
    with tempfile.TemporaryDirectory() as folder:
        data, file = Path(folder), Path(folder) / "submission.csv.gz"
        submission_file.write(data / "sample_submission.csv", ((img, "1 1") for img, _ in rows(count, codes)))
        start = time.perf_counter()
        submission_file.write(file, rows(count, codes))
        writing = time.perf_counter() - start
        validate = [sys.executable, "-m", "submissions.validate", "--file", str(file), "--data", str(data)]
        seconds, peak = measured(validate)
        size = file.stat().st_size / 1e6
    result = {
        "images": count,
        "file_mb": round(size, 1),
        "write_seconds": round(writing, 1),
        "validate_seconds": round(seconds, 1),
        "images_per_second": round(count / seconds),
        "peak_mb": round(peak),
    }
    for name, value in result.items():
        print(f"{name:20}{value:>12,}")
    atomic.write_json(RESULTS, result)


if __name__ == "__main__":
    run_command(main)
