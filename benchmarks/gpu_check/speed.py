"""Steps ``batch``, ``speed`` and ``predict``: how many images fit; how many a second are trained and predicted."""

import warnings
from collections.abc import Iterator
from itertools import repeat

import torch

from benchmarks.gpu_check.step import Check, Figure
from benchmarks.loader import enough_photos, loaded_per_second, together_per_second, trained_per_second, trainer_of
from benchmarks.material import first
from benchmarks.predict import measure, untrained
from competition.settings.schema import Settings
from folds.batch_size import AT_MOST, largest_that_fits, trial_steps
from folds.device import does_not_fit
from folds.trainer import Trainer


def batch(check: Check) -> Iterator[Figure]:
    """The largest batch that fits, and the memory that it takes: what ``train.batch_size=auto`` finds."""
    for name, settings in check.trainings.items():
        found = largest_that_fits(settings, check.device, check.few(2, AT_MOST["cuda"]))
        yield Figure(f"{name}: largest batch", found, "images")
        for size in sorted({found, min(found, int(settings.train.batch_size))} - {0}):
            reset_peak(check)
            trial_steps(settings, check.device, size)
            yield Figure(f"{name}: memory with a batch of {size}", peak(check), "GB")
        if 0 < found < check.few(2, AT_MOST["cuda"]):
            yield Figure(f"{name}: a batch of {2 * found}", why_not(check, settings, 2 * found))


def why_not(check: Check, settings: Settings, size: int) -> str:
    """Why a batch does not fit: the error message, or the memory that the batch takes."""
    reset_peak(check)
    try:
        trial_steps(settings, check.device, size)
    except RuntimeError as error:
        if not does_not_fit(error):
            raise
        return " ".join(str(error).split())[:160]
    return f"takes {peak(check):.1f} GB; too little memory is left"


def speed(check: Check) -> Iterator[Figure]:
    """Training: the step, the loader and both together; what cudnn_benchmark gives, and how often the host waits."""
    for name, settings in check.trainings.items():
        try:
            yield from of_training(check, name, settings)
        except RuntimeError as error:
            if not does_not_fit(error):
                raise
            yield Figure(f"{name}: training", f"a batch of {settings.train.batch_size} does not fit")


def of_training(check: Check, name: str, settings: Settings) -> Iterator[Figure]:
    """The figures of one training."""
    for benchmark in (True, False):
        train = settings.train.model_copy(update={"cudnn_benchmark": benchmark})
        made = trainer(check, settings.model_copy(update={"train": train}))
        reset_peak(check)
        step = trained_per_second(made, check.few(1, 4))
        yield Figure(f"{name}: step{'' if benchmark else ' without cudnn_benchmark'}", step, "images/s")
        if benchmark:
            yield Figure(f"{name}: memory", peak(check), "GB")
            yield Figure(f"{name}: waits of the host for the GPU in a step", waits(made), "")
            both = together_per_second(made, check.few(1, 2 * made.settings.train.workers + 20))
            yield Figure(f"{name}: training", both, "images/s")
            yield Figure(f"{name}: the training waits for the loader", 100 * max(0, 1 - both / step), "%")
            yield Figure(f"{name}: loader", loaded_per_second(made, check.few(1, 2)), "images/s")


def predict(check: Check) -> Iterator[Figure]:
    """Prediction end to end, five folds and two TTA, and the networks alone."""
    photos = first(check.data.train, check.few(2, 256))
    case = untrained(check.preset, check.data, folds=check.few(2, 5), compiled=False)
    found = measure(case, photos, check.few(1, 2), check.folder)
    for name, rate in found["images_per_second"].items():
        yield Figure(name, rate, "images/s")
    yield Figure("share of the networks", 100 / found["ratio"], "%")
    yield Figure("peak memory", found["gpu_memory_gb"] or 0.0, "GB")
    yield Figure("all 100,064 images", found["hours_for_the_whole_test_set"], "h")


def trainer(check: Check, settings: Settings) -> Trainer:
    """A trainer in a new folder, with so many photos that the loader is measured after its start."""
    number = len(list(check.folder.iterdir()))
    return trainer_of(check.data, enough_photos(check.data, settings), settings, check.folder / f"trainer{number}")


def waits(made: Trainer) -> int:
    """How often a training step makes the host wait for the GPU; each time the GPU may run out of work."""
    if made.device.type != "cuda":
        return 0
    batches = repeat(next(iter(made.loader)))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        made.train_step(batches)
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in heard)


def reset_peak(check: Check) -> None:
    """Forget the largest use of memory so far."""
    if check.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(check: Check) -> float:
    """The largest memory of a GPU since then that torch has reserved, GB."""
    return torch.cuda.max_memory_reserved() / 1e9 if check.device.type == "cuda" else 0.0
