"""``make cutout MODEL=x.onnx``: cut the objects out of photos with an exported model, without torch.

This module and what it imports need onnxruntime, OpenCV, numpy and Pillow only.
"""

from collections.abc import Sequence
from pathlib import Path

from competition.command import parser, run_command
from competition.files import sha256
from inference.cutouts.command import add_cutout_arguments, cut_out, key_of, kinds_of
from inference.cutouts.job import Order
from inference.engine.onnx_model import OnnxModel


def main(argv: Sequence[str] | None = None) -> None:
    """Cut out photos."""
    arguments = parser("Cut the objects out of photos with a model that `make export` wrote; torch is not needed.")
    add_cutout_arguments(arguments)
    arguments.add_argument("--model", type=Path, required=True, help="file that `make export` wrote")
    options = arguments.parse_args(argv)
    kinds = kinds_of(options)
    model: Path = options.model
    key = key_of(options, model=sha256(model))
    order = Order(options.out or model.parent / "cutouts", kinds, options.crop, key)
    cut_out(options, order, f"model {model}", lambda: OnnxModel.load(model))


if __name__ == "__main__":
    run_command(main)
