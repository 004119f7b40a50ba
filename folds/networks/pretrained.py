"""timm's encoders, with pretrained weights from the hub, from a file, or none.

timm is imported inside functions: with torchvision its import takes as long as that of torch, and commands that have
nothing to do, or networks of their own, do not need it.
"""

import difflib
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session

from competition.command import Failure
from folds.networks.matching import load_file

HUB_TIMEOUT = 30  # seconds


def make_encoder(name: str, weights: str) -> Any:
    """A timm encoder that returns its features.

    Args:
        name: of a timm model with ``features_only``, or hf-hub:OWNER/NAME.
        weights: "hub", "none", or a file of weights of that model.
    """
    import timm

    if ":" in name or (weights == "hub" and timm.is_model(name)):  # hf-hub:OWNER/NAME
        return _from_hub(name, weights)
    try:
        encoder = _create(name, pretrained=False)
    except (RuntimeError, ValueError, AttributeError) as error:
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
        raise Failure(
            f"network.encoder={name!r} is not a timm encoder with features ({error})"
            + (f"; similar names: {near}" if near else "; timm.list_models() lists them")
        ) from error
    if weights != "none":
        load_file(encoder, name, Path(weights))
    return encoder


def _create(name: str, pretrained: bool) -> Any:
    """A timm model that returns its features; of any input size, if the model can."""
    import timm

    config = None if ":" in name else timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        try:
            return timm.create_model(name, features_only=True, pretrained=pretrained, dynamic_img_size=True)
        except TypeError:  # the model has no such argument
            pass
    return timm.create_model(name, features_only=True, pretrained=pretrained)


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
        return _create(name, pretrained=weights == "hub")
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
    import timm

    repository = name.partition(":")[2] or str(timm.get_pretrained_cfg(name).hf_hub_id)
    folder = f"models--{repository.partition('@')[0].replace('/', '--')}"
    if not (Path(constants.HF_HUB_CACHE) / folder / "snapshots").is_dir():
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)


def _require_pretrained(name: str) -> None:
    """Raise a Failure if timm has published no weights under a name."""
    import timm

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
