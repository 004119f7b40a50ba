"""The work around the network, on one core, compared with what most public solutions do.

The network is replaced by one that returns the true soft masks, prepared before the measurement.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from benchmarks import usual
from benchmarks.material import data_folder, first, settings_of
from benchmarks.measure import Target, in_turns, median_ratio, print_rows, report
from benchmarks.stand_ins import Replay, true_logits
from competition import metrics, rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.mask_table import read_rows
from competition.photo import Photo
from competition.run.folder import run_at
from competition.settings.schema import Settings
from folds.checkpoint import load_weights
from folds.device import pick_device
from folds.frame import Frame
from folds.split import photos_by_fold
from folds.validation import to_levels
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import level_of
from inference.evaluate import score_photos
from inference.predict import predict_to
from submissions import submission_file

HALF = 0.5
LEVEL = level_of(HALF)
SAME = 0.995  # minimum Dice between our masks and the usual ones: only pixels on the outline may differ
CPU = torch.device("cpu")
Result = TypeVar("Result")


class FullDecode(Frame):
    """A frame that decodes every photo at full size and then resizes by area averaging."""

    def read(self, photo: Photo) -> Pixels:
        """A photo in the frame of the network."""
        if self.fit == "pad":
            return super().read(photo)
        return self._resized(photo.read(), photo.shape, cv2.INTER_AREA)


@contextmanager
def one_core() -> Iterator[None]:
    """Restrict the process to one core and torch to one thread."""
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(before)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)


def replaying(logits: torch.Tensor, settings: Settings) -> Ensemble:
    """An ensemble of one network that returns prepared logits."""
    return Ensemble([Replay(logits)], Frame.of(settings.input), ["identity"], device=CPU, precision="fp32")


def our_path(file: Path, photos: Sequence[Photo], ensemble: Ensemble, settings: Settings) -> None:
    """Photos to a shard of a submission, with the code of this project."""
    predict_to(file, photos, [ensemble], threshold=HALF, settings=settings.inference)


@torch.inference_mode()
def usual_path(file: Path, photos: Sequence[Photo], ensemble: Ensemble, settings: Settings) -> None:
    """Photos to a submission in the usual way, one photo at a time."""
    (network,) = ensemble.networks
    height, width = settings.input.height, settings.input.width
    codes = []
    for photo in photos:
        image = torch.from_numpy(usual.read(photo.path, height, width)).unsqueeze(0)
        probabilities = network(image).sigmoid().numpy()[0, 0]
        codes.append(usual.encode(usual.mask_of(probabilities, photo.shape)))
    usual.write(file, [photo.img for photo in photos], codes)


def compare(
    photos: Sequence[Photo], logits: torch.Tensor, settings: Settings, repeats: int, folder: Path
) -> dict[str, Any]:
    """Images per second of both ways, in wall time and in CPU time, and the Dice between their masks."""
    ours, usuals = folder / "ours.csv.gz", folder / "usual.csv.gz"
    ensemble = replaying(logits, settings)
    (network,) = ensemble.networks
    busy: dict[str, list[float]] = {"ours": [], "usual": []}

    def timed(name: str, path: Callable[..., None], file: Path) -> Callable[[], None]:
        def run() -> None:
            network.next = 0  # type: ignore[attr-defined]
            start = time.process_time()
            path(file, photos, ensemble, settings)
            busy[name].append(time.process_time() - start)

        return run

    ways = {"ours": timed("ours", our_path, ours), "usual": timed("usual", usual_path, usuals)}
    for way in ways.values():  # warm the page cache
        way()
    for seconds in busy.values():
        seconds.clear()
    clock = in_turns(ways, repeats)
    same = agreement(ours, usuals, folder)
    if same < SAME:
        raise Failure(f"the Dice between the masks of both ways is only {same:.4f}; the comparison is meaningless")
    return {
        "images_per_second": {name: len(photos) / statistics.median(each) for name, each in clock.items()},
        "images_per_processor_second": {name: len(photos) / statistics.median(each) for name, each in busy.items()},
        "times_as_fast": median_ratio(clock["usual"], clock["ours"]),
        "agreement": same,
    }


def agreement(shard: Path, usual_file: Path, folder: Path) -> float:
    """Mean Dice between the masks of a shard and of a usual submission."""
    joined = folder / "joined.csv.gz"
    submission_file.join(joined, [shard])
    pairs = zip(read_rows(joined), read_rows(usual_file), strict=True)
    return statistics.fmean(metrics.dice_rle(ours.rle, usual.rle) for ours, usual in pairs)


class Stopwatch:
    """CPU seconds, summed by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[], Result]) -> Result:
        """Run a function and add its CPU time to a name."""
        start = time.process_time()
        result = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start
        return result


