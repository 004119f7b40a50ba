"""Time and memory of cutting out many photos, and again with kills: the pictures must be equal.

The many photos are small, so that what is done for each photo dominates, and the network is small and trained for a
minute. The time of each stage is that of photos at full size.
"""

import filecmp
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.material import data_folder, first, link_photos, made_up_names
from benchmarks.measure import Target, in_turns, medians, print_rows, report
from benchmarks.scale import SMALL, make_data
from benchmarks.watch import Watched, watch
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, photo_at
from competition.photo import Photo
from competition.run.folder import RunFolder, run_at
from competition.settings.resolve import load_settings
from folds.device import pick_device
from inference.cutouts.manifest import NAME
from inference.cutouts.picture import png
from inference.cutouts.rendering import Renderer
from inference.engine.trained_model import TrainedModel
from inference.trained import trained_folds

SMALL_PHOTO = (480, 320)  # width, height
KINDS_OF_PHOTO = 64  # different small photos; the others are links to them
EARLY = 100  # images; the memory after so many is compared with that at the end
LARGE = 4  # photos at full size whose stages are timed
ENGINES = ("torch", "onnxruntime")


def make_photos(photos: Sequence[Photo], count: int, folder: Path) -> None:
    """Small copies of photos under many names."""
    small = folder.with_name("different")
    small.mkdir()
    for photo in first(photos, KINDS_OF_PHOTO):
        reduced = cv2.resize(photo.read(), SMALL_PHOTO, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(small / photo.img), cv2.cvtColor(reduced, cv2.COLOR_RGB2BGR))
    link_photos(made_up_names(count), [photo_at(path) for path in sorted(small.iterdir())], folder)


def cut_out(photos: Path, run: RunFolder, out: Path, engine: str, kill_at: int | None = None) -> Watched:
    """Run ``make cutout`` under observation; its size is the number of finished pictures."""

    def finished() -> int:
        return sum(path.suffix == ".png" for path in out.iterdir()) if out.is_dir() else 0

    how = ["--set", f"inference.engine={engine}", "inference.tta=[identity]"]
    return watch("inference.cutout", photos, "--run", run.root, "--out", out, *how, disk=finished, kill_at=kill_at)


def require_identical(one: Path, two: Path) -> None:
    """Raise a Failure if two folders of cut-outs differ, or the lists of their pictures."""
    names = [path.name for path in one.iterdir() if path.suffix == ".png"] + [NAME]
    same, _, _ = filecmp.cmpfiles(one, two, names, shallow=False)
    if len(same) != len(names) or len(list(two.iterdir())) != len(list(one.iterdir())):
        raise Failure(f"{len(names) - len(same)} files differ between the calls with kills and the one without")


def measure(photos: Path, run: RunFolder, engine: str, kills: Sequence[int], folder: Path) -> dict[str, Any]:
    """Cut out the photos in a folder, and again with kills.

    Args:
        photos: the folder.
        run: trained.
        engine: what computes the networks.
        kills: numbers of pictures; when so many are there, the command is killed.
        folder: for the pictures.
    """
    count = len(list(photos.iterdir()))
    whole = cut_out(photos, run, folder / "whole", engine)
    attempts = [cut_out(photos, run, folder / "killed", engine, kill_at) for kill_at in kills]
    if kills:
        cut_out(photos, run, folder / "killed", engine)
        require_identical(folder / "whole", folder / "killed")
    return {
        "engine": engine,
        "seconds": whole.seconds,
        "images_per_second": count / whole.seconds,
        "memory_mb": {str(number): whole.memory_mb_of(number) for number in (EARLY, count)},
        "peak_mb": whole.peak_mb,
        "killed": sum(attempt.killed for attempt in attempts),
        "identical": bool(kills) or None,
    }


