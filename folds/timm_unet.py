"""The same decoder on any timm encoder, with pretrained weights from the hub, from a file, or none."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from competition.command import Failure
from folds.unet import DoubleConvolution, Normalise


class TimmUNet(nn.Module):
    """A timm encoder, and a decoder with a skip connection at every level where the encoder has one.

    At full size, where no encoder has a feature, the normalised photograph itself is the skip connection: one-pixel
    antennas are drawn from it.

    Args:
        encoder: name of a timm model that can give features.
        weights: "hub", "none", or a file of weights of that model.
        decoder: channels of the decoder's levels, coarse to fine. With fewer levels than the encoder halves the
            size, the answer is enlarged to full size at the end.

    Raises:
        Failure: there is no such encoder, the weights do not fit it, or the hub cannot be reached.
    """

    def __init__(self, encoder: str, weights: str, decoder: list[int]) -> None:
        super().__init__()
        self.encoder: Any = make_encoder(encoder, weights)
        config = self.encoder.pretrained_cfg
        self.normalise = Normalise(tuple(config["mean"]), tuple(config["std"]))
        channels = dict(zip(self.encoder.feature_info.reduction(), self.encoder.feature_info.channels(), strict=True))
        channels.setdefault(1, 3)
        self.coarsest = max(channels)
        if 2 ** len(decoder) > self.coarsest:
            raise Failure(
                f"network.decoder has {len(decoder)} levels, but {encoder} halves the size only "
                f"{self.coarsest.bit_length() - 1} times; give as many channels or fewer"
            )
        below = channels[self.coarsest]
        self.blocks = nn.ModuleList()
        for level, width in enumerate(decoder, start=1):
            self.blocks.append(DoubleConvolution(below + channels.get(self.coarsest >> level, 0), width))
            below = width
        self.head = nn.Conv2d(below, 1, 1)

    @property
    def divisor(self) -> int:
        """What height and width of the input must be multiples of."""
        return int(self.coarsest)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB to (N, 1, H, W) logits."""
        image = self.normalise(pixels)
        skips = dict(zip(self.encoder.feature_info.reduction(), self.encoder(image), strict=True))
        skips.setdefault(1, image)
        reduction = self.coarsest
        x = skips[reduction]
        for block in self.blocks:
            reduction //= 2
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, skips[reduction]], dim=1) if reduction in skips else x)
        logits: Tensor = self.head(x)
        if reduction > 1:
            logits = F.interpolate(logits, scale_factor=float(reduction), mode="bilinear", align_corners=False)
        return logits


def make_encoder(name: str, weights: str) -> Any:
    """A timm encoder that returns its features, with weights; see ``TimmUNet``."""
    if weights == "hub" and (timm.is_model(name) or ":" in name):  # hf-hub:OWNER/NAME
        return _from_hub(name)
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


def _from_hub(name: str) -> Any:
    try:
        return timm.create_model(name, features_only=True, pretrained=True)
    except Exception as error:  # the hub's client, its HTTP library and timm each have errors of their own
        reason = str(error).split("\n")[0][:200]
        raise Failure(
            f"cannot load {name}'s pretrained weights from timm's hub ({type(error).__name__}: {reason}); fetch them "
            "on a machine that reaches it and name the file with SET=network.weights=FILE, or train from scratch "
            "with SET=network.weights=none"
        ) from error


def _load(encoder: nn.Module, name: str, path: Path) -> None:
    """Load a file of weights of the whole model, with timm's own names or with another library's in timm's order."""
    model = timm.create_model(name, pretrained=False)
    weights = match_weights(read_weights(path), model.state_dict(), path, name)
    # What gives features is the whole model without its head; timm flattens some names, stages.0 to stages_0.
    flat = {key.replace(".", "_"): value for key, value in weights.items()}
    wanted = encoder.state_dict()
    missing = [key for key in wanted if key.replace(".", "_") not in flat]
    if missing:
        raise Failure(f"{path} has no weights for {len(missing)} tensors of {name}'s encoder, such as {missing[0]}")
    encoder.load_state_dict({key: flat[key.replace(".", "_")] for key in wanted})


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
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
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
