"""``train.batch_size=auto``: the largest batch that fits in GPU memory, found by trial steps on blank images."""

from collections.abc import Callable

import torch

from competition.command import Failure
from competition.settings.schema import Settings
from folds import ranks
from folds.device import cudnn_benchmark, describe_device, does_not_fit, pick_device, resolve_precision
from folds.losses import batch_loss
from folds.networks.build import make_network
from folds.networks.suitable import why_not_one
from folds.optimizer import make_optimizer

AT_MOST = {"cuda": 64, "cpu": 8, "mps": 8}
# The rest is for what the trial steps lack: the next batch in transfer, and fragmentation in a long training.
SHARE_OF_MEMORY = 0.9


def automatic_batch_size(settings: Settings, photos: int) -> int:
    """The batch of all ranks together: the largest that fits on every NVIDIA GPU, or a fixed number.

    Args:
        settings: of the new run.
        photos: the number of training photos.
    """
    device, world = pick_device(), ranks.world()
    at_most = max(1, min(AT_MOST[device.type], photos) // world)
    here = largest_that_fits(settings, device, at_most) if device.type == "cuda" else at_most
    share = -ranks.all_reduce_max(-here)[0]
    if not share:
        height, width = settings.sample_size
        raise Failure(
            f"a single image of {width} x {height} does not fit in the memory of {describe_device()} in "
            f"{resolve_precision(settings.train.precision, device)}; use a smaller input.height and input.width, an "
            "augment.crop, or train.precision=bf16 or fp16"
        )
    each = f", {share} in each of {world} processes" if world > 1 else ""
    print(f"train.batch_size=auto is {share * world} on {describe_device()}{each}", flush=True)
    return share * world


def largest_that_fits(settings: Settings, device: torch.device, at_most: int) -> int:
    """The largest batch that a device can train with, or 0; its memory and the random states stay as they were."""
    smallest = 1 if why_not_one(settings) is None else 2
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        found = largest_power_of_two(lambda images: fits_memory(settings, device, images), at_most, smallest)
    torch.cuda.empty_cache()
    return found


def largest_power_of_two(fits: Callable[[int], bool], at_most: int, smallest: int = 1) -> int:
    """The largest power of two up to a limit that fits, or 0; the search stops at the first that does not."""
    found, size = 0, smallest
    while size <= at_most and fits(size):
        found, size = size, 2 * size
    return found


def fits_memory(settings: Settings, device: torch.device, images: int) -> bool:
    """Whether a device can train with a batch of this size and has memory to spare."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        trial_steps(settings, device, images)
    except RuntimeError as error:
        if does_not_fit(error):
            return False
        raise
    return device.type != "cuda" or spares_memory(device)


def spares_memory(device: torch.device) -> bool:
    """Whether the peak of reserved memory is at most ``SHARE_OF_MEMORY`` of what this process can have."""
    free, _ = torch.cuda.mem_get_info(device)
    ours = free + torch.cuda.memory_reserved(device)
    return torch.cuda.max_memory_reserved(device) <= SHARE_OF_MEMORY * ours


def trial_steps(settings: Settings, device: torch.device, images: int) -> None:
    """Two training steps on blank images, with everything in memory that the trainer has there.

    The second step has the optimizer's state and the gradients of the first, as ``train.accumulate`` and the copy of
    the gradients in DistributedDataParallel have. There is no loss scaler: it could skip an update, and then the
    optimizer would have no state.
    """
    from timm.utils import ModelEmaV3  # see folds/networks/pretrained.py

    train = settings.train
    network = make_network(settings, pretrained=False).to(device).to(memory_format=torch.channels_last)
    ema = ModelEmaV3(network, decay=train.ema) if train.ema else None
    optimizer = make_optimizer(network, train)
    precision = resolve_precision(train.precision, device)
    image = torch.zeros(images, *settings.sample_size, 3, dtype=torch.uint8, device=device)
    target = image[..., 0]
    for _ in range(2):
        with cudnn_benchmark(train.cudnn_benchmark):  # its algorithms may need more memory
            batch_loss(network, image, target, settings.loss, precision).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if ema:
            ema.update(network)
