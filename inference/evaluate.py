"""``python -m inference.evaluate --model runs/x/fold0/best.safetensors``: Dice and IoU of one network on its held-out
photos."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from competition import metrics
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.metrics import Scores
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.run.open import data_of
from competition.settings.schema import TTA, Inference
from folds.checkpoint import load_weights
from folds.device import pick_device
from folds.frame import Frame
from folds.leakage import require_held_out
from folds.split import photos_by_fold
from inference.engine.ensemble import FLIPS, Ensemble
from inference.engine.host_masks import Thresholded, level_of
from inference.engine.runtime import precision_of, resolve_engine
from inference.engine.stream import map_masks
from inference.engine.trial_export import with_able_engine
from inference.progress import Progress


def evaluate(model: Path, data_folder: Path | None, tta: Sequence[TTA] | None, threshold: float) -> Scores:
    """Score a checkpoint on the held-out photos of its fold, at full size.

    Args:
        model: best.safetensors of a fold, in the folder of its run.
        data_folder: by default the data folder of the run.
        tta: test-time augmentations; by default those of the run.
        threshold: car is at or above it.
    """
    network, settings, provenance = load_weights(model)
    run = RunFolder(model.resolve().parent.parent)
    require_held_out(run, provenance.fold, model)
    data = data_of(run, data_folder, settings)
    held_out = photos_by_fold(run.folds, data.train)[provenance.fold]
    device = pick_device()
    how = with_able_engine(settings.inference, device, [run])
    ensemble = Ensemble(
        [network],
        Frame.of(settings.input),
        tta or how.tta,
        device=device,
        precision=precision_of(how, device),
        engine=resolve_engine(how, device),
        batch_size=how.batch_size,
    )
    with closing(Progress(f"score fold {provenance.fold}", len(held_out))) as progress:
        return score_photos(held_out, [ensemble], data, how, threshold, progress=progress)


def score_photos(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    data: DataFolder,
    how: Inference,
    threshold: float,
    *,
    progress: Progress | None = None,
) -> Scores:
    """Score ensembles that predict together on photos with masks, at full size.

    Args:
        photos: of the training set.
        ensembles: the networks, by frame.
        data: where the masks are.
        how: the batch size and the number of threads.
        threshold: car is at or above it.
        progress: counts the photos.
    """

    def count(photo: Photo, mask: Thresholded) -> metrics.Counts:
        return metrics.counts_of_spans(mask.spans, data.truth_spans(photo))

    counts = map_masks(count, photos, ensembles, how, level=level_of(threshold))
    return metrics.mean(list(progress.counted(counts) if progress else counts))


def main(argv: Sequence[str] | None = None) -> None:
    """Score a checkpoint."""
    arguments = parser("Dice and IoU of one trained fold on its held-out photos.")
    arguments.add_argument("--model", type=Path, required=True, help="runs/<run>/fold<n>/best.safetensors")
    arguments.add_argument("--data", type=Path, help="data folder; by default that of the run")
    arguments.add_argument(
        "--tta", nargs="+", choices=list(FLIPS), help="test-time augmentations; by default those of the run"
    )
    arguments.add_argument("--threshold", type=float, default=0.5, help="car is at or above it")
    options = arguments.parse_args(argv)
    if not 0 < options.threshold < 1:
        raise Failure(f"--threshold {options.threshold} is not between 0 and 1")
    scores = evaluate(options.model, options.data, options.tta, options.threshold)
    print(f"Dice {scores.dice:.5f}  IoU {scores.iou:.5f}  on {scores.images} held-out images")


if __name__ == "__main__":
    run_command(main)