def stages(photos: Sequence[Photo], logits: torch.Tensor, settings: Settings, folder: Path) -> dict[str, float]:
    """CPU milliseconds per image of each stage of our path, run one after the other in one thread.

    Works batch by batch, as prediction does: allocating memory for all photos at once would dominate.
    """
    frame = Frame.of(settings.input)
    size = settings.inference.batch_size
    ensemble = replaying(logits, settings)
    watch = Stopwatch()
    decode = Photo.read if frame.fit == "pad" else partial(Photo.read_halved, at_least=(frame.height, frame.width))
    rows: list[tuple[str, str]] = []
    for start in range(0, len(photos), size):
        batch = photos[start : start + size]
        for photo in batch:
            watch.run("read: decode", partial(decode, photo))
        images = [watch.run("read", partial(frame.read, photo)) for photo in batch]
        levels = watch.run("predict: stack, sigmoid, round", partial(levels_of, ensemble, images))
        for photo, soft in zip(batch, levels, strict=True):
            full = watch.run("finish: enlarge", partial(frame.full_size, soft, photo.shape))
            mask = watch.run("finish: threshold", partial(np.greater_equal, full, LEVEL))
            spans = watch.run("finish: find spans", partial(rle.from_mask, mask))
            rows.append((photo.img, watch.run("finish: text", partial(rle.to_text, spans))))
    watch.run("write: csv, gzip", partial(submission_file.write_shard, folder / "stages.csv.gz", rows))
    found = {name: 1000 * seconds / len(photos) for name, seconds in watch.seconds.items()}
    resize = max(0.0, found.pop("read") - found["read: decode"])
    return {"read: decode": found.pop("read: decode"), "read: resize": resize, **found}


def usual_stages(photos: Sequence[Photo], logits: torch.Tensor, settings: Settings, folder: Path) -> dict[str, float]:
    """CPU milliseconds per image of each stage of the usual path."""
    watch = Stopwatch()
    codes = []
    for photo, soft in zip(photos, logits, strict=True):
        watch.run(
            "decode, resize, normalize", partial(usual.read, photo.path, settings.input.height, settings.input.width)
        )
        probabilities = watch.run("sigmoid", soft[0].sigmoid).numpy()
        mask = watch.run("enlarge, threshold", partial(usual.mask_of, probabilities, photo.shape))
        codes.append(watch.run("encode", partial(usual.encode, mask)))
    names = [photo.img for photo in photos]
    watch.run("write: csv, gzip", partial(usual.write, folder / "usual_stages.csv.gz", names, codes))
    return {name: 1000 * seconds / len(photos) for name, seconds in watch.seconds.items()}


def levels_of(ensemble: Ensemble, images: Sequence[Pixels]) -> Pixels:
    """The levels that an ensemble predicts for a batch, (N, h, w) uint8."""
    levels: Pixels = to_levels(ensemble.probabilities(torch.from_numpy(np.stack(images)))).numpy()
    return levels


def reading(photos: Sequence[Photo], settings: Settings, repeats: int) -> dict[str, float]:
    """Decoding at half size compared with full size: milliseconds, and the difference of the pixels."""
    frame, full = Frame.of(settings.input), FullDecode.of(settings.input)
    pairs = [(frame.read(photo), full.read(photo)) for photo in photos]
    differences = [np.abs(one.astype(np.int16) - other).mean() for one, other in pairs]
    ways = {
        "reduced": lambda: [frame.read(photo) for photo in photos],
        "in full": lambda: [full.read(photo) for photo in photos],
    }
    seconds = in_turns(ways, repeats, time.process_time)
    found = {f"decoded {name}, ms": 1000 * statistics.median(each) / len(photos) for name, each in seconds.items()}
    return found | {"mean absolute difference, levels of 255": float(np.mean(differences))}


def reading_dice(run_name: str, data: DataFolder, fold: int) -> dict[str, float]:
    """The Dice of a trained fold on its held-out photos, decoded at half size and at full size."""
    run = run_at(run_name)
    network, settings, _ = load_weights(run.best(fold))
    held_out = photos_by_fold(run.folds, data.train)[fold]
    frames = {"reduced": Frame.of(settings.input), "in full": FullDecode.of(settings.input)}
    chosen = settings.inference
    dice = {}
    for name, frame in frames.items():
        ensemble = Ensemble([network], frame, chosen.tta, device=pick_device(), precision=chosen.precision)
        scores = score_photos(held_out, [ensemble], data, chosen, HALF)
        dice[f"Dice of fold {fold}, decoded {name}"] = scores.dice
    return dice


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Time the work around the network on one core.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--run", help="a trained run: compare its Dice with photos decoded at full size")
    arguments.add_argument("--fold", type=int, default=0, help="fold of that run")
    arguments.add_argument("--preset", default="scratch", help="preset that defines the input size")
    arguments.add_argument("--images", type=int, default=64, help="number of photos")
    arguments.add_argument("--repeats", type=int, default=5, help="number of repetitions")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    photos = first(data.train, options.images)
    settings = settings_of(options.preset)
    logits = true_logits(photos, data, Frame.of(settings.input))
    size = f"{settings.input.width} x {settings.input.height}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with one_core():
            found = compare(photos, logits, settings, options.repeats, folder)
            parts = stages(photos, logits, settings, folder)
            usual_parts = usual_stages(photos, logits, settings, folder)
            ways = reading(photos, settings, options.repeats)
    if options.run:
        ways |= reading_dice(options.run, data, options.fold)
    print_rows(
        f"{len(photos)} photos, input {size}, one core; images per second", found["images_per_second"], "images/s"
    )
    print_rows("by CPU time", found["images_per_processor_second"], "images/s")
    print_rows("our stages, CPU time per image", parts, "ms")
    print_rows("the usual stages, CPU time per image", usual_parts, "ms")
    print_rows("reading a photo", ways, "", digits=5)
    targets = [
        Target("ours / usual, images per second", found["times_as_fast"], 6),
        Target("ours, images per second on one core", found["images_per_second"]["ours"], 80),
    ]
    result = {
        "data": str(data.root),
        "images": len(photos),
        "input": size,
        **found,
        "stages": parts,
        "usual_stages": usual_parts,
        "reading": ways,
    }
    report("host_path", result, targets)


if __name__ == "__main__":
    run_command(main)
