"""The shipped weights, ``network.weights: studio``: a whole network, trained on generated cars only.

The file is a checkpoint (``folds.checkpoint``) with float16 weights and a card in its metadata. ``load_weights``
reads it; the network computes in float32.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from competition.command import Failure
from competition.files import sha256
from competition.settings.schema import Settings
from folds.checkpoint import Provenance, read_metadata, save_weights
from folds.networks.whole import STUDIO_WEIGHTS

MOST_BYTES = 6_000_000


class Card(BaseModel):
    """What the metadata says besides the settings and the provenance.

    Attributes:
        trained_on: the training data and the first weights of the encoder, a sentence.
        dice: mean Dice of photos that decided nothing about the weights, at full size.
        scored_on: these photos, such as "512 photos of 32 real cars".
        recipe: SHA-256 of the recipe beside the weights.
        classes: what the channels of the output are the probability of.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    trained_on: str
    dice: float
    scored_on: str
    recipe: str
    classes: tuple[str, ...] = ("car",)


def write_studio_weights(
    weights: Mapping[str, Tensor],
    settings: Settings,
    provenance: Provenance,
    *,
    trained_on: str,
    dice: float,
    scored_on: str,
    recipe: Path,
    path: Path = STUDIO_WEIGHTS,
) -> None:
    """Write a trained network as the shipped weights.

    Args:
        weights: of the network.
        settings: it was trained with; ``inference.threshold`` and ``inference.tta`` are those of cut-outs.
        provenance: of the weights; no car that it names may be in a data folder.
        trained_on: see ``Card``; dice and scored_on likewise.
        dice: on real photos.
        scored_on: these photos.
        recipe: the file that says how the weights were made.
        path: to write.
    """
    card = Card(trained_on=trained_on, dice=dice, scored_on=scored_on, recipe=sha256(recipe))
    # The file of the first weights is on one machine only.
    network = settings.network.model_copy(update={"weights": "none", "init_from": "none"})
    shipped = settings.model_copy(update={"network": network})
    # Cars that are drawn for the training alone have no names.
    known = provenance.model_copy(update={"learned": provenance.learned or ()})
    save_weights(path, halved(weights), shipped, known, {"studio": card.model_dump_json()})
    if path.stat().st_size > MOST_BYTES:
        raise Failure(f"{path} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}; use a smaller network")


def halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the kernels of convolutions in float16; biases and normalization are small and stay float32."""
    return {name: tensor.to(torch.float16) if tensor.ndim > 1 else tensor for name, tensor in weights.items()}


def read_card(path: Path = STUDIO_WEIGHTS) -> Card:
    """The card of the shipped weights."""
    try:
        return Card.model_validate_json(read_metadata(path)["studio"])
    except (KeyError, ValidationError) as error:
        raise Failure(f"{path} is not the file of this version; restore it: git checkout {path}") from error
