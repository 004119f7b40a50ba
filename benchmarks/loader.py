"""Samples per second of a preset's data loader, compared with its training step."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.material import data_folder, first, settings_of
from benchmarks.measure import Target, in_turns, medians, print_rows, report
from benchmarks.stand_ins import made_up_weights
from competition.command import parser, run_command
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.settings.schema import FirstStage, Settings
from folds import device_augment
from folds.device import pick_device
from folds.frame import Frame
from folds.samples import Key, Samples
from folds.train import make_trainer
from folds.trainer import Trainer

BATCHES_OF_A_WORKER = 6
AT_ONCE = 5  # steps of a GPU between two waits


def trainer_of(data: DataFolder, photos: Sequence[Photo], settings: Settings, folder: Path) -> Trainer:
    """The trainer of a fold on these photos, built as in ``make train``; it starts without a first stage."""
    settings = settings.model_copy(update={"first_stage": FirstStage()})
    held_out = [photo for photo in data.train if photo.car == data.train[0].car]
    learned = [photo for photo in photos if photo.car != held_out[0].car]
    return make_trainer(RunFolder(folder), settings, data, {0: held_out, 1: learned}, fold=0)


def enough_photos(data: DataFolder, settings: Settings) -> list[Photo]:
    """So many photos to learn from, repeated, that each worker loads several batches after its start."""
    assert settings.train.batch_size != "auto"
    batches = max(1, settings.train.workers) * BATCHES_OF_A_WORKER
    learned = [photo for photo in data.train if photo.car != data.train[0].car]
    return first(learned, settings.train.batch_size * batches)


def loaded_per_second(trainer: Trainer, epochs: int) -> float:
    """Samples per second of the data loader alone, after the first batch of each worker; the median over epochs."""
    rates, size = [], trainer.batches.batch_size
    skipped = min(trainer.settings.train.workers, len(trainer.batches) - 1)
    for epoch in range(epochs):
        trainer.batches.epoch, trainer.batches.start = epoch, 0
        start = time.perf_counter()
        for number, _ in enumerate(trainer.loader, start=1):
            if number == skipped:
                start = time.perf_counter()
        rates.append((len(trainer.batches) - skipped) * size / (time.perf_counter() - start))
    return statistics.median(rates)


def together_per_second(trainer: Trainer, steps: int) -> float:
    """Samples per second of the training: loader and step at the same time, after the first batch of each worker."""

    def batches() -> Iterator[Sequence[Tensor]]:
        for epoch in count():
            trainer.batches.epoch, trainer.batches.start = epoch, 0
            yield from trainer.loader

    trainer.network.train()
    endless = batches()
    for _ in range(1 + trainer.settings.train.workers // trainer.accumulate):
        float(trainer.train_step(endless))
    start = time.perf_counter()
    for _ in range(steps):
        loss = trainer.train_step(endless)
    float(loss)  # waits for the GPU
    return steps * trainer.accumulate * trainer.batches.batch_size / (time.perf_counter() - start)


def trained_per_second(trainer: Trainer, steps: int) -> float:
    """Samples per second of the training step if the next batch is always ready."""
    batch = next(iter(trainer.loader))
    trainer.network.train()

    # The host starts several steps before a GPU has finished the first, as in a training.
    at_once = AT_ONCE if trainer.device.type == "cuda" else 1

    def some_steps() -> None:
        for _ in range(at_once):
            loss = trainer.train_step(repeat(batch))
        float(loss)  # waits for the GPU

    some_steps()
    seconds = medians(in_turns({"": some_steps}, steps))[""] / at_once
    return len(batch[0]) * trainer.settings.train.accumulate / seconds


def stages(samples: Samples, settings: Settings) -> dict[str, float]:
    """CPU milliseconds of each stage of a sample, in one process."""
    frame = Frame.of(settings.input)
    decode = Photo.read if frame.fit == "pad" else partial(Photo.read_halved, at_least=(frame.height, frame.width))
    ways: dict[str, list[Callable[[], Any]]] = {"decode": [], "read": [], "target": [], "augment": []}
    for number, photo in enumerate(samples.photos):
        pair = samples.read(number)
        ways["decode"].append(partial(decode, photo))
        ways["read"].append(partial(frame.read, photo))
        ways["target"].append(partial(target_of, samples, photo))
        changed = partial(samples.transform, image=pair.image, mask=pair.target)
        drawn = partial(device_augment.draw, samples.transform, pair.target.shape)
        ways["augment"].append(drawn if settings.augment.on_device else changed)
    found = {
        name: 1000 * statistics.fmean(medians(in_turns({"": way}, 3, time.process_time))[""] for way in each)
        for name, each in ways.items()
    }
    resize = max(0.0, found.pop("read") - found["decode"])
    return {"decode": found["decode"], "resize": resize, "target": found["target"], "augment": found["augment"]}


def samples_per_core(samples: Samples, settings: Settings, repeats: int) -> dict[str, float]:
    """Samples per second of CPU time, with the random changes computed in the workers and on the device."""
    augment = settings.augment
    ways = {
        name: Samples(
            samples.photos,
            samples.data,
            samples.frame,
            augment.model_copy(update={"on_device": on_device}),
            seed=settings.seed,
            cache=cache,
        )
        for name, on_device, cache in (
            ("one core, changes in the workers", False, False),
            ("one core, changes on the device", True, False),
            ("one core, changes on the device, with cache", True, True),
        )
    }

    def all_of(chosen: Samples) -> None:
        for number in range(len(chosen)):
            chosen[Key(0, number)]

    seconds = in_turns({name: partial(all_of, way) for name, way in ways.items()}, repeats, time.process_time)
    return {name: len(samples) / each for name, each in medians(seconds).items()}


def target_of(samples: Samples, photo: Photo) -> Pixels:
    """The target of a photo, from its row or its mask file."""
    if samples.on_device:
        return samples.frame.target_of_spans(samples.data.truth_spans(photo), photo.shape)
    return samples.frame.target(samples.data.truth(photo))


def measure(
    preset: str, data: DataFolder, images: int | None, *, epochs: int, steps: int, folder: Path
) -> dict[str, Any]:
    """Measure one preset: loader with and without cache, training step, stages of a sample."""
    described = settings_of(preset).network
    network: dict[str, Any] = {}
    if described.weights != "none":  # with "none" the frozen layers would train as well
        network = {"network": {"weights": str(made_up_weights(described.encoder, folder))}}
    settings = settings_of(preset, network)
    photos = first(data.train, images) if images else enough_photos(data, settings)
    trainers = {
        cache: trainer_of(
            data, photos, settings_of(preset, network, {"train": {"cache": cache}}), folder / preset / str(cache)
        )
        for cache in (True, False)
    }
    rates = {
        "loader, with cache": loaded_per_second(trainers[True], epochs),
        "loader, without cache": loaded_per_second(trainers[False], epochs),
        "training step": trained_per_second(trainers[True], steps),
        "training, loader and step": together_per_second(trainers[settings.train.cache], steps),
    }
    chosen = rates["loader, with cache" if settings.train.cache else "loader, without cache"]
    samples = trainers[False].loader.dataset
    assert isinstance(samples, Samples)
    assert samples[Key(0, 0)][0].shape[:2] == (settings.input.height, settings.input.width)
    few = Samples(samples.photos[:16], data, samples.frame, settings.augment, seed=settings.seed)
    return {
        "preset": preset,
        "input": f"{settings.input.width} x {settings.input.height}",
        "images": len(photos),
        "workers": settings.train.workers,
        "cache": settings.train.cache,
        "device": pick_device().type,
        "samples_per_second": rates,
        "ratio": chosen / rates["training step"],
        "samples_per_core": samples_per_core(few, settings, epochs),
        "stages": stages(few, settings),
    }


def print_preset(found: dict[str, Any]) -> None:
    """One preset as a table."""
    how = f"{found['workers']} workers, {'cache' if found['cache'] else 'no cache'}"
    print_rows(f"preset {found['preset']}, {found['input']}, {how}", found["samples_per_second"], "samples/s")
    print_rows("  samples per second of CPU time", found["samples_per_core"], "samples/s")
    total = sum(found["stages"].values())
    for name, value in found["stages"].items():
        print(f"    {name:46}{value:14.2f} ms, {value / total:4.0%}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    gpu = pick_device().type == "cuda"
    arguments = parser("Time the data loader of a preset and its training step.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--presets", nargs="+", default=["gpu", "fullres"] if gpu else ["demo", "cpu"])
    arguments.add_argument("--images", type=int, help="number of photos; by default 6 batches for each worker")
    arguments.add_argument("--epochs", type=int, default=3, help="measured epochs of the loader")
    arguments.add_argument("--steps", type=int, default=5, help="measured training steps")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    with tempfile.TemporaryDirectory() as name:
        found = [
            measure(preset, data, options.images, epochs=options.epochs, steps=options.steps, folder=Path(name))
            for preset in options.presets
        ]
    for each in found:
        print_preset(each)
    targets = [Target(f"loader / training step, {each['preset']}", each["ratio"], 1) for each in found]
    report("loader", {"data": str(data.root), "presets": found}, targets)


if __name__ == "__main__":
    run_command(main)
