"""Networks that predict photos of any origin together: the trained folds of a run, or the studio weights."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from competition.command import Failure
from competition.files import sha256
from competition.settings.schema import Inference
from inference.engine.ensemble import load_ensembles
from inference.engine.trained_model import TrainedModel
from inference.shards import facts_of, require_unchanged

# Facts of a prediction that change no more than the last bits of a probability, which a level hardly ever shows.
UNIMPORTANT = ("batch_size", "shard", "threads")


@dataclass(frozen=True)
class Networks(ABC):
    """Checkpoints that predict together, on one device.

    Attributes:
        threshold: the lowest probability of the object: of the settings, else chosen by the CV, else 0.5.
        inference: the settings.
        device: where to predict.
    """

    threshold: float
    inference: Inference
    device: torch.device

    @property
    @abstractmethod
    def paths(self) -> Sequence[Path]:
        """The checkpoints."""

    @property
    @abstractmethod
    def shares(self) -> Sequence[float]:
        """The weights of the first checkpoints; they repeat for the others."""

    @property
    @abstractmethod
    def cutouts(self) -> Path:
        """The folder for cut-outs."""

    @abstractmethod
    def describe(self) -> str:
        """For people: which networks, and how good they are."""

    @abstractmethod
    def print_notes(self) -> None:
        """Print what a user should know besides."""

    @property
    def batch_size(self) -> int:
        """Photos in each call of the networks: one on a CPU, which predicts a batch no faster."""
        return 1 if self.device.type == "cpu" else self.inference.batch_size

    def facts(self) -> dict[str, Any]:
        """What decides the levels of a photo."""
        facts = facts_of(self.inference, self.device)
        return {
            **{name: value for name, value in facts.items() if name not in UNIMPORTANT},
            "checkpoints": [sha256(path) for path in self.paths],
            "member_weights": list(self.shares),
            "threshold": self.threshold,
        }

    def load(self) -> TrainedModel:
        """Load the networks."""
        paths = self.paths
        digests = {path: sha256(path) for path in paths}
        how = self.inference.model_copy(update={"batch_size": self.batch_size})
        weights = [*self.shares] * (len(paths) // len(self.shares))
        ensembles = load_ensembles(paths, how, device=self.device, member_weights=weights)
        require_unchanged(digests)
        if len(ensembles) > 1:
            raise Failure(
                f"{self.describe()} have different input sizes, which only score and predict average; use one of the "
                "runs"
            )
        return TrainedModel(ensembles[0], self.threshold, self.batch_size)
