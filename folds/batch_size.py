"""``train.batch_size=auto``: the largest batch that fits the GPU's memory, found by training on made-up images."""

from collections.abc import Callable

import torch
from timm.utils import ModelEmaV3

from competition.command import Failure
from competition.settings.schema import Settings
from folds import ranks
from folds.device import describe_device, pick_device, resolve_precision
from folds.networks.build import make_network
from folds.trainer import batch_loss, make_optimizer

AT_MOST = {"cuda": 64, "cpu": 8}
# The rest is for what the rehearsal lacks: the next batch on its way, the fragments of a long training.
SHARE_OF_MEMORY = 0.9


def automatic_batch_size(settings: Settings, photos: int) -> int:
    """The batch of all processes together, of which each takes as much as fits the smallest.

    A processor's memory is rarely the limit: there it is a fixed number.

    Args:
        settings: of the run that begins.
        photos: the number of training photos.

    Raises:
        Failure: not even one image fits.
    """
    device, world = pick_device(), ranks.world()
    at_most = max(1, min(AT_MOST[device.type], photos) // world)
    here = largest_that_fits(settings, device, at_most) if device.type == "cuda" else at_most
    share = -ranks.largest(-here)[0]
    if not share:
        height, width = sample_size(settings)
        raise Failure(
            f"not one image of {width} x {height} can be learned from in the memory of {describe_device()} in "
            f"{resolve_precision(settings.train.precision, device)}; give a smaller input.height and input.width, an "
            "augment.crop, or train.precision=bf16 or fp16"
        )
    each = f", {share} in each of {world} processes" if world > 1 else ""
    print(f"train.batch_size=auto is {share * world} on {describe_device()}{each}", flush=True)
    return share * world


def largest(fits: Callable[[int], bool], at_most: int) -> int:
    """The largest power of two up to a limit that fits, or 0; nothing larger than what does not fit is tried."""
    found, size = 0, 1
    while size <= at_most and fits(size):
        found, size = size, 2 * size
    return found


def largest_that_fits(settings: Settings, device: torch.device, at_most: int) -> int:
    """The largest batch that a device can learn from, or 0; its memory and all random states are as before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        found = largest(lambda images: fits_memory(settings, device, images), at_most)
    torch.cuda.empty_cache()
    return found


def fits_memory(settings: Settings, device: torch.device, images: int) -> bool:
    """Whether a device can learn from so many images at a time and has memory to spare."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        rehearse(settings, device, images)
    except torch.cuda.OutOfMemoryError:
        return False
    return device.type != "cuda" or spares_memory(device)


def spares_memory(device: torch.device) -> bool:
    """Whether the most that was reserved leaves a part free of what a GPU has for this process."""
    free, _ = torch.cuda.mem_get_info(device)
    ours = free + torch.cuda.memory_reserved(device)
    return torch.cuda.max_memory_reserved(device) <= SHARE_OF_MEMORY * ours


def rehearse(settings: Settings, device: torch.device, images: int) -> None:
    """Two steps on made-up images with all in memory that the trainer has there.

    The second step has the optimizer's state beside it, and the first one's gradients: so it is with
    ``train.accumulate``, and DistributedDataParallel keeps a copy of them. There is no loss scaler, which would skip
    an update whose gradient is not finite, and the making of the state with it.
    """
    train = settings.train
    network = make_network(settings, pretrained=False).to(device).to(memory_format=torch.channels_last)
    ema = ModelEmaV3(network, decay=train.ema) if train.ema else None
    optimizer = make_optimizer(network, train)
    precision = resolve_precision(train.precision, device)
    image = torch.zeros(images, *sample_size(settings), 3, dtype=torch.uint8, device=device)
    target = image[..., 0]
    for _ in range(2):
        batch_loss(network, image, target, settings.loss, precision).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if ema:
            ema.update(network)


def sample_size(settings: Settings) -> tuple[int, int]:
    """Height and width of what the network learns from."""
    crop = settings.augment.crop
    return (crop[0], crop[1]) if crop else (settings.input.height, settings.input.width)
