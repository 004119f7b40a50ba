"""Trained networks as a ``inference.cutouts.model.Model``: photos in, levels out."""

import numpy as np
import torch

from competition.images import Pixels
from folds.validation import to_levels
from inference.engine.ensemble import Ensemble


class TrainedModel:
    """An ensemble that predicts photos in batches of one size.

    The last bits of a network's output depend on the size of a batch, but not on the other photos in it. So short
    batches are filled up, and the prediction of a photo is always the same.

    Args:
        ensemble: the networks.
        threshold: the lowest probability of the object.
        batch_size: photos in each call of the networks.
    """

    def __init__(self, ensemble: Ensemble, threshold: float, batch_size: int) -> None:
        self.ensemble = ensemble
        self.frame = ensemble.frame
        self.threshold = threshold
        self.batch_size = batch_size

    def levels(self, images: Pixels) -> Pixels:
        """The mean probability as levels, (N, h, w) uint8, for photos in the frame, (N, h, w, 3) uint8 RGB."""
        size = self.batch_size
        return np.concatenate([self._levels(images[start : start + size]) for start in range(0, len(images), size)])

    def _levels(self, images: Pixels) -> Pixels:
        missing = self.batch_size - len(images)
        filled = np.concatenate([images, np.repeat(images[:1], missing, axis=0)]) if missing else images
        levels: Pixels = to_levels(self.ensemble.probabilities(torch.from_numpy(filled))).cpu().numpy()
        return levels[: len(images)]
