"""Batch normalization folded into convolutions: the same predictions with fewer steps."""

import pytest
import torch
from torch import nn

from competition.settings.resolve import resolve
from folds.networks.build import make_network
from inference.engine.fusion import cast_weights, fuse_batch_norm


def network_of(**chosen: object) -> nn.Module:
    """A network whose batch normalizations have random statistics and weights."""
    torch.manual_seed(1)
    network = make_network(resolve({"input": {"height": 64, "width": 64}, "network": chosen}))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def logits_of(network: nn.Module) -> torch.Tensor:
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return network(pixels)


TIMM = {"name": "timm_unet", "decoder": [16, 8, 8]}


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({"width": 4, "depth": 2}, 0),
        ({**TIMM, "encoder": "mobilenetv2_100"}, 0),
        ({**TIMM, "encoder": "resnet18"}, 0),
        ({**TIMM, "encoder": "tf_efficientnet_lite0"}, 0),  # its convolutions pad by the size of their input
        ({**TIMM, "encoder": "resnetv2_50d"}, None),  # normalizes sums, which no convolution can contain
        ({**TIMM, "encoder": "convnext_atto"}, 0),
    ],
)
def test_the_logits_stay_the_same(chosen: dict[str, object], left: int | None) -> None:
    network = network_of(**chosen)
    before = logits_of(network)
    had = norms(network)
    made = fuse_batch_norm(network)
    assert torch.allclose(logits_of(made), before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    assert torch.equal(logits_of(network), before), "the original is not changed"
    assert norms(network) == had
    assert norms(made) == left if left is not None else 0 < norms(made) < had


class Twice(nn.Module):
    """One convolution whose result is used twice, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.split, self.shared = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.split(pixels.float() / 255)
        x = x + self.norms[0](x)
        return self.norms[2](self.shared(self.norms[1](self.shared(x))))


class DependsOnValues(nn.Module):
    """Its steps depend on pixel values, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.block(pixels.float())
        return x if x.mean() > 0 else -x


@pytest.mark.parametrize("kind", [Twice, DependsOnValues])
def test_a_network_that_cannot_be_folded_stays_the_same(kind: type[nn.Module]) -> None:
    torch.manual_seed(3)
    network = kind().eval()
    made = fuse_batch_norm(network)
    assert norms(made) == norms(network)
    assert torch.equal(logits_of(made), logits_of(network))


def test_weights_are_cast_to_the_dtype_of_the_computation() -> None:
    network = cast_weights(fuse_batch_norm(network_of(width=4, depth=1)), torch.bfloat16)
    kinds = {type(module): {p.dtype for p in module.parameters()} for module in network.modules()}
    assert kinds[nn.Conv2d] == {torch.bfloat16}
