"""A U-Net decoder on any timm encoder."""

from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from competition.command import Failure
from competition.settings.schema import Norm
from folds.networks.pretrained import make_encoder
from folds.networks.unet import DoubleConvolution, Expansion, Normalize, SpaceToDepth


class TimmUNet(nn.Module):
    """A timm encoder, and a decoder with a skip connection at every level where the encoder has a feature.

    The last level of the decoder also gets the normalized photo, or two convolutions of it, for one-pixel details
    such as antennas.

    Args:
        encoder: name of a timm model with ``features_only``.
        weights: "hub", "none", or a file of weights of that model.
        decoder: channels of the levels of the decoder, coarse to fine. If there are fewer levels than the encoder
            halves the size, the logits are resized to full size at the end.
        norm: normalization in the decoder.
        detail: channels of two convolutions on the photo, before it joins the last level; 0 for none.
        stem: factor of space-to-depth for the photo at the last level of the decoder, undone at the output, as in
            ``folds.networks.unet.UNet``. With 2, that level has a quarter of the positions.
        freeze: number of encoder features, finest first, whose layers keep their weights and statistics. These layers
            are the largest and slowest, and the least specific to cars.
    """

    def __init__(
        self,
        encoder: str,
        weights: str,
        decoder: list[int],
        *,
        norm: Norm = "batch",
        detail: int = 0,
        stem: int = 1,
        freeze: int = 0,
    ) -> None:
        super().__init__()
        self.encoder: Any = make_encoder(encoder, weights)
        config = self.encoder.pretrained_cfg
        self.normalize = Normalize(tuple(config["mean"]), tuple(config["std"]))
        self.channels_come_last = getattr(self.encoder, "output_fmt", "NCHW") == "NHWC"
        reductions = self.encoder.feature_info.reduction()
        _require_halvings(encoder, reductions)
        channels = dict(zip(reductions, self.encoder.feature_info.channels(), strict=True))
        self.coarsest = max(channels)
        self.stem = stem
        self.space_to_depth = SpaceToDepth(stem)
        _require_levels(encoder, self.coarsest, len(decoder), stem, detail)
        self.detail = DoubleConvolution(3 * stem**2, detail, norm) if detail else None
        channels[stem] = channels.get(stem, 0) + (detail or 3 * stem**2)
        below = channels[self.coarsest]
        self.blocks = nn.ModuleList()
        for level, width in enumerate(decoder, start=1):
            self.blocks.append(Expansion(below, channels.get(self.coarsest >> level, 0), width, norm))
            below = width
        self.head = nn.Conv2d(below, stem**2, 1)
        # The factor that resizes the logits of a decoder that ends before full size.
        self.beyond = (self.coarsest >> len(decoder)) // stem
        self.frozen = first_modules(self.encoder, freeze, encoder)
        for name in self.frozen:
            for parameter in self.encoder.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(False)

    @property
    def divisor(self) -> int:
        """Height and width of the input must be multiples of this."""
        return int(self.coarsest)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen modules stay in evaluation mode and keep their running statistics."""
        super().train(mode)
        for name in self.frozen:  # by name: with several GPUs, SyncBatchNorm has replaced modules
            self.encoder.get_submodule(name).training = False
        return self

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's features of normalized images, fine to coarse, each (N, C, H, W).

        Some encoders, such as Swin, compute in (N, H, W, C).
        """
        features: list[Tensor] = self.encoder(image)
        return [x.permute(0, 3, 1, 2) for x in features] if self.channels_come_last else features

    def require_true_reductions(self, image: Tensor) -> None:
        """Raise a ValueError if a feature that is used does not have the size that timm names, as without padding."""
        height, width = image.shape[2:]
        info = self.encoder.feature_info
        for size, channels, x in zip(info.reduction(), info.channels(), self.features(image), strict=True):
            used = size >= self.coarsest >> len(self.blocks)
            if used and x.shape[1:] != (channels, height // size, width // size):
                raise ValueError(
                    f"its feature at 1/{size} of the size has shape {tuple(x.shape[1:])}, not "
                    f"{(channels, height // size, width // size)}"
                )

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB to (N, 1, H, W) logits."""
        image = self.normalize(pixels)
        features = self.features(image)
        skips = {size: [x] for size, x in zip(self.encoder.feature_info.reduction(), features, strict=True)}
        unshuffled = self.space_to_depth(image)
        # In the dtype of the features: concatenating float32 would convert the finest level.
        photo = (self.detail(unshuffled) if self.detail else unshuffled).to(features[0].dtype)
        skips.setdefault(self.stem, []).append(photo)
        reduction = self.coarsest
        x = features[-1]
        for block in self.blocks:
            reduction //= 2
            x = block(x, *skips.get(reduction, []))
        logits = F.pixel_shuffle(self.head(x), self.stem)
        if self.beyond > 1:
            logits = F.interpolate(logits, scale_factor=float(self.beyond), mode="bilinear", align_corners=False)
        return logits


def _require_halvings(encoder: str, reductions: list[int]) -> None:
    """Raise a Failure unless an encoder's features have 1/2, 1/4, 1/8 ... of the size of the image."""
    for reduction in reductions:
        if reduction & (reduction - 1):
            raise Failure(
                f"network.encoder={encoder} has a feature at 1/{reduction} of the size, but the decoder only doubles "
                "sizes and needs 1/2, 1/4, 1/8 and so on; choose another encoder"
            )


def _require_levels(encoder: str, coarsest: int, levels: int, stem: int, detail: int) -> None:
    """Raise a Failure if a decoder has too many levels for its encoder, or too few for its stem or detail."""
    halvings = coarsest.bit_length() - 1
    if levels > halvings:
        raise Failure(
            f"network.decoder has {levels} levels, but {encoder} halves the size only {halvings} times; give it at "
            f"most {halvings} channels"
        )
    wanted = halvings - (stem.bit_length() - 1)
    if stem > 1 and levels != wanted:
        raise Failure(
            f"network.stem={stem} with {encoder} needs a decoder of {wanted} levels, but network.decoder has "
            f"{levels}; give it {wanted} channels"
        )
    if detail and levels != wanted:
        raise Failure(
            f"network.detail={detail} needs a decoder of {wanted} levels, but network.decoder has {levels}; give it "
            f"{wanted} channels, or set network.detail=0"
        )


def first_modules(encoder: Any, features: int, name: str) -> list[str]:
    """The names of the modules that compute an encoder's first features, the finest ones.

    Args:
        encoder: a timm encoder, whose modules are registered in the order in which they are applied.
        features: number of features.
        name: of the encoder.
    """
    lasts = [
        last.replace(".", "_") for last in encoder.feature_info.module_name()
    ]  # timm renames stages.0 to stages_0
    if features > len(lasts):
        raise Failure(
            f"network.freeze={features}, but {name} has only {len(lasts)} features; freeze at most {len(lasts)}"
        )
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
        if here and not last.startswith(f"{here}_"):  # not a parent of later modules
            found.append(path)
    return found
