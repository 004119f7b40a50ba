"""``python -m inference.evaluate --model runs/x/fold0/best.safetensors``: Dice and IoU of one network on the images
that its training did not see."""

from collections.abc import Sequence
from pathlib import Path

from competition import metrics
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, Photo
from competition.metrics import Scores
from competition.rle import Spans
from competition.run.folder import RunFolder
from competition.run.open import data_of
from competition.settings.schema import TTA, Inference
from folds.checkpoint import load_weights
from folds.device import pick_device
from folds.frame import Frame
from folds.leakage import require_held_out
from folds.split import photos_by_fold
from inference.engine.ensemble import FLIPS, Ensemble
from inference.engine.host_masks import level_of
from inference.engine.stream import stream_spans


def evaluate(model: Path, data_folder: Path | None, views: Sequence[TTA] | None, threshold: float) -> Scores:
    """Score a checkpoint on its fold's held-out images, at full size.

    Args:
        model: a fold's best.safetensors, in its run's folder.
        data_folder: the data; by default those the run was made from.
        views: test-time augmentation; by default the run's own.
        threshold: car is at or above it.

    Raises:
        Failure: the checkpoint, its run's split, or the data are missing or damaged, or the checkpoint was trained
            with another split.
    """
    network, settings, provenance = load_weights(model)
    run = RunFolder(model.resolve().parent.parent)
    require_held_out(run, provenance.fold, model)
    data = data_of(run, data_folder, settings)
    held_out = photos_by_fold(run.folds, data.train)[provenance.fold]
    chosen = settings.inference
    ensemble = Ensemble(
        [network],
        Frame.of(settings.input),
        views or chosen.tta,
        device=pick_device(),
        precision=chosen.precision,
    )
    return score_photos(held_out, [ensemble], data, chosen, threshold)


def score_photos(
    photos: Sequence[Photo], ensembles: Sequence[Ensemble], data: DataFolder, settings: Inference, threshold: float
) -> Scores:
    """Score networks that answer together on photos with masks, at full size.

    Args:
        photos: of the training set.
        ensembles: the networks, by frame.
        data: where the masks are.
        settings: of the batches and the threads that read; the ensembles have their views and precision already.
        threshold: car is at or above it.

    Raises:
        Failure: a photo or its mask is missing or damaged.
    """

    def count(photo: Photo, spans: Spans) -> metrics.Counts:
        return metrics.counts_of_spans(spans, data.truth_spans(photo))

    counts = stream_spans(
        photos,
        ensembles,
        count,
        level=level_of(threshold),
        batch_size=settings.batch_size,
        readers=settings.readers,
    )
    return metrics.mean(list(counts))


def main(argv: Sequence[str] | None = None) -> None:
    """Score a checkpoint."""
    arguments = parser("Dice and IoU of one trained fold on the images it did not see.")
    arguments.add_argument("--model", type=Path, required=True, help="runs/<run>/fold<n>/best.safetensors")
    arguments.add_argument("--data", type=Path, help="data folder; by default the run's own")
    arguments.add_argument("--views", nargs="+", choices=list(FLIPS), help="by default the run's")
    arguments.add_argument("--threshold", type=float, default=0.5, help="car is at or above it")
    options = arguments.parse_args(argv)
    if not 0 < options.threshold < 1:
        raise Failure(f"--threshold {options.threshold} is not between 0 and 1")
    scores = evaluate(options.model, options.data, options.views, options.threshold)
    print(f"Dice {scores.dice:.5f}  IoU {scores.iou:.5f}  on {scores.images} held-out images")


if __name__ == "__main__":
    run_command(main)
