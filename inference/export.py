"""``make export``: the trained folds of a run as one ONNX file, which runs without torch.

Test-time augmentation and the mean over the folds are inside. Before the file gets its name, it is run, and its
probabilities are compared with those of torch.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from competition.command import Failure, parser, run_command
from competition.files import replacing, sha256
from competition.hint import hint
from competition.packages import project_version
from competition.plural import counted
from competition.run.folder import RunFolder, run_at
from competition.run.model_card import DATA_LICENSE
from competition.run.open import add_trained_run_arguments, settings_of_existing_run
from competition.run.records import CV, Environment
from competition.settings.schema import TTA
from competition.studio.sample import photos_of_a_car
from folds.checkpoint import load_provenance, load_weights
from folds.frame import Frame
from folds.validation import to_levels
from inference.engine.ensemble import Ensemble, flip
from inference.engine.host_masks import level_of
from inference.engine.onnx_graph import OPSET, require_packages, to_onnx
from inference.engine.onnx_layers import prepare
from inference.engine.onnx_model import INPUT, OUTPUT, Metadata, OnnxModel
from inference.shards import require_unchanged
from inference.trained import TrainedFolds, trained_folds

VIEWS = (1, 4, 13)  # of the generated car that torch and the file predict
TOLERANCE = 1e-4  # of probabilities: 1/40 of a level; usual differences are below 1e-5
CPU = torch.device("cpu")


class MeanProbability(nn.Module):
    """The mean of the probabilities of several networks and test-time augmentations, as ``Ensemble`` computes it.

    Args:
        networks: each takes (N, 3, h, w) uint8 RGB and returns (N, 1, h, w) logits.
        tta: the test-time augmentations.
    """

    def __init__(self, networks: Sequence[nn.Module], tta: Sequence[TTA]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.tta = tta

    def forward(self, images: Tensor) -> Tensor:
        """(N, h, w, 3) uint8 RGB to (N, h, w) float32."""
        pixels = images.permute(0, 3, 1, 2)
        each = [flip(network(flip(pixels, tta)).sigmoid(), tta) for tta in self.tta for network in self.networks]
        return sum(each[1:], each[0])[:, 0] / len(each)


class Parity(NamedTuple):
    """How an exported model differs from torch.

    Attributes:
        photos: number of photos that both have predicted.
        difference: the largest one of two probabilities.
        pixels: number of pixels of their masks, in the frame.
        other: number of those that differ.
    """

    photos: int
    difference: float
    pixels: int
    other: int


def export(trained: TrainedFolds, frame: Frame, file: Path) -> tuple[Metadata, Parity]:
    """Write folds of a run to an ONNX file.

    Args:
        trained: the folds, whose networks are averaged.
        frame: of the networks.
        file: to write.
    """
    run, folds, tta = trained.run, trained.folds, trained.inference.tta
    digests = {path: sha256(path) for path in (run.best(fold) for fold in folds)}
    networks = [load_weights(path)[0] for path in digests]
    require_unchanged(digests)
    metadata = Metadata(
        version=project_version(),
        run=run.name,
        width=frame.width,
        height=frame.height,
        fit=frame.fit,
        threshold=trained.threshold,
        tta=list(tta),
        folds=list(folds),
        metrics=metrics_of(run, folds, list(digests.values())),
        checkpoints={path.relative_to(run.root).as_posix(): digest for path, digest in digests.items()},
        license=DATA_LICENSE,
    )
    averaged = MeanProbability([prepare(network) for network in networks], tta).eval()
    image = torch.zeros(1, frame.height, frame.width, 3, dtype=torch.uint8)
    content = to_onnx(averaged, image, inputs=INPUT, outputs=OUTPUT)
    with replacing(file) as temporary:
        temporary.write_bytes(with_metadata(content, metadata))
        check_format(temporary)
        parity = compare(OnnxModel.load(temporary), Ensemble(networks, frame, tta, device=CPU, precision="fp32"))
        if parity.difference > TOLERANCE:
            raise Failure(
                f"probabilities of the exported model differ from those of torch by {parity.difference:.1e}, more "
                f"than {TOLERANCE:.0e}, so {file} was not written; the versions of torch, onnx and onnxruntime in "
                "requirements.txt are tested"
            )
    return metadata, parity


def folds_to_export(options: Namespace) -> tuple[TrainedFolds, Frame]:
    """The trained folds that the command line names, and the frame of their networks."""
    run = run_at(options.run)
    if not run.settings.is_file():
        raise Failure(f"no run {run.root}; RUN must name a trained run: {hint('train', FOLD=0, RUN=run.called)}")
    if members := Environment.read(run.environment).runs:
        raise Failure(f"run {run.name} combines the runs {', '.join(members)}; export each of them")
    settings = settings_of_existing_run(run, options)
    only = None if options.fold is None else [options.fold]
    return trained_folds(run, settings, CPU, only), Frame.of(settings.input)


def metrics_of(run: RunFolder, folds: Sequence[int], digests: Sequence[str]) -> dict[str, dict[str, float]]:
    """Mean Dice and IoU: the CV if it scored exactly these weights, else each fold's score in validation."""
    cv = CV.read_if_exists(run.cv)
    if cv and sorted(cv.checkpoints.values()) == sorted(digests):
        return {"cross-validation": {"dice": cv.dice, "iou": cv.iou}}
    found = {f"fold {fold}": load_provenance(run.best(fold)) for fold in folds}
    return {name: {"dice": each.dice, "iou": each.iou} for name, each in found.items()}


