"""The U-Net: its structure, skip connections, and receptive field."""

import pytest
import torch
from torch import Tensor, nn

from folds.networks.unet import IMAGENET_MEAN, IMAGENET_STD, DoubleConvolution, Normalize, UNet


def pixels(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("stem", [1, 2, 4])
@pytest.mark.parametrize(("width", "depth"), [(4, 1), (8, 3), (4, 4)])
def test_every_pixel_gets_a_logit(width: int, depth: int, stem: int) -> None:
    network = UNet(width, depth, stem).eval()
    assert network.divisor == stem * 2**depth
    size = (network.divisor, 2 * network.divisor)
    with torch.inference_mode():
        logits = network(pixels(*size, count=2))
    assert (logits.shape, logits.dtype) == ((2, 1, *size), torch.float32)
    assert torch.isfinite(logits).all()


def test_the_structure_is_the_published_one() -> None:
    """Widths 64 to 1024, four halvings, and a skip connection of each level's width into its expanding block."""
    with torch.device("meta"):
        network = UNet(64, 4)
    contracting = [block[0] for block in network.contracting]
    assert [(block.in_channels, block.out_channels) for block in contracting] == [
        (3, 64), (64, 128), (128, 256), (256, 512), (512, 1024),
    ]  # fmt: skip
    expanding = [block[0] for block in network.expanding]
    assert [(block.in_channels, block.out_channels) for block in expanding] == [
        (1024 + 512, 512), (512 + 256, 256), (256 + 128, 128), (128 + 64, 64),
    ]  # fmt: skip
    assert (network.head.in_channels, network.head.out_channels) == (64, 1)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 2 * 5 + 2 * 4 + 1
    assert all(module.kernel_size == (3, 3) for module in convolutions[:-1])


def test_the_stem_is_space_to_depth() -> None:
    network = UNet(4, 1, stem=4)
    assert network.contracting[0][0].in_channels == 3 * 16
    assert network.head.out_channels == 16


@pytest.mark.parametrize("level", [0, 1, 2])
def test_each_skip_connection_is_used(level: int) -> None:
    """If the input from the level below is 0, the output still depends on the image through the skip connection."""
    network = UNet(4, 3).eval()
    block = network.expanding[2 - level]

    def without_lower_level(_module: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        below, skip = inputs
        return torch.zeros_like(below), skip

    block.register_forward_pre_hook(without_lower_level)
    with torch.inference_mode():
        assert not torch.allclose(network(pixels(16, 16)), network(pixels(16, 16)), atol=1e-5)


def test_the_receptive_field_is_that_of_the_convolutions() -> None:
    """Depth 1: two 3 x 3 convolutions at full size, two at half size, two at full size: at most 12 pixels."""
    network = UNet(4, 1).eval()
    image = pixels(64, 64)
    other = image.clone()
    other[..., 32, 32] = 255 - other[..., 32, 32]
    with torch.inference_mode():
        changed = (network(image) - network(other)).abs()[0, 0] > 1e-6
    rows, columns = torch.nonzero(changed, as_tuple=True)
    assert changed[32, 32]
    assert max((rows - 32).abs().max(), (columns - 32).abs().max()) in range(5, 13)


def test_pixels_are_normalised_as_imagenet() -> None:
    image = pixels(4, 4)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose(Normalize()(image), (image / 255 - mean) / std, atol=1e-5)
    assert not Normalize().state_dict()


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (12, 4), (16, 8), (256, 8)])
def test_group_normalisation(channels: int, groups: int) -> None:
    """Each image is normalised on its own: another image in the batch changes nothing, also in training mode."""
    block = DoubleConvolution(3, channels, "group").train()
    assert block[1].num_groups == groups
    images = torch.randn(2, 3, 6, 6)
    # Up to rounding: without AVX-512 a batch of one is summed in another order.
    assert torch.allclose(block(images)[:1], block(images[:1]), atol=1e-4)


def test_channels_last_computes_the_same() -> None:
    network = UNet(8, 2, stem=2).eval()
    image = pixels(32, 48, count=2)
    with torch.inference_mode():
        expected = network(image)
        network.to(memory_format=torch.channels_last)
        # The loader gives (N, H, W, 3); permuted to (N, 3, H, W) it is channels last already.
        seen = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        assert seen.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(network(seen), expected, atol=1e-5)


def test_every_parameter_learns() -> None:
    network = UNet(4, 2, stem=2)
    network(pixels(16, 16, count=2)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
