"""The studio weights, ready to predict photos without a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from competition.command import Failure
from competition.settings.resolve import merge, parse_assignments, resolve
from competition.settings.schema import flat
from folds.checkpoint import load_record
from folds.networks.whole import studio_weights
from folds.studio_weights import read_card
from inference.networks import Networks

CUTOUTS = Path("cutouts")


@dataclass(frozen=True)
class StudioWeights(Networks):
    """The shipped network."""

    @property
    def paths(self) -> list[Path]:
        """The one checkpoint."""
        return [studio_weights()]

    @property
    def shares(self) -> list[float]:
        """The weight of the one checkpoint."""
        return [1.0]

    @property
    def cutouts(self) -> Path:
        """The folder for cut-outs, in the current folder."""
        return CUTOUTS

    def describe(self) -> str:
        """For people: ``the studio weights (Dice 0.975 on 512 photos of 32 real cars)``."""
        card = read_card()
        return f"the studio weights (Dice {card.dice:.3f} on {card.scored_on})"

    def print_notes(self) -> None:
        """Print nothing: the description says everything."""


def open_studio_weights(
    device: torch.device, assignments: Sequence[str] = (), folds: Sequence[int] | None = None
) -> StudioWeights:
    """The studio weights.

    Args:
        device: where to predict.
        assignments: of settings of inference, such as ``inference.tta=[identity]``.
        folds: asked for; only a run has folds.
    """
    if folds is not None:
        raise Failure("the studio weights have no folds; FOLD is a fold of a run: name it with RUN")
    own, _ = load_record(studio_weights())
    chosen = resolve(merge(own.model_dump(), parse_assignments(assignments)))
    before, after = flat(own), flat(chosen)
    fixed = [name for name in before if before[name] != after[name] and not name.startswith("inference.")]
    if fixed:
        raise Failure(f"{', '.join(fixed)} of the studio weights cannot be changed; SET takes settings of inference")
    threshold = 0.5 if chosen.inference.threshold == "auto" else chosen.inference.threshold
    return StudioWeights(threshold, chosen.inference, device)