def with_metadata(content: bytes, metadata: Metadata) -> bytes:
    """An ONNX model with metadata, names of its dimensions, and a description."""
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, metadata.to_texts())
    model.producer_name, model.producer_version = metadata.project, metadata.version
    model.doc_string = (
        f"{INPUT}: uint8 RGB photos of {metadata.width} x {metadata.height}. {OUTPUT}: the probability of "
        f"{metadata.classes[0]} of each pixel, the mean of {counted(len(metadata.folds), 'network')} and tta "
        f"{', '.join(metadata.tta)}."
    )
    return bytes(model.SerializeToString())


def check_format(file: Path) -> None:
    """Check an ONNX file with onnx.checker, with shape inference."""
    import onnx

    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Failure(f"onnx.checker does not accept the exported model: {error}") from error


def compare(model: OnnxModel, ensemble: Ensemble) -> Parity:
    """Predict photos of a generated car with an exported model and with torch."""
    size = (model.frame.width, model.frame.height)
    images = np.stack([cv2.resize(photo, size, interpolation=cv2.INTER_AREA) for photo in photos_of_a_car(VIEWS)])
    ours = model.probabilities(images)
    theirs = ensemble.probabilities(torch.from_numpy(images))
    level = level_of(model.threshold)
    masks = model.levels(images) >= level, to_levels(theirs).numpy() >= level
    return Parity(
        len(images), float(np.abs(ours - theirs[:, 0].numpy()).max()), ours.size, int((masks[0] != masks[1]).sum())
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Export a run."""
    arguments = parser("Write the trained folds of a run as one ONNX file: test-time augmentation and mean inside.")
    add_trained_run_arguments(arguments)
    arguments.add_argument("--fold", type=int, help="export this fold only; by default all that are trained")
    arguments.add_argument("--file", type=Path, help="ONNX file to write; by default runs/<run>/<run>.onnx")
    options = arguments.parse_args(argv)
    require_packages()
    file = options.file or run_at(options.run).exported(options.fold)
    if file.suffix != ".onnx":
        raise Failure(f"FILE={file} must end in .onnx")
    trained, frame = folds_to_export(options)
    trained.print_notes()
    metadata, parity = export(trained, frame, file)
    print(
        f"{file}: {', '.join(f'fold {fold}' for fold in trained.folds)}; tta {', '.join(metadata.tta)}; "
        f"input {metadata.width} x {metadata.height}; threshold {metadata.threshold:g}; opset {OPSET}; "
        f"{file.stat().st_size / 1e6:,.1f} MB"
    )
    print(
        f"compared with torch on {parity.photos} generated photos: probabilities differ by at most "
        f"{parity.difference:.1e}, and {parity.other:,} of {parity.pixels:,} pixels of the masks differ"
    )
    print(f"next, with a photo of your own: {hint('cutout', PHOTOS='photo.jpg', MODEL=file)}")


if __name__ == "__main__":
    run_command(main)
