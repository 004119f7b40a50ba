"""An exported model for notebooks and programs, without torch.

segmenter = Segmenter.load("x.onnx")
probability = segmenter("car.jpg")      # (H, W) float32
"""

from pathlib import Path
from typing import Self

from inference.cutouts import segmenter
from inference.engine.onnx_model import OnnxModel


class Segmenter(segmenter.Segmenter):
    """Predicts photos with an exported model; see ``inference.cutouts.segmenter``."""

    @classmethod
    def load(cls, model: str | Path) -> Self:
        """Load a file that ``make export`` wrote."""
        return cls(OnnxModel.load(Path(model)))
