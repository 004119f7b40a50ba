"""What training leaves on disk: where it goes on, and the weights it found.

Both are written to a temporary name and renamed, and neither is unpickled into anything but tensors and plain values.
"""

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from competition import atomic
from competition.command import Failure
from competition.settings import Settings, resolve
from folds.networks import make_network

State = dict[str, Any]


def save_state(path: Path, state: State) -> None:
    """Write the state of a training, nested dicts of tensors and plain values, atomically."""
    with atomic.replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> State:
    """The state that ``save_state`` wrote.

    Raises:
        Failure: the file is damaged; it says what to do.
    """
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises whatever its reader stumbles over
        raise Failure(
            f"{path} is damaged ({str(error).splitlines()[0][:120]}); remove it to train this fold from its beginning"
        ) from error
    return state


def save_weights(path: Path, network: nn.Module, settings: Settings, facts: dict[str, Any]) -> None:
    """Write a network's weights, the settings that make the network, and facts about them, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {"settings": settings.model_dump_json(), "facts": json.dumps(facts)}
    with atomic.replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)


def load_weights(path: Path) -> tuple[nn.Module, Settings, dict[str, Any]]:
    """The network in a file of ``save_weights``, in evaluation mode on the CPU, its settings, and the facts.

    Raises:
        Failure: the file is missing, damaged, or not one of this project's.
    """
    if not path.is_file():
        raise Failure(f"no checkpoint {path}; train its fold first (make train FOLD=n RUN=...)")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise Failure(f"{path} is damaged ({error}); train its fold again, or copy it again") from error
    if "settings" not in metadata:
        raise Failure(f"{path} was not written by this project: it does not say which network it is for")
    settings = resolve(json.loads(metadata["settings"]))
    network = make_network(settings, pretrained=False)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise Failure(f"{path} does not fit the network it describes ({str(error).splitlines()[0]})") from error
    return network.eval(), settings, json.loads(metadata["facts"])
