"""The time of a score that tunes member weights and the threshold: with kept levels, and predicting again.

Without kept levels the networks predict every image three times: to measure the weights, for the masks of the chosen
weights, and for those of the chosen threshold. Here both choices are used even if they gain nothing.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.material import data_folder
from benchmarks.measure import Target, median_ratio, medians, print_rows, report
from competition.command import Failure, parser, run_command
from competition.run.folder import RunFolder
from competition.run.records import CV
from folds.train import main as train
from inference.cv import kept_levels, tuning
from inference.engine.ensemble import Ensemble
from inference.score import main as score

WIDTHS = (8, 16)  # of the two networks
KEPT, AGAIN = "kept levels", "predicting again"


def train_members(data: Path, preset: str, folder: Path) -> list[Path]:
    """Train two small networks for one epoch, with two folds; returns the folders of their runs."""
    runs = [folder / f"width{width}" for width in WIDTHS]
    for run, width in zip(runs, WIDTHS, strict=True):
        made = ["split.folds=2", f"network.width={width}", "train.epochs=1", "train.workers=0"]
        with redirect_stdout(StringIO()):
            train(["--all", "--run", str(run), "--data", str(data), "--preset", preset, "--set", *made])
    return runs


@contextmanager
def counted() -> Iterator[list[int]]:
    """The number of predictions, images times networks, of each batch that an ensemble predicts."""
    batches: list[int] = []
    predict = Ensemble.predict

    def counting(self: Ensemble, images: Any, **options: Any) -> Any:
        batches.append(len(images) * len(self))
        return predict(self, images, **options)

    with mock.patch.object(Ensemble, "predict", counting):
        yield batches


def score_again(runs: Sequence[Path], data: Path, combined: RunFolder, keep: bool) -> tuple[float, float, int]:
    """Score runs from the beginning; returns the seconds, the seconds of CPU, and the images that were predicted."""
    combined.cv.unlink(missing_ok=True)
    start, cpu = time.perf_counter(), time.process_time()
    call = ["--runs", *map(str, runs), "--run", str(combined.root), "--data", str(data)]
    with (
        counted() as batches,
        mock.patch.object(kept_levels, "is_room", lambda _folder: keep),
        mock.patch.object(tuning, "SMALLEST_GAIN", -1.0),
        redirect_stdout(StringIO()),
    ):
        score(call)
    if combined.oof_shards.exists():
        raise Failure(f"{combined.oof_shards} is left over")
    return time.perf_counter() - start, time.process_time() - cpu, sum(batches)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Time a score with tuned weights and threshold: with kept levels, and predicting again.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--preset", default="demo", help="of the two networks that are trained for it")
    arguments.add_argument("--repeats", type=int, default=3)
    options = arguments.parse_args(argv)
    data = data_folder(options.data).root
    found: dict[str, list[tuple[float, float, int]]] = {KEPT: [], AGAIN: []}
    with tempfile.TemporaryDirectory() as name:
        runs, combined = train_members(data, options.preset, Path(name)), RunFolder(Path(name) / "both")
        masks = set()
        for _ in range(options.repeats):
            for way, each in found.items():
                each.append(score_again(runs, data, combined, keep=way == KEPT))
                masks.add(combined.oof.read_bytes())
        images = CV.read(combined.cv).images
    if len(masks) > 1:
        raise Failure("the masks from kept levels are not those of predicting again")
    wall, cpu = ({way: [row[column] for row in each] for way, each in found.items()} for column in (0, 1))
    passes = {way: each[0][2] / images / len(runs) for way, each in found.items()}
    print_rows(f"a score of {images} images with tuned weights and threshold", medians(wall), "seconds")
    print_rows("CPU time", medians(cpu), "seconds")
    print_rows("predictions of each image by each network", passes, "", digits=0)
    targets = [
        Target("predictions of each image, with kept levels", passes[KEPT], 1, at_most=True),
        Target("times as fast as predicting again", median_ratio(wall[AGAIN], wall[KEPT]), 1),
        Target("the same, in CPU time", median_ratio(cpu[AGAIN], cpu[KEPT]), 1),
    ]
    report("tuned", {"images": images, "seconds": wall, "cpu_seconds": cpu, "passes": passes}, targets)


if __name__ == "__main__":
    run_command(main)