def stages(photos: Sequence[Photo], model: TrainedModel, repeats: int) -> dict[str, float]:
    """CPU milliseconds of each stage of a photo at full size, the median over repetitions."""
    frame = model.frame
    images = [frame.read(photo) for photo in photos]
    pixels = [photo.read() for photo in photos]
    levels = [
        frame.full_size(model.levels(image[None])[0], photo.shape)
        for image, photo in zip(images, photos, strict=True)
    ]

    def renderers() -> list[Renderer]:
        return [Renderer(*each, model.threshold) for each in zip(pixels, levels, strict=True)]

    ready = renderers()
    pictures = [renderer.render("rgba") for renderer in ready]

    def clean(renderer: Renderer) -> None:
        renderer.__dict__.pop("colours", None)
        _ = renderer.colours

    def each(work: Callable[..., object], items: Sequence[Any]) -> Callable[[], object]:
        return lambda: [work(item) for item in items]

    ways: dict[str, Callable[[], object]] = {
        "decode for the network": each(frame.read, photos),
        "network": each(lambda image: model.levels(image[None]), images),
        "decode at full size": each(Photo.read, photos),
        "opacity": lambda: [renderer.alpha for renderer in renderers()],
        "clean the colours": each(clean, ready),
        "encode the PNG": each(partial(png, profile=None), pictures),
    }
    seconds = medians(in_turns(ways, repeats, clock=time.process_time))
    return {name: 1000 * value / len(photos) for name, value in seconds.items()}


def train(data: DataFolder, folder: Path) -> RunFolder:
    """A run with a small network, trained for a minute."""
    make_data(data, made_up_names(16), folder / "data")
    run = RunFolder(folder / "runs" / "small")
    train = ["--all", "--run", run.root, "--data", folder / "data", "--preset", "demo", "--set", *SMALL]
    watch("folds.train", *train, threads=1)  # the network is too small for several threads
    return run


def targets_of(found: dict[str, Any], count: int) -> list[Target]:
    """Memory does not grow with the number of photos."""
    early, late = found["memory_mb"].values()
    name = f"memory at image {count:,} / at {EARLY}, {found['engine']}"
    return [Target(name, late / early, 1.05, at_most=True)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Cut out many small photos, with and without kills; time the stages of a large photo.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--run", help="a trained run; by default a small network is trained")
    arguments.add_argument("--images", type=int, default=1000, help="number of small photos")
    arguments.add_argument("--kills", type=int, default=2, help="kills of a second call; 0: none")
    arguments.add_argument(
        "--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="compute the networks"
    )
    arguments.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    arguments.add_argument("--repeats", type=int, default=3, help="repetitions of the measurement of the stages")
    options = arguments.parse_args(argv)
    data, count = data_folder(options.data), options.images
    kills = sorted(np.random.default_rng(options.seed).integers(1, count, options.kills).tolist())
    found, targets = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = run_at(options.run) if options.run else train(data, folder)
        make_photos(data.train, count, folder / "photos")
        for engine in options.engines:
            found.append(measure(folder / "photos", run, engine, kills, folder / engine))
            rows = {f"memory at image {each}": memory for each, memory in found[-1]["memory_mb"].items()}
            print_rows(f"{count:,} small photos, {engine}", rows | {"peak": found[-1]["peak_mb"]}, "MB", 0)
            print(f"  {found[-1]['images_per_second']:.1f} images/s, {found[-1]['seconds']:.1f} s")
            print(f"  killed {found[-1]['killed']} times: the same files" if kills else "  not killed")
            targets += targets_of(found[-1], count)
        photos = first(data.train, LARGE)
        model = trained_folds(run, load_settings(run.settings), pick_device()).load()
        times = stages(photos, model, options.repeats)
    print_rows(f"stages of a photo of {photos[0].shape[1]} x {photos[0].shape[0]}", times, "ms of CPU", 1)
    report("cutouts", {"images": count, "engines": found, "stages_ms": times}, targets)


if __name__ == "__main__":
    run_command(main)
