"""What training leaves on disk: where it goes on, and the weights it found.

Both are written to a temporary name and renamed, and neither is unpickled into anything but tensors and plain values.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from competition import files
from competition.command import Failure, os_reason
from competition.settings.resolve import resolve
from competition.settings.schema import Settings
from folds.networks.build import make_network

State = dict[str, Any]


def save_state(path: Path, state: State) -> None:
    """Write the state of a training, nested dicts of tensors and plain values, atomically."""
    # In memory first: where the disk is full, torch raises a RuntimeError that does not say so.
    content = io.BytesIO()
    torch.save(state, content)
    with files.replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(path: Path) -> State:
    """The state that ``save_state`` wrote.

    Raises:
        Failure: the file cannot be read or is damaged; it says what to do.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    try:
        state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises whatever its reader stumbles over
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        raise Failure(f"{path} is damaged ({reason}); remove it to train this fold from its beginning") from error
    return state


def save_weights(path: Path, weights: Mapping[str, Tensor], settings: Settings, facts: dict[str, Any]) -> None:
    """Write a network's weights, the settings that make the network, and facts about them, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    metadata = {"settings": settings.model_dump_json(), "facts": json.dumps(facts)}
    content = safetensors.torch.save(tensors, metadata=metadata)
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)


def load_weights(path: Path) -> tuple[nn.Module, Settings, dict[str, Any]]:
    """The network in a file of ``save_weights``, in evaluation mode on the CPU, its settings, and the facts.

    Raises:
        Failure: the file is missing, damaged, of another version, or not one of this project's.
    """
    metadata, tensors = _content(path)
    try:
        settings = resolve(json.loads(metadata["settings"]))
    except Failure as problem:
        raise Failure(f"{path}: {problem}; it needs the version that wrote it, or train its fold again") from problem
    network = make_network(settings, pretrained=False)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise Failure(f"{path} does not fit the network it describes ({reason}); copy it again") from error
    return network.eval(), settings, json.loads(metadata["facts"])


def load_facts(path: Path) -> dict[str, Any]:
    """The facts in a file of ``save_weights``; raises Failure where ``load_weights`` finds the file itself wrong."""
    metadata, _ = _content(path, tensors=False)
    facts: dict[str, Any] = json.loads(metadata["facts"])
    return facts


def _content(path: Path, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata of a file of ``save_weights``, and its tensors where they are wanted."""
    if not path.is_file():
        raise Failure(f"no checkpoint {path}; train its fold first (make train FOLD=n RUN=...)")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        loaded = safetensors.torch.load_file(path) if tensors else {}
    except PermissionError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise Failure(
            f"{path} is damaged ({error}); copy it again, or remove it: `make train` of its fold writes it again"
        ) from error
    if not {"settings", "facts"} <= metadata.keys():
        raise Failure(f"{path} was not written by this project: it does not say which network it is for")
    return metadata, loaded
