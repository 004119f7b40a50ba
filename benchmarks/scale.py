"""Time, memory and disk of predicting the whole test set, and again with kills: the bytes must be equal.

Every name is a link to one of the available photos. The network is small and trained for a minute, so that the rest
of the prediction dominates, from listing the folder to the finished file.
"""

import filecmp
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.material import data_folder, full_names, link, link_photos
from benchmarks.measure import Target, print_rows, report
from benchmarks.watch import Watched, bytes_in, watch
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.mask_table import read_rows
from competition.run.folder import RunFolder
from folds.train import main as train
from submissions import submission_file

CARS = 4  # for training the small network
SMALL = [
    "split.folds=2",
    "input={height: 128, width: 192}",
    "network={width: 8, depth: 3, stem: 4}",
    "train={epochs: 24, batch_size: 8, lr: 0.01, ema: 0.9, cache: true, workers: 0, validate_every: 24}",
    "inference.tta=[identity]",
]


def make_data(data: DataFolder, names: Sequence[str], root: Path) -> None:
    """A data folder with all names in its test set and a few training cars."""
    link_photos(names, data.test, root / "test")
    submission_file.write(root / "sample_submission.csv", ((name, "1 1") for name in names))
    cars = sorted({photo.car for photo in data.train})[:CARS]
    (root / "train").mkdir()
    for photo in data.train:
        if photo.car in cars:
            link(photo.path, root / "train" / photo.img)
    link(data.masks_csv, root / "train_masks.csv")


def predict(run: RunFolder, kill_after: float | None = None) -> Watched:
    """Run ``make predict`` under observation."""

    def disk() -> int:
        return bytes_in(run.root, "*.csv.gz*")

    return watch("inference.predict", "--run", run.root, disk=disk, kill_after=kill_after)


def predict_with_kills(run: RunFolder, seconds: float, kills: int, seed: int) -> dict[str, Any]:
    """Predict, killed several times at random moments, then to the end.

    Args:
        run: a run without predictions.
        seconds: duration without kills.
        kills: number of kills.
        seed: of the random moments.
    """
    random = np.random.default_rng(seed)
    moments = [float(seconds * part) for part in random.uniform(0.1, 0.9 / max(1, kills) + 0.1, kills)]
    attempts = [predict(run, kill_after=moment) for moment in moments]
    last = predict(run)
    return {
        "requested": kills,
        "killed": sum(attempt.killed for attempt in attempts),
        "moments": moments,
        "seconds": sum(attempt.seconds for attempt in attempts) + last.seconds,
    }


def scan_seconds(root: Path) -> float:
    """Seconds to list the test set and to read its names."""
    start = time.perf_counter()
    data = DataFolder(root)
    assert len(data.test) == len(data.submission_names)
    return time.perf_counter() - start


def measure(data: DataFolder, names: Sequence[str], kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Create the data and the run, predict, and predict again with kills."""
    root, run, again = folder / "data", RunFolder(folder / "runs" / "whole"), RunFolder(folder / "runs" / "killed")
    make_data(data, names, root)
    arguments = ["--all", "--run", str(run.root), "--data", str(root), "--preset", "demo", "--set", *SMALL]
    torch.set_num_threads(1)  # the network is too small for several threads
    train(arguments)
    shutil.copytree(run.root, again.root)
    whole = predict(run)
    size = run.submission.stat().st_size
    result: dict[str, Any] = {
        "images": len(names),
        "scan_seconds": scan_seconds(root),
        "seconds": whole.seconds,
        "images_per_second": len(names) / whole.seconds,
        "peak_mb": whole.peak_mb,
        "memory_mb": {f"{part} %": whole.memory_mb_at(part / 100) for part in (25, 50, 75, 100)},
        "file_mb": size / 1e6,
        "text_bytes_per_image": text_bytes(run.submission) / len(names),
        "peak_disk_mb": max(whole.disk, default=0) / 1e6,
        "kills": None,
        "identical": None,
    }
    if kills:
        result["kills"] = predict_with_kills(again, whole.seconds, kills, seed)
        result["identical"] = require_identical(run.submission, again.submission)
    return result


def text_bytes(submission: Path) -> int:
    """The total length of all RLEs of a submission."""
    return sum(len(row.rle) for row in read_rows(submission))


def require_identical(first: Path, second: Path) -> bool:
    """Raise a Failure if two files differ."""
    if not filecmp.cmp(first, second, shallow=False):
        raise Failure("the prediction with kills differs from the one without")
    return True


def targets_of(result: dict[str, Any]) -> list[Target]:
    """The targets for memory and disk."""
    memory = result["memory_mb"]
    return [
        Target("peak of the resident memory, MB", result["peak_mb"], 2000, at_most=True),
        Target("memory at the end / after a quarter", memory["100 %"] / memory["25 %"], 1.25, at_most=True),
        Target("peak of the disk / the finished file", result["peak_disk_mb"] / result["file_mb"], 2, at_most=True),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Predict as many images as the test set has, with and without kills.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--images", type=int, default=2000, help="100064 is the whole test set")
    arguments.add_argument("--kills", type=int, default=1, help="kills of a second prediction; 0: none")
    arguments.add_argument("--seed", type=int, default=1, help="seed of the moments of the kills")
    arguments.add_argument("--work", type=Path, help="folder for links and runs, best on DATA's disk")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    names = full_names(data, options.images)
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        result = measure(data, names, options.kills, options.seed, Path(name))
    plain = {name: value for name, value in result.items() if isinstance(value, float)}
    print_rows(f"{len(names):,} images", plain | {f"memory_mb at {k}": v for k, v in result["memory_mb"].items()}, "")
    if result["kills"]:
        print(f"  killed {result['kills']['killed']} times: same bytes, after {result['kills']['seconds']:.1f} s")
    report("scale", {"data": str(data.root), **result}, targets_of(result))


if __name__ == "__main__":
    run_command(main)
