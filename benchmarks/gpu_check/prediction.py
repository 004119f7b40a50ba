"""Steps ``pipeline`` and ``memory``: trained folds predict on the GPU, with enough memory and with too little."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from benchmarks.gpu_check.step import Check, Figure, require
from benchmarks.loader import trainer_of
from benchmarks.material import first
from competition import metrics
from competition.command import Failure
from competition.files import sha256
from competition.photo import Photo
from competition.rle import Spans
from competition.run.folder import RunFolder
from competition.run.records import CV
from competition.settings.schema import Inference, Precision
from folds.checkpoint import load_weights
from folds.frame import Frame
from folds.networks.build import make_network
from folds.train import main as train_command
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import Thresholded
from inference.engine.stream import map_masks
from inference.predict import main as predict_command
from inference.score import main as score_command

# The least mean Dice between masks of the GPU and those of the CPU in fp32, of one trained network.
CLOSE: dict[Precision, float] = {"fp32": 0.999, "fp16": 0.998, "bf16": 0.99}
CPU = torch.device("cpu")
LITTLE = 2 * 10**9  # bytes of a GPU's memory
TOO_MANY = 16  # photos of 1920 x 1280 for that


def pipeline(check: Check) -> Iterator[Figure]:
    """``make cv`` and ``make predict`` of a small run; the same bytes twice; its masks beside those of the CPU."""
    run = RunFolder(check.folder / "pipeline")
    settings = ["split.folds=2", f"train.epochs={check.few(2, 12)}", "train.validate_every=12", "inference.shard=8"]
    where = ["--run", str(run.root)]
    data = ["--data", str(check.data.root)]
    train_command(["--all", *where, *data, "--preset", "demo", "--set", *settings, *check.tiny])
    score_command(where)
    cv = CV.read(run.cv)
    yield Figure("CV", cv.dice)
    require(0 < cv.dice <= 1, f"the CV is {cv.dice}")
    digests = []
    for _ in range(2):
        predict_command(where)
        digests.append(sha256(run.submission))
        run.submission.unlink()
    require(digests[0] == digests[1], "two predictions of the same photos have different bytes")
    photos = first(check.data.train, check.few(2, 16))
    expected = masks_of(run, photos, CPU, "fp32")
    for precision, least in CLOSE.items():
        found = masks_of(run, photos, check.device, precision)
        dice = [metrics.counts_of_spans(*pair).dice for pair in zip(found, expected, strict=True)]
        mean = float(np.mean(dice))
        yield Figure(f"masks in {precision} and the CPU's in fp32: mean Dice", mean)
        require(mean >= least, f"masks in {precision} have a Dice of {mean:.4f} with those of the CPU")


def masks_of(run: RunFolder, photos: Sequence[Photo], device: torch.device, precision: Precision) -> list[Spans]:
    """The masks of some photos by fold 0."""
    network, settings, _ = load_weights(run.best(0))
    ensemble = Ensemble(
        [network], Frame.of(settings.input), ["identity", "hflip"], device=device, precision=precision
    )

    def spans(_photo: Photo, mask: Thresholded) -> Spans:
        return mask.spans

    return list(map_masks(spans, photos, [ensemble], Inference(readers=4), level=128))


def memory(check: Check) -> Iterator[Figure]:
    """With little memory, an ensemble must make its batch smaller, and a training must end with one line."""
    device, size = check.device, check.few(2, TOO_MANY)
    settings = check.settings(check.preset, {"train": {"batch_size": size}})
    frame = Frame.of(settings.input)
    with little_memory(device):
        ensemble = Ensemble([make_network(settings)], frame, ["identity"], device=device, precision="auto")
        images = torch.zeros(size, frame.height, frame.width, 3, dtype=torch.uint8)
        require(len(ensemble.probabilities(images)) == size, "a prediction is missing")
        yield Figure(f"of {size} photos are predicted at once", ensemble.memory_limit or size)
        if device.type == "cuda":
            require(ensemble.memory_limit is not None, f"{size} photos fit {LITTLE / 1e9:g} GB")
            trainer = trainer_of(check.data, first(check.data.train, 2 * size), settings, check.folder / "memory")
            try:
                trainer.fit()
            except Failure as failure:
                yield Figure("a training says", str(failure))
                require("runs out of memory" in str(failure), str(failure))
            else:
                raise Failure(f"a training with batches of {size} fits {LITTLE / 1e9:g} GB")


@contextmanager
def little_memory(device: torch.device) -> Iterator[None]:
    """Inside, torch may use little of a GPU's memory."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_per_process_memory_fraction(LITTLE / torch.cuda.get_device_properties(device).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
