"""Checkpoints: ``last.pt``, the state that a training resumes from, and ``best.safetensors``, its best weights.

Both are written atomically, and neither can run code when it is read.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from competition import files
from competition.command import Failure, os_reason
from competition.hint import hint
from competition.settings.resolve import resolve
from competition.settings.schema import Settings
from folds.networks.build import make_network
from folds.networks.whole import DESCRIPTION

State = dict[str, Any]


class Provenance(BaseModel):
    """Where weights come from.

    Attributes:
        fold: number of the fold that they are the best weights of.
        held_out: ``leakage.held_out_key`` of the images that they were not trained on.
        epoch: the epoch after which they were validated, from 1.
        dice: mean Dice of the held-out images; iou likewise.
        learned: the cars that they were trained on, those of their starting weights and pseudo-labels too; None if
            an earlier version wrote the weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fold: int
    held_out: str
    epoch: int
    dice: float
    iou: float
    learned: tuple[str, ...] | None = None


def save_state(path: Path, state: State) -> None:
    """Write the state of a training, nested dicts of tensors and plain values."""
    # In memory first: on a full disk torch.save raises a RuntimeError that does not name the reason.
    content = io.BytesIO()
    torch.save(state, content)
    with files.replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(path: Path) -> State:
    """Read a file of ``save_state``, with all tensors on the CPU."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    try:
        state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged file
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        raise Failure(f"{path} is damaged ({reason}); remove it to train this fold from its beginning") from error
    return state


def save_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    settings: Settings,
    provenance: Provenance,
    more: Mapping[str, str] | None = None,
) -> None:
    """Write the weights of a network, with the settings it is made from and its provenance as metadata.

    Args:
        path: to write.
        weights: of any dtype; ``load_weights`` converts them to float32.
        settings: of the network.
        provenance: of the weights.
        more: further metadata.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    metadata = {"settings": settings.model_dump_json(), "provenance": provenance.model_dump_json(), **(more or {})}
    content = safetensors.torch.save(tensors, metadata=metadata)
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)


def load_weights(path: Path) -> tuple[nn.Module, Settings, Provenance]:
    """Read a file of ``save_weights``: the network in evaluation mode on the CPU, its settings and its provenance."""
    settings, provenance = load_record(path)
    network = make_network(settings, pretrained=False)
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise Failure(f"{path} does not fit the network it describes ({reason}); copy it again") from error
    return network.eval(), settings, provenance


def load_record(path: Path) -> tuple[Settings, Provenance]:
    """Read only the settings and the provenance of a file of ``save_weights``."""
    metadata = read_metadata(path)
    provenance = _provenance(path, metadata)
    try:
        return resolve(json.loads(metadata["settings"])), provenance
    except (Failure, ValueError, RecursionError) as problem:  # ValueError: not JSON
        raise Failure(f"{path}: {problem}; use the version that wrote it, or train its fold again") from problem


def load_provenance(path: Path) -> Provenance:
    """Read only the provenance of a file of ``save_weights``."""
    return _provenance(path, read_metadata(path))


def _provenance(path: Path, metadata: Mapping[str, str]) -> Provenance:
    try:
        return Provenance.model_validate_json(metadata["provenance"])
    except ValidationError as error:
        raise Failure(f"{path} was written by another version of this project; train its fold again") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file of ``save_weights``."""
    if not path.is_file():
        raise Failure(f"no checkpoint {path}; train its fold first: {hint('train', FOLD='n', RUN='...')}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except PermissionError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise Failure(
            f"{path} is damaged ({error}); copy it again, or remove it and run `make train` of its fold, which "
            "writes it again"
        ) from error
    if not metadata.keys() >= DESCRIPTION:
        raise Failure(f"{path} was not written by this project: its metadata does not describe a network")
    return metadata
