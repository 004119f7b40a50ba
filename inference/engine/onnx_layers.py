"""Layers of the networks in the form that onnxruntime computes fastest. Predictions stay the same up to rounding.

torch keeps the networks as they are trained.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from folds.networks.unet import Expansion, SpaceToDepth
from inference.engine.fusion import fuse_batch_norm


class TransposedExpansion(nn.Module):
    """An ``Expansion`` without the enlarged feature map: one transposed convolution enlarges and convolves.

    A nearest-neighbour enlargement by 2 repeats each value twice along both axes. A 3 x 3 convolution of the result
    multiplies several of its weights by the same value. A 4 x 4 transposed convolution with stride 2 has the sums of
    these weights: 4 products instead of 9 for each channel and output pixel. Convolution is linear, so the skip
    connections are convolved on their own and added.

    Args:
        expansion: in evaluation mode, its batch normalization already folded into its convolutions.
    """

    def __init__(self, expansion: Expansion) -> None:
        super().__init__()
        convolution, *rest = expansion.children()
        assert isinstance(convolution, nn.Conv2d)
        self.below = nn.Parameter(transposed(convolution.weight[:, : expansion.below]))
        self.skips = nn.Parameter(convolution.weight[:, expansion.below :])
        self.bias = convolution.bias
        self.rest = nn.Sequential(*rest)

    def forward(self, x: Tensor, *skips: Tensor) -> Tensor:
        """As ``Expansion.forward``."""
        total = F.conv_transpose2d(x, self.below, self.bias, stride=2, padding=1)
        if skips:
            total = total + F.conv2d(torch.cat(skips, dim=1) if len(skips) > 1 else skips[0], self.skips, padding=1)
        result: Tensor = self.rest(total)
        return result


class ConvolvedSpaceToDepth(nn.Module):
    """``SpaceToDepth`` as a convolution with weights of 0 and 1; onnxruntime is slow to rearrange an image.

    Args:
        factor: as in ``SpaceToDepth``.
        channels: C of the images.
    """

    kernel: Tensor

    def __init__(self, factor: int, channels: int) -> None:
        super().__init__()
        self.factor = factor
        one_each = torch.eye(channels * factor**2).view(-1, channels, factor, factor)
        self.register_buffer("kernel", one_each, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """As ``SpaceToDepth.forward``."""
        return F.conv2d(image, self.kernel, stride=self.factor)


def transposed(weight: Tensor) -> Tensor:
    """Weights of a transposed convolution that replaces an enlargement by 2 and a 3 x 3 convolution.

    Args:
        weight: (O, C, 3, 3) of the convolution, with padding 1.

    Returns:
        (C, O, 4, 4), for stride 2 and padding 1.
    """
    flipped = weight.transpose(0, 1).flip(2, 3)
    return sum((F.pad(flipped, (x, 1 - x, y, 1 - y)) for x in (0, 1) for y in (0, 1)), torch.zeros(()))


def prepare(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode, with layers for onnxruntime and batch normalization folded."""
    network = fuse_batch_norm(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, Expansion):
            network.set_submodule(name, TransposedExpansion(module))
        elif isinstance(module, SpaceToDepth) and module.factor > 1:
            network.set_submodule(name, ConvolvedSpaceToDepth(module.factor, channels=3))
    return network
