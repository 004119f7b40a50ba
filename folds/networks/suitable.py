"""Whether a network can be trained with the sizes and the batches of its settings.

The network is moved to the meta device, where a forward pass computes only shapes.
"""

import torch
from torch import nn

from competition.command import Failure
from competition.settings.schema import Network, Settings
from folds import ranks
from folds.networks.build import make_network
from folds.networks.timm_unet import TimmUNet


def require_suitable(network: nn.Module, settings: Settings) -> None:
    """Raise a Failure if a network cannot take the sizes of training and validation; some have a fixed size."""
    _require_taken(network.train(), settings.network, 2, settings.sample_size)
    _require_taken(network.eval(), settings.network, 1, (settings.input.height, settings.input.width))


def require_batch(settings: Settings, photos: int, fold: int) -> None:
    """Raise a Failure if a network cannot be trained on this process's share of a batch.

    Batch normalization in training needs two values per channel. A single image has only one where the size is
    1 x 1.

    Args:
        settings: of the run; ``train.batch_size`` is a number.
        photos: the number of photos that the fold learns from.
        fold: number of the fold.
    """
    size, world = settings.train.batch_size, ranks.world()
    assert size != "auto"
    if min(size, photos) // world != 1 or (world > 1 and torch.cuda.is_available()):  # GPUs normalize together
        return
    reason = why_not_one(settings)
    if reason is None:
        return
    if photos < 2 * world:
        cause, advice = f"fold {fold} learns from {photos}", "add photos"
    else:
        cause, advice = f"train.batch_size={size}", f"use {2 * world}"
    if world > 1:
        cause, advice = f"{cause} in {world} processes", f"{advice}, a smaller NPROC"
    height, width = settings.sample_size
    group = ", network.norm=group" if settings.network.name == "unet" else ""
    raise Failure(
        f"{_named(settings.network)} cannot be trained on one photo of {width} x {height} at a time ({reason}), and "
        f"{cause}; {advice}{group}, or a larger input"
    )


def why_not_one(settings: Settings) -> str | None:
    """Why a network cannot be trained on one image at a time; None if it can. Random states stay as they were."""
    with torch.random.fork_rng([]):
        network = make_network(settings, pretrained=False)
    return _refusal(network.train(), 1, settings.sample_size)


def _require_taken(network: nn.Module, chosen: Network, images: int, size: tuple[int, int]) -> None:
    reason = _refusal(network, images, size)
    if reason is not None:
        raise Failure(
            f"{_named(chosen)} cannot take {size[1]} x {size[0]} ({reason}); choose another network, or the size "
            "that it is made for"
        )


def _refusal(network: nn.Module, images: int, size: tuple[int, int]) -> str | None:
    """Why a network cannot take images of a size (height, width); None if it can."""
    network.to("meta")
    try:
        with torch.device("meta"), torch.no_grad():
            if isinstance(network, TimmUNet):
                network.require_true_reductions(torch.zeros(images, 3, *size))
            network(torch.zeros(images, 3, *size, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        if "more than 1 value per channel" in reason:
            return "batch normalization needs more than one value per channel"
        return reason or "it gives no reason"
    return None


def _named(chosen: Network) -> str:
    return f"network.encoder={chosen.encoder}" if chosen.name == "timm_unet" else f"network.name={chosen.name}"
