"""The U-Net of Ronneberger et al. (2015), with padded convolutions and normalization.

Every network of this project takes (N, 3, H, W) uint8 RGB and returns (N, 1, H, W) logits.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from competition.settings.schema import Norm

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """uint8 pixels to float32 of about zero mean and unit variance; on the device, so bytes are transferred."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> None:
        super().__init__()
        scale = 1 / (255 * torch.tensor(std))
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", (-255 * torch.tensor(mean) * scale).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to float32."""
        return torch.addcmul(self.shift, pixels.float(), self.scale)


class DoubleConvolution(nn.Sequential):
    """Two 3 x 3 convolutions, each followed by normalization and ReLU.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        norm: batch, or group (Wu and He, 2018), which does not depend on the batch.
    """

    def __init__(self, channels_in: int, channels: int, norm: Norm = "batch") -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            normalization(norm, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            normalization(norm, channels),
            nn.ReLU(inplace=True),
        )


class Expansion(DoubleConvolution):
    """A level of the expanding path: the feature map below at twice its size, the skip connections, two convolutions.

    Args:
        below: channels of the feature map below.
        skips: channels of all skip connections.
        channels: channels of the output.
        norm: as in ``DoubleConvolution``.
    """

    def __init__(self, below: int, skips: int, channels: int, norm: Norm = "batch") -> None:
        super().__init__(below + skips, channels, norm)
        self.below = below

    def forward(self, x: Tensor, *skips: Tensor) -> Tensor:
        """(N, below, H / 2, W / 2) and skip connections of (N, ..., H, W) to (N, channels, H, W)."""
        joined = torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), *skips], dim=1)
        convolved: Tensor = super().forward(joined)  # type: ignore[no-untyped-call]
        return convolved


def normalization(norm: Norm, channels: int) -> nn.Module:
    """A layer that normalizes (N, channels, H, W); groups are 8, or as many as divide the channels."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(channels, 8), channels)


class SpaceToDepth(nn.Module):
    """(N, C, H, W) to (N, C * factor^2, H / factor, W / factor), channels-last.

    Args:
        factor: side of the squares of pixels that become channels.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> Tensor:
        """Rearrange images; with factor 1 they stay as they are.

        On a GPU ``pixel_unshuffle`` returns a contiguous tensor, and the convolutions of this level would follow it.
        """
        if self.factor == 1:
            return image
        return F.pixel_unshuffle(image, self.factor).contiguous(memory_format=torch.channels_last)


class UNet(nn.Module):
    """A contracting path, an expanding path, and skip connections between their levels.

    Args:
        width: channels of the first level; each further level has twice as many.
        depth: number of times the size is halved.
        stem: factor of space-to-depth at the input (``pixel_unshuffle``), undone at the output (``pixel_shuffle``;
            Shi et al., 2016). With 2 there are no full-size levels, which take most of a small U-Net's time, and
            every pixel still has its own logit.
        max_width: limit of the channels of a level.
        norm: normalization after each convolution.
    """

    def __init__(self, width: int, depth: int, stem: int = 1, max_width: int = 1024, norm: Norm = "batch") -> None:
        super().__init__()
        widths = [min(width * 2**level, max_width) for level in range(depth + 1)]
        self.stem = stem
        self.normalize = Normalize()
        self.space_to_depth = SpaceToDepth(stem)
        inputs = [3 * stem**2, *widths[:-1]]
        self.contracting = nn.ModuleList(DoubleConvolution(*pair, norm) for pair in zip(inputs, widths, strict=True))
        self.expanding = nn.ModuleList(
            Expansion(widths[level + 1], widths[level], widths[level], norm) for level in reversed(range(depth))
        )
        self.head = nn.Conv2d(widths[0], stem**2, 1)

    @property
    def divisor(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.stem << len(self.expanding)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB to (N, 1, H, W) logits."""
        x = self.space_to_depth(self.normalize(pixels))
        skips = []
        for level, block in enumerate(self.contracting):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.expanding:
            x = block(x, skips.pop())
        return F.pixel_shuffle(self.head(x), self.stem)
