"""The studio weights, or the trained folds of a run, for notebooks and programs.

segmenter = Segmenter.load()            # or of a run: Segmenter.load("runs/x")
probability = segmenter("car.jpg")      # (H, W) float32
rgba = segmenter.cutout("car.jpg")      # (H, W, 4) uint8
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch

from competition.command import Failure
from competition.run.folder import RunFolder
from competition.settings.resolve import load_settings, merge, parse_assignments, resolve
from folds.device import pick_device
from inference.cutouts import segmenter
from inference.studio import open_studio_weights
from inference.trained import trained_folds


class Segmenter(segmenter.Segmenter):
    """Predicts photos with the studio weights or the trained folds of a run; see ``inference.cutouts.segmenter``."""

    @classmethod
    def load(
        cls,
        run: str | Path | None = None,
        folds: Sequence[int] | None = None,
        *,
        device: str | torch.device | None = None,
        settings: Sequence[str] = (),
    ) -> Self:
        """Load the studio weights, or the networks of a run.

        Args:
            run: the folder of a run, such as ``runs/x``; by default the studio weights.
            folds: numbers of folds; by default all that are trained.
            device: such as ``cpu``; by default the GPU if there is one.
            settings: such as ``["inference.tta=[identity]"]``; by default those of the run or of the studio weights.
        """
        where = torch.device(device) if device else pick_device()
        if run is None:
            studio = open_studio_weights(where, settings, folds)
            return cls(studio.load(), studio.batch_size)
        folder = RunFolder(Path(run))
        if not folder.settings.is_file():
            raise Failure(f"no run {folder.root}; give the folder of a trained run, such as runs/default")
        chosen = resolve(merge(load_settings(folder.settings).model_dump(), parse_assignments(settings)))
        trained = trained_folds(folder, chosen, where, folds)
        return cls(trained.load(), trained.batch_size)
