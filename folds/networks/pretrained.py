"""timm's encoders, with pretrained weights from the hub, from a file, or none."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from huggingface_hub import constants, get_session
from torch import Tensor, nn

from competition.command import Failure

HUB_TIMEOUT = 30  # seconds


def make_encoder(name: str, weights: str) -> Any:
    """A timm encoder that returns its features.

    Args:
        name: of a timm model with ``features_only``, or hf-hub:OWNER/NAME.
        weights: "hub", "none", or a file of weights of that model.
    """
    if ":" in name or (weights == "hub" and timm.is_model(name)):  # hf-hub:OWNER/NAME
        return _from_hub(name, weights)
    try:
        encoder = timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, ValueError, AttributeError) as error:
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
        raise Failure(
            f"network.encoder={name!r} is not a timm encoder with features ({error})"
            + (f"; similar names: {near}" if near else "; timm.list_models() lists them")
        ) from error
    if weights != "none":
        _load(encoder, name, Path(weights))
    return encoder


def _from_hub(name: str, weights: str) -> Any:
    """An encoder whose weights or configuration come from the hub, or from the cache of the hub's client."""
    if ":" not in name:
        _require_pretrained(name)
    elif weights not in ("hub", "none"):
        raise Failure(
            f"network.encoder={name} is on the hub, but network.weights={weights} is a file; use one of timm's own "
            "encoders with a file, or network.weights=hub"
        )
    try:
        _require_hub(name)
        return timm.create_model(name, features_only=True, pretrained=weights == "hub")
    except Exception as error:  # the hub's client, its HTTP library and timm have many error types
        reason = str(error).split("\n")[0][:200]
        if weights == "none":
            raise Failure(
                f"cannot load the configuration of {name} from the hub ({type(error).__name__}: {reason}); use "
                "one of timm's own encoders, which need no hub"
            ) from error
        raise Failure(
            f"cannot load {name}'s pretrained weights from timm's hub ({type(error).__name__}: {reason}); download "
            "them on a machine with access and name the file with SET=network.weights=FILE, or train from scratch "
            "with SET=network.weights=none or PRESET=scratch"
        ) from error


def _require_hub(name: str) -> None:
    """Raise the error of the HTTP library if the hub is needed and does not respond.

    The hub's client retries a dozen times and prints each failure. So one request is sent first, unless files of the
    model are in the client's cache.
    """
    repository = name.partition(":")[2] or str(timm.get_pretrained_cfg(name).hf_hub_id)
    folder = f"models--{repository.partition('@')[0].replace('/', '--')}"
    if not (Path(constants.HF_HUB_CACHE) / folder / "snapshots").is_dir():
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)


def _require_pretrained(name: str) -> None:
    """Raise a Failure if timm has published no weights under a name."""
    try:
        config = timm.get_pretrained_cfg(name)
        reason = "" if config is not None and config.has_weights else "none were published"
    except RuntimeError as error:
        reason = str(error)
    if reason:
        near = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}*")[:5])
        raise Failure(
            f"timm has no pretrained weights for network.encoder={name} ({reason}); "
            + (f"similar names: {near}" if near else "name a file with SET=network.weights=FILE, or none")
        )


def _load(encoder: nn.Module, name: str, path: Path) -> None:
    """Load a file of weights, with timm's names, or with another library's names in the same order."""
    weights = _learned(read_weights(path))
    wanted = _learned(encoder.state_dict())
    if not _named_alike(weights, wanted):
        model = timm.create_model(name, pretrained=False)
        weights = match_weights(weights, _learned(model.state_dict()), path, name)
        if not _named_alike(weights, wanted):
            raise Failure(
                f"{path} fits {name}, but not the part of {name} that computes features; choose another encoder"
            )
    flat = _flat(weights)
    encoder.load_state_dict({key: flat[key.replace(".", "_")] for key in wanted}, strict=False)


def _learned(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without integers, such as ``num_batches_tracked``, which older files lack."""
    return {key: value for key, value in weights.items() if value.is_floating_point()}


def _flat(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under flat names: with ``features_only``, timm renames stages.0 to stages_0."""
    return {key.replace(".", "_"): value for key, value in weights.items()}


def _named_alike(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether weights contain all tensors of an encoder; they may also have a head."""
    flat = _flat(weights)
    return all(key in flat and flat[key].shape == value.shape for key, value in _flat(wanted).items())


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or PyTorch file; nothing else is unpickled."""
    if not path.is_file():
        raise Failure(f"there is no file {path}; network.weights is hub, none, or a file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise many types
        reason = str(error).partition("\n")[0].partition(". ")[0][:120] or type(error).__name__
        raise Failure(
            f"{path} is not a readable file of weights ({reason}); network.weights takes a state dict of tensors, as "
            "torch.save or safetensors writes it"
        ) from error
    for wrapping in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    tensors = dict(content) if isinstance(content, Mapping) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise Failure(
            f"{path} does not contain a state dict of tensors; network.weights is hub, none, or a file of weights"
        )
    return tensors


def match_weights(
    weights: Mapping[str, Tensor], model: Mapping[str, Tensor], path: Path, name: str
) -> dict[str, Tensor]:
    """Weights under the model's own names.

    Tensors are matched by name if all names agree, else by position: then the file must have as many tensors as the
    model, with the same shapes in the same order, as torchvision's files of the same architecture have.
    """
    if all(key in weights and weights[key].shape == model[key].shape for key in model):
        return {key: weights[key] for key in model}
    pairs = list(zip(weights.items(), model.items(), strict=False))
    for (theirs, value), (ours, wanted) in pairs:
        if value.shape != wanted.shape:
            raise Failure(
                f"{path} does not fit {name}: its {theirs} has shape {tuple(value.shape)}, where {ours} has "
                f"{tuple(wanted.shape)}; is it the file of another encoder?"
            )
    if len(weights) != len(model):
        raise Failure(f"{path} does not fit {name}: it has {len(weights)} tensors, and the encoder {len(model)}")
    return {ours: value for (_, value), (ours, _) in pairs}
