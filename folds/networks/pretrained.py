"""timm's encoders, with pretrained weights from the hub, from a file, or none."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from competition.command import Failure
from folds.networks import hub


def make_encoder(name: str, weights: str) -> Any:
    """A timm encoder that returns its features.

    Args:
        name: of a timm model that can give features, or hf-hub:OWNER/NAME.
        weights: "hub", "none", or a file of weights of that model.

    Raises:
        Failure: there is no such encoder, the weights do not fit it, or the hub cannot be reached.
    """
    if ":" in name or (weights == "hub" and timm.is_model(name)):  # hf-hub:OWNER/NAME
        return _from_hub(name, weights)
    try:
        encoder = timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, ValueError, AttributeError) as error:
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
        raise Failure(
            f"network.encoder={name!r} is no timm encoder that gives features ({error})"
            + (f"; there are {near}" if near else "; timm.list_models() lists them")
        ) from error
    if weights != "none":
        _load(encoder, name, Path(weights))
    return encoder


def _from_hub(name: str, weights: str) -> Any:
    """An encoder for which the hub is asked: for its weights, or for what it is."""
    if ":" not in name:
        _require_pretrained(name)
    elif weights not in ("hub", "none"):
        raise Failure(
            f"network.encoder={name} is the hub's, and network.weights={weights} a file; name one of timm's own "
            "encoders with a file, or network.weights=hub"
        )
    try:
        with hub.asked_once():
            return timm.create_model(name, features_only=True, pretrained=weights == "hub")
    except Exception as error:  # the hub's client, its HTTP library and timm each have errors of their own
        reason = str(error).split("\n")[0][:200]
        if weights == "none":
            raise Failure(
                f"cannot load {name} from the hub, which alone knows what it is ({type(error).__name__}: {reason}); "
                "name one of timm's own encoders, which need no hub"
            ) from error
        raise Failure(
            f"cannot load {name}'s pretrained weights from timm's hub ({type(error).__name__}: {reason}); fetch them "
            "on a machine that reaches it and name the file with SET=network.weights=FILE, or train from scratch "
            "with SET=network.weights=none, or PRESET=scratch, which is made for that"
        ) from error


def _require_pretrained(name: str) -> None:
    """Raise a Failure if timm has no weights for a name: no hub that is reached could give them."""
    try:
        config = timm.get_pretrained_cfg(name)
        reason = "" if config is not None and config.has_weights else "none were published"
    except RuntimeError as error:
        reason = str(error)
    if reason:
        near = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}*")[:5])
        raise Failure(
            f"timm has no pretrained weights for network.encoder={name} ({reason}); "
            + (f"there are {near}" if near else "name a file with SET=network.weights=FILE, or none")
        )


def _load(encoder: nn.Module, name: str, path: Path) -> None:
    """Load a file of weights, with timm's own names or with another library's of the whole model in timm's order."""
    weights = _learned(read_weights(path))
    wanted = _learned(encoder.state_dict())
    if not _named_alike(weights, wanted):
        model = timm.create_model(name, pretrained=False)
        weights = match_weights(weights, _learned(model.state_dict()), path, name)
        if not _named_alike(weights, wanted):
            raise Failure(f"{path} fits {name}, but not what of {name} gives features; choose another encoder")
    flat = _flat(weights)
    encoder.load_state_dict({key: flat[key.replace(".", "_")] for key in wanted}, strict=False)


def _learned(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without whole numbers, such as how many batches a batch norm has seen: older files lack those."""
    return {key: value for key, value in weights.items() if value.is_floating_point()}


def _flat(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by names that a whole model and what of it gives features share: timm makes stages.0 stages_0 there."""
    return {key.replace(".", "_"): value for key, value in weights.items()}


def _named_alike(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether weights hold all that an encoder wants, whatever head was trained on it."""
    flat = _flat(weights)
    return all(key in flat and flat[key].shape == value.shape for key, value in _flat(wanted).items())


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or PyTorch file, without unpickling anything else.

    Raises:
        Failure: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise Failure(f"no file of weights {path}; network.weights is hub, none, or a file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise whatever their reader stumbles over
        reason = str(error).partition("\n")[0].partition(". ")[0][:120] or type(error).__name__
        raise Failure(
            f"{path} is no readable file of weights ({reason}); network.weights takes a state dict of tensors, as "
            "torch.save or safetensors writes it"
        ) from error
    for wrapping in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    tensors = dict(content) if isinstance(content, Mapping) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise Failure(f"{path} holds no state dict of tensors; network.weights is hub, none, or a file of weights")
    return tensors


def match_weights(
    weights: Mapping[str, Tensor], model: Mapping[str, Tensor], path: Path, name: str
) -> dict[str, Tensor]:
    """Weights under the model's own names.

    Names that agree are taken by name. Otherwise the file must hold as many tensors as the model, and each must have
    the shape of the model's at the same place: torchvision's files of the same architecture do.

    Raises:
        Failure: the weights do not fit; the first tensor that does not is named.
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
        raise Failure(f"{path} does not fit {name}: it holds {len(weights)} tensors, the encoder {len(model)}")
    return {ours: value for (_, value), (ours, _) in pairs}
