"""The time to score 5,088 out-of-fold masks and to validate a submission of 100,064 rows.

The out-of-fold masks are the true ones, shifted by a few pixels.
"""

import tempfile
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.material import codes_of, data_folder, link, link_photos, made_up_names, rows
from benchmarks.measure import Target, print_rows, report
from benchmarks.watch import watch
from competition import metrics, rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.mask_table import read_rows
from competition.photo import Photo
from competition.rle import Shape
from inference.score import score_file
from submissions import submission_file

FOLDS = 5
CHECKED = 8  # rows whose Dice is checked against the pixels


def shifted(code: str, shape: Shape, pixels: int) -> str:
    """The RLE of a mask shifted to the right; pixels that leave the image are cut off."""
    spans = rle.parse(code, shape) + pixels
    spans = spans[spans[:, 0] < shape[0] * shape[1]]
    return rle.to_text(spans.clip(max=shape[0] * shape[1]))


def make_training_set(data: DataFolder, count: int, root: Path) -> DataFolder:
    """A training set of this many names; photos, masks and RLEs are reused."""
    names = made_up_names(count)
    link_photos(names, data.train, root / "train")
    (root / "train_masks").mkdir()
    codes = {row.img: row.rle for row in read_rows(data.masks_csv)}
    for name, photo in zip(names, cycle(data.train), strict=False):
        file = data.mask_file(photo)
        if file is not None:
            link(file, root / "train_masks" / f"{Path(name).stem}_mask{file.suffix}")
    ordered = [codes[photo.img] for photo in data.train]
    submission_file.write(root / "train_masks.csv", rows(names, ordered))
    return DataFolder(root)


def write_out_of_fold(file: Path, data: DataFolder) -> None:
    """Write every mask shifted by one to five pixels."""
    shape = data.train[0].shape
    true = read_rows(data.masks_csv)
    submission_file.write(file, ((row.img, shifted(row.rle, shape, 1 + row.line % 5)) for row in true))


def by_fold(photos: Sequence[Photo]) -> dict[int, list[Photo]]:
    """Assign whole cars to folds in turn."""
    cars = sorted({photo.car for photo in photos})
    fold_of = {car: number % FOLDS for number, car in enumerate(cars)}
    folds: dict[int, list[Photo]] = {}
    for photo in photos:
        folds.setdefault(fold_of[photo.car], []).append(photo)
    return folds


def score_out_of_fold(data: DataFolder, count: int, folder: Path) -> dict[str, Any]:
    """Seconds to score an out-of-fold file, including reading the data folder, and the mean Dice."""
    file = folder / "oof.csv.gz"
    write_out_of_fold(file, make_training_set(data, count, folder / "train"))
    start = time.perf_counter()
    fresh = DataFolder(folder / "train")
    scores = score_file(file, fresh, by_fold(fresh.train))
    seconds = time.perf_counter() - start
    require_pixels_agree(file, fresh, dict(zip(scores["img"], scores["dice"], strict=True)))
    return {
        "rows": len(scores),
        "cars": int(scores["car"].nunique()),
        "seconds": seconds,
        "dice": float(scores["dice"].mean()),
    }


def require_pixels_agree(file: Path, data: DataFolder, dice: dict[str, float]) -> None:
    """Raise a Failure if the Dice from the spans differs from the Dice from the pixels."""
    photos = {photo.img: photo for photo in data.train}
    for row, _ in zip(read_rows(file), range(CHECKED), strict=False):
        truth = data.truth(photos[row.img])
        if metrics.dice(rle.decode(row.rle, (truth.shape[0], truth.shape[1])), truth) != dice[row.img]:
            raise Failure(f"the Dice of {row.img} from its spans is not that of its pixels")


def validate_submission(data: DataFolder, count: int, folder: Path) -> dict[str, Any]:
    """Seconds and memory to validate a submission in its own process, and seconds to write it."""
    names, codes = made_up_names(count), codes_of(data)
    named = folder / "named"
    named.mkdir()
    submission_file.write(named / "sample_submission.csv", rows(names, ["1 1"]))
    # Without photos the validator assumes the size of Carvana's.
    if data.train[0].shape != (1280, 1918):
        link_photos(names, data.train, named / "test")
    file = folder / "submission.csv.gz"
    start = time.perf_counter()
    submission_file.write(file, rows(names, codes))
    writing = time.perf_counter() - start
    seen = watch("submissions.validate", "--file", file, "--data", named)
    return {
        "rows": count,
        "text_mb": sum(len(code) for _, code in rows(names, codes)) / 1e6,
        "file_mb": file.stat().st_size / 1e6,
        "write_seconds": writing,
        "seconds": seen.seconds,
        "peak_mb": seen.peak_mb,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Time scoring and validation of files of full size.")
    arguments.add_argument("--data", type=Path, help="data folder with train_masks.csv; by default generated cars")
    arguments.add_argument("--training", type=int, default=5088, help="rows of the out-of-fold file")
    arguments.add_argument("--images", type=int, default=100_064, help="rows of the submission")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    with tempfile.TemporaryDirectory() as name:
        scored = score_out_of_fold(data, options.training, Path(name))
        validated = validate_submission(data, options.images, Path(name))
    print_rows("score.score_file of an out-of-fold file", scored, "", digits=4)
    print_rows("submissions.validate of a submission", validated, "")
    targets = [
        Target("seconds to score the training set", scored["seconds"], 5, at_most=True),
        Target("seconds to validate the test set", validated["seconds"], 60, at_most=True),
        Target("peak of the validator's memory, MB", validated["peak_mb"], 500, at_most=True),
    ]
    report("score", {"data": str(data.root), "score": scored, "validate": validated}, targets)


if __name__ == "__main__":
    run_command(main)
