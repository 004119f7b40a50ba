"""The same decoder on any timm encoder."""

from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from competition.command import Failure
from competition.settings.schema import Norm
from folds.networks.pretrained import make_encoder
from folds.networks.unet import DoubleConvolution, Normalise


class TimmUNet(nn.Module):
    """A timm encoder, and a decoder with a skip connection at every level where the encoder has one.

    At the decoder's last level the normalised photo itself, or what two convolutions make of it, joins the skip
    connection: one-pixel antennas are drawn from it.

    Args:
        encoder: name of a timm model that can give features.
        weights: "hub", "none", or a file of weights of that model.
        decoder: channels of the decoder's levels, coarse to fine. With fewer levels than the encoder halves the
            size, the answer is enlarged to full size at the end.
        norm: normalisation in the decoder.
        attention: scse puts ``ScSE`` behind each level of the decoder.
        enlarge: how a level of the decoder doubles the size.
        detail: channels of the convolutions on the photo that joins the last level; 0 is the photo itself.
        stem: side of the squares of pixels that join as channels of one, at the decoder's last level, and leave it as
            pixels again, as in ``folds.networks.unet.UNet``. With 2, that level has a quarter of the places.
        freeze: how many of the encoder's features, finest first, are made by layers that keep their weights and
            statistics. They are the largest in size, the slowest to train, and the least about cars.

    Raises:
        Failure: there is no such encoder, the weights do not fit it, the hub cannot be reached, or the decoder does
            not suit the encoder.
    """

    def __init__(
        self,
        encoder: str,
        weights: str,
        decoder: list[int],
        *,
        norm: Norm = "batch",
        attention: Literal["none", "scse"] = "none",
        enlarge: Literal["nearest", "bilinear"] = "nearest",
        detail: int = 0,
        stem: int = 1,
        freeze: int = 0,
    ) -> None:
        super().__init__()
        self.encoder: Any = make_encoder(encoder, weights)
        self.enlarge = enlarge
        config = self.encoder.pretrained_cfg
        self.normalise = Normalise(tuple(config["mean"]), tuple(config["std"]))
        channels = dict(zip(self.encoder.feature_info.reduction(), self.encoder.feature_info.channels(), strict=True))
        self.coarsest = max(channels)
        self.stem = stem
        _require_levels(encoder, self.coarsest, len(decoder), stem, detail)
        self.detail = DoubleConvolution(3 * stem**2, detail, norm) if detail else None
        channels[stem] = channels.get(stem, 0) + (detail or 3 * stem**2)
        below = channels[self.coarsest]
        self.blocks = nn.ModuleList()
        for level, width in enumerate(decoder, start=1):
            block = DoubleConvolution(below + channels.get(self.coarsest >> level, 0), width, norm)
            self.blocks.append(block.append(ScSE(width)) if attention == "scse" else block)
            below = width
        self.head = nn.Conv2d(below, stem**2, 1)
        # How many times the answer is enlarged behind a decoder that ends early.
        self.beyond = (self.coarsest >> len(decoder)) // stem
        self.frozen = first_modules(self.encoder, freeze, encoder)
        for name in self.frozen:
            for parameter in self.encoder.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(False)

    @property
    def divisor(self) -> int:
        """What height and width of the input must be multiples of."""
        return int(self.coarsest)

    def train(self, mode: bool = True) -> Self:
        """As every module's, except that what is frozen keeps the statistics of its normalisations."""
        super().train(mode)
        for name in self.frozen:  # by name: several GPUs replace normalisations by synchronised ones
            self.encoder.get_submodule(name).training = False
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB to (N, 1, H, W) logits."""
        image = self.normalise(pixels)
        features = self.encoder(image)
        skips = {size: [x] for size, x in zip(self.encoder.feature_info.reduction(), features, strict=True)}
        squares = F.pixel_unshuffle(image, self.stem)
        # In the features' type: joined as float32, the finest level would be copied to it and back.
        photo = (self.detail(squares) if self.detail else squares).to(features[0].dtype)
        skips.setdefault(self.stem, []).append(photo)
        reduction = self.coarsest
        x = features[-1]
        for block in self.blocks:
            reduction //= 2
            x = F.interpolate(x, scale_factor=2.0, mode=self.enlarge)
            x = block(torch.cat([x, *skips.get(reduction, [])], dim=1))
        logits = F.pixel_shuffle(self.head(x), self.stem)
        if self.beyond > 1:
            logits = F.interpolate(logits, scale_factor=float(self.beyond), mode="bilinear", align_corners=False)
        return logits


def _require_levels(encoder: str, coarsest: int, levels: int, stem: int, detail: int) -> None:
    """Raise a Failure where a decoder is too long for its encoder, or too short for what joins at its end."""
    halvings = coarsest.bit_length() - 1
    if levels > halvings:
        raise Failure(
            f"network.decoder has {levels} levels, but {encoder} halves the size only {halvings} times; give as many "
            "channels or fewer"
        )
    wanted = halvings - (stem.bit_length() - 1)
    if stem > 1 and levels != wanted:
        raise Failure(
            f"network.stem={stem} makes pixels of the decoder's last level, which {encoder} reaches with {wanted} "
            f"levels, not {levels}; give network.decoder {wanted} channels"
        )
    if detail and levels != wanted:
        raise Failure(
            f"network.detail={detail} joins the last level of a decoder of {wanted}, but network.decoder has "
            f"{levels}; give it {wanted} channels, or network.detail=0"
        )


def first_modules(encoder: Any, features: int, name: str) -> list[str]:
    """The names of the modules that make an encoder's first features, the finest ones.

    Args:
        encoder: a timm encoder, whose modules are registered in the order in which they compute.
        features: how many features.
        name: the encoder's.

    Raises:
        Failure: it has fewer features.
    """
    lasts = [last.replace(".", "_") for last in encoder.feature_info.module_name()]  # timm makes stages.0 stages_0
    if features > len(lasts):
        raise Failure(f"network.freeze={features}, but {name} has {len(lasts)} features; freeze that many or fewer")
    if not features:
        return []
    last = lasts[features - 1]
    found, reached = [], False
    for path, _ in encoder.named_modules():
        here = path.replace(".", "_")
        within = f"{here}_".startswith(f"{last}_")
        if reached and not within:
            break
        reached |= within
        if here and not last.startswith(f"{here}_"):  # not what holds the later ones too
            found.append(path)
    return found


class ScSE(nn.Module):
    """Concurrent spatial and channel squeeze and excitation (Roy et al., 2018), the two added as in the paper.

    Args:
        channels: of the input and the output.
        reduction: how many times fewer the squeezed channels are; the paper's best is 2.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        excited: Tensor = x * (self.channel(x) + self.spatial(x))
        return excited
