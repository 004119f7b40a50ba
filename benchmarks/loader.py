"""The samples a second that a preset's loader prepares against those that its trainer takes:
``python -m benchmarks.loader [--data DATA] [--presets demo cpu]``.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks.material import data_folder, first, settings_of
from benchmarks.measure import Target, in_turns, medians, print_rows, report
from benchmarks.stand_ins import made_up_weights
from competition.command import parser, run_command
from competition.data_folder import DataFolder, Photo
from competition.images import Pixels, read_halved, read_rgb
from competition.run.folder import RunFolder
from competition.settings.schema import Settings
from folds.device import pick_device
from folds.frame import Frame
from folds.samples import Key, Samples
from folds.train import make_trainer
from folds.trainer import Trainer


def trainer_of(data: DataFolder, photos: Sequence[Photo], settings: Settings, folder: Path) -> Trainer:
    """The trainer of a fold that learns from these photos, as ``make train`` makes it."""
    held_out = [photo for photo in data.train if photo.car == data.train[0].car]
    learned = [photo for photo in photos if photo.car != held_out[0].car]
    return make_trainer(RunFolder(folder), settings, data, {0: held_out, 1: learned}, fold=0)


def loaded_per_second(trainer: Trainer, epochs: int) -> float:
    """Samples a second that come out of the trainer's loader when nobody is busy with them; the median of epochs."""
    rates = []
    for epoch in range(epochs + 1):
        trainer.batches.epoch = epoch
        start = time.perf_counter()
        count = sum(len(image) for image, _ in trainer.loader)
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates[1:])  # the first epoch starts the workers


def trained_per_second(trainer: Trainer, steps: int) -> float:
    """Samples a second that the trainer's step takes when the next batch is always ready."""
    batch = next(iter(trainer.loader))
    trainer.network.train()

    def step() -> None:
        float(trainer._step(repeat(batch)))  # a number on the host: a GPU has then done its work

    step()
    seconds = medians(in_turns({"step": step}, steps))["step"]
    return len(batch[0]) * trainer.settings.train.accumulate / seconds


def stages(samples: Samples, settings: Settings) -> dict[str, float]:
    """Milliseconds of processor time of each stage of a sample, in one process."""
    frame = Frame.of(settings.input)
    decode = read_rgb if frame.fit == "pad" else partial(read_halved, at_least=(frame.height, frame.width))
    ways: dict[str, list[Callable[[], Any]]] = {"decode": [], "read": [], "target": [], "augment": []}
    for number, photo in enumerate(samples.photos):
        pair = samples.read(number)
        ways["decode"].append(partial(decode, photo.path))
        ways["read"].append(partial(frame.read, photo.path))
        ways["target"].append(partial(target_of, samples, photo))
        ways["augment"].append(partial(samples.transform, image=pair.image, mask=pair.target))
    found = {
        name: 1000 * statistics.fmean(medians(in_turns({"": way}, 3, time.process_time))[""] for way in each)
        for name, each in ways.items()
    }
    resize = max(0.0, found.pop("read") - found["decode"])
    return {"decode": found["decode"], "resize": resize, "target": found["target"], "augment": found["augment"]}


def target_of(samples: Samples, photo: Photo) -> Pixels:
    """The target of a photo, from its mask's row or file."""
    return samples.frame.target(samples.data.truth(photo))


def measure(
    preset: str, data: DataFolder, photos: Sequence[Photo], *, epochs: int, steps: int, folder: Path
) -> dict[str, Any]:
    """One preset: its loader with and without the cache, its step, and a sample's stages."""
    described = settings_of(preset).network
    network: dict[str, Any] = {}
    if described.weights != "none":  # nor none here, from which all layers learn, those too that the preset freezes
        network = {"network": {"weights": str(made_up_weights(described.encoder, folder))}}
    trainers = {
        cache: trainer_of(
            data, photos, settings_of(preset, network, {"train": {"cache": cache}}), folder / preset / str(cache)
        )
        for cache in (True, False)
    }
    settings = settings_of(preset, network)
    rates = {
        "loader, photos in memory": loaded_per_second(trainers[True], epochs),
        "loader, photos read anew": loaded_per_second(trainers[False], epochs),
        "trainer's step": trained_per_second(trainers[True], steps),
    }
    chosen = rates["loader, photos in memory" if settings.train.cache else "loader, photos read anew"]
    samples = trainers[False].loader.dataset
    assert isinstance(samples, Samples)
    assert samples[Key(0, 0)][0].shape[:2] == (settings.input.height, settings.input.width)
    few = Samples(samples.photos[:16], data, samples.frame, settings.augment, seed=settings.seed)
    return {
        "preset": preset,
        "input": f"{settings.input.width} x {settings.input.height}",
        "workers": settings.train.workers,
        "cache": settings.train.cache,
        "device": pick_device().type,
        "samples_per_second": rates,
        "ratio": chosen / rates["trainer's step"],
        "stages": stages(few, settings),
    }


def print_preset(found: dict[str, Any]) -> None:
    """One preset as a table."""
    how = f"{found['workers']} workers, {'cache' if found['cache'] else 'no cache'}"
    print_rows(f"preset {found['preset']}, {found['input']}, {how}", found["samples_per_second"], "samples/s")
    total = sum(found["stages"].values())
    for name, value in found["stages"].items():
        print(f"    {name:46}{value:14.2f} ms, {value / total:4.0%}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    gpu = pick_device().type == "cuda"
    arguments = parser("Time a preset's loader against its trainer.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--presets", nargs="+", default=["gpu", "fullres"] if gpu else ["demo", "cpu"])
    arguments.add_argument("--images", type=int, default=64, help="number of photos")
    arguments.add_argument("--epochs", type=int, default=3, help="measured passes of the loader")
    arguments.add_argument("--steps", type=int, default=5, help="measured steps of the trainer")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    photos = first(data.train, options.images)
    with tempfile.TemporaryDirectory() as name:
        found = [
            measure(preset, data, photos, epochs=options.epochs, steps=options.steps, folder=Path(name))
            for preset in options.presets
        ]
    for each in found:
        print_preset(each)
    targets = [Target(f"loader / trainer's step, {each['preset']}", each["ratio"], 1) for each in found]
    report("loader", {"data": str(data.root), "images": len(photos), "presets": found}, targets)


if __name__ == "__main__":
    run_command(main)
