"""Step ``networks``: every preset's network in every precision, forward, backward and one update."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.gpu_check.memory_formats import MemoryFormats
from benchmarks.gpu_check.step import UNTRAINED, Check, Figure, require
from benchmarks.material import settings_of
from competition.settings.resolve import preset_names
from competition.settings.schema import Precision, Settings
from folds.device import autocast
from folds.losses import batch_loss
from folds.networks.build import make_network
from folds.optimizer import make_optimizer

# The largest difference from the logits of a CPU in fp32, in standard deviations of these. TF32 has the mantissa of
# fp16. bf16 has 3 bits less, so its errors are 8 times as large.
CLOSE: dict[Precision, float] = {"fp32": 0.05, "fp16": 0.05, "bf16": 0.4}
SIZE = 128  # of the images; all networks can divide it
IMAGES = 2


def networks(check: Check) -> Iterator[Figure]:
    """The difference of the logits from those of the CPU, for each network and precision."""
    size = check.few(64, SIZE)
    image = torch.randint(0, 256, (IMAGES, size, size, 3), dtype=torch.uint8)
    for preset in ["demo"] if check.rehearsal else preset_names():
        settings = settings_of(preset, UNTRAINED, {"network": {"freeze": 0}})
        torch.manual_seed(0)
        network = make_network(settings)
        with torch.inference_mode():
            expected = network.eval()(image.permute(0, 3, 1, 2))
        for precision, close in CLOSE.items():
            ours = copy.deepcopy(network).to(check.device).to(memory_format=torch.channels_last)
            found = logits_of(ours, image.to(check.device), precision)
            apart = float((found - expected).abs().max() / expected.std())
            yield Figure(f"{preset} in {precision}: logits differ by", apart, "standard deviations")
            require(apart <= close, f"{preset} in {precision}: logits differ by {apart:.2f} deviations")
            update(ours, image.to(check.device), settings, precision, f"{preset} in {precision}")


@torch.inference_mode()
def logits_of(network: nn.Module, image: Tensor, precision: Precision) -> Tensor:
    """The logits of a network in evaluation mode, on the CPU."""
    with autocast(precision, image.device):
        return network(image.permute(0, 3, 1, 2)).float().cpu()  # type: ignore[no-any-return]


def update(network: nn.Module, image: Tensor, settings: Settings, precision: Precision, what: str) -> None:
    """One update; all activations must be channels-last, all gradients finite."""
    network.train()
    with MemoryFormats() as formats:
        loss = batch_loss(network, image, image[..., 0], settings.loss, precision)
    require(not formats.left, f"{what}: {formats.left[0] if formats.left else ''} is not channels-last")
    loss.backward()  # type: ignore[no-untyped-call]
    learned = [parameter for parameter in network.parameters() if parameter.grad is not None]
    require(
        all(bool(torch.isfinite(each.grad).all()) for each in learned if each.grad is not None),
        f"{what}: a gradient is not finite",
    )
    before = learned[-1].detach().clone()
    make_optimizer(network, settings.train).step()
    require(not torch.equal(before, learned[-1]), f"{what}: an update does not change the last layer")
