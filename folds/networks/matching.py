"""Which tensors of a file of weights belong to which parameters of an encoder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from competition.command import Failure
from competition.plural import counted
from folds.networks.weight_file import WeightFile, Weights, read_weights


class Fit(NamedTuple):
    """Tensors that fit a module by their names.

    Attributes:
        place: where they are in the file, with the prefix of their names.
        module: that they fit.
        weights: of the module, under its own names.
    """

    place: str
    module: nn.Module
    weights: dict[str, Tensor]


def load_file(encoder: nn.Module, name: str, path: Path) -> None:
    """Load a file of weights with timm's names, or with another library's names in the same order.

    The names may have a prefix, as those of a larger network, of DistributedDataParallel or of Lightning have. An
    exponential moving average of the weights is preferred, as timm does.
    """
    file = read_weights(path)
    fit = _preferred(list(_fits(encoder, file.sets)), path) or _by_position(encoder, name, file, path)
    for key, value in fit.weights.items():
        if not torch.isfinite(value).all():
            raise Failure(f"{path} has values in {key} that are not finite; use weights from another epoch")
    fit.module.load_state_dict(fit.weights, strict=False)


def _fits(encoder: nn.Module, sets: Mapping[str, Weights]) -> Iterator[Fit]:
    """All tensors in a file that fit an encoder, or the whole model that timm has wrapped to get its features."""
    children = dict(encoder.named_children())
    module = next(iter(children.values())) if len(children) == 1 and children.keys() <= {"model", "body"} else encoder
    wanted = _learned(module.state_dict())
    flat_names = {_flat(key): key for key in wanted}
    first = next(iter(flat_names))
    for place, weights in sets.items():
        flat = {_flat(key): value for key, value in _learned(weights).items()}
        for prefix in [key.removesuffix(first) for key in flat if key.endswith(first)]:
            found = {key: flat[prefix + name] for name, key in flat_names.items() if prefix + name in flat}
            if found.keys() == wanted.keys() and all(found[key].shape == wanted[key].shape for key in wanted):
                yield Fit(f"{place} {prefix}".strip(), module, found)


def _preferred(fits: list[Fit], path: Path) -> Fit | None:
    averages = [fit for fit in fits if "ema" in fit.place.lower()]
    chosen = averages or fits
    if len(chosen) > 1:
        places = ", ".join(fit.place or "the whole file" for fit in chosen)
        raise Failure(f"{path} has the weights of several networks that fit ({places}); save one of them as a file")
    return chosen[0] if chosen else None


def _by_position(encoder: Any, name: str, file: WeightFile, path: Path) -> Fit:
    """The tensors of a file under the names of the encoder, by their order."""
    import timm  # see pretrained.py

    place = max(file.sets, key=lambda place: ("ema" in place.lower(), len(file.sets[place])))
    model = _learned(timm.create_model(name, pretrained=False).state_dict())
    matched = match_weights(_learned(file.sets[place]), model, path, name, file.architecture)
    fit = next(_fits(encoder, {"": matched}), None)
    if fit is None:
        raise Failure(
            f"{path} fits {name}, but not the part of {name} that computes features; choose another encoder"
        )
    return fit


def match_weights(
    weights: Weights, model: Weights, path: Path, name: str, architecture: str = ""
) -> dict[str, Tensor]:
    """Weights under the model's own names, by position.

    The file must have as many tensors as the model, with the same shapes in the same order, as torchvision's files of
    the same architecture have.

    Args:
        weights: of the file.
        model: the weights of the model.
        path: of the file.
        name: of the model.
        architecture: that the file names, "" if it names none.
    """
    advice = (
        f"the file says that it is for network.encoder={architecture}"
        if architecture and architecture != name.partition(".")[0]
        else "is it the file of another encoder?"
    )
    _require_same_names(weights, model, f"{path} does not fit {name}", advice)
    pairs = list(zip(weights.items(), model.items(), strict=False))
    for (theirs, value), (ours, wanted) in pairs:
        if value.shape != wanted.shape:
            raise Failure(
                f"{path} does not fit {name}: its {theirs} has shape {tuple(value.shape)}, where {ours} has "
                f"{tuple(wanted.shape)}; {advice}"
            )
    if len(weights) != len(model):
        raise Failure(
            f"{path} does not fit {name}: it has {len(weights)} tensors, and the encoder {len(model)}; {advice}"
        )
    return {ours: value for (_, value), (ours, _) in pairs}


def _require_same_names(weights: Weights, model: Weights, problem: str, advice: str) -> None:
    """Raise a Failure that names tensors, if most names agree but some tensors are missing or have another shape."""
    shared = [key for key in model if key in weights]
    if 2 * len(shared) < len(model):
        return
    other = [key for key in shared if weights[key].shape != model[key].shape]
    first = next(iter(model))
    if first in other and weights[first].ndim == 4 and weights[first].shape[2:] == model[first].shape[2:]:
        channels = weights[first].shape[1]
        raise Failure(
            f"{problem}: its first convolution {first} takes images of {counted(channels, 'channel')}, and "
            "photos have 3; use weights for RGB photos"
        )
    if other:
        raise Failure(
            f"{problem}: {len(other)} of its tensors have other shapes, such as {other[0]} with shape "
            f"{tuple(weights[other[0]].shape)}, where the encoder has {tuple(model[other[0]].shape)}; {advice}"
        )
    missing = [key for key in model if key not in weights]
    if missing:
        raise Failure(f"{problem}: it lacks {len(missing)} tensors, such as {missing[0]}; {advice}")


def _learned(weights: Weights) -> dict[str, Tensor]:
    """Weights without integers, such as ``num_batches_tracked``, which older files lack."""
    return {key: value for key, value in weights.items() if value.is_floating_point()}


def _flat(name: str) -> str:
    """The flat name of a tensor: with ``features_only``, timm renames stages.0 to stages_0."""
    return name.replace(".", "_")
