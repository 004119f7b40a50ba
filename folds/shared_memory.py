"""Shared memory: workers pass their batches to the trainer in /dev/shm, which has 64 MB in a container by default."""

import os
from pathlib import Path
from typing import NamedTuple

import torch

from competition.command import Failure
from competition.settings.schema import Settings
from folds import ranks

SHM = Path("/dev/shm")  # the folder of shm_open on Linux
PREFETCH = 2  # batches that each worker of torch's DataLoader prepares in advance
PAGE = 4096  # bytes; a semaphore takes one
MEGABYTE = 2**20


class Shared(NamedTuple):
    """The capacity of a file system in memory, bytes."""

    free: int
    total: int


def shared_memory(folder: Path = SHM) -> Shared | None:
    """The shared memory of this machine; None if there is no limit, or another system than Linux."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    if not status.f_blocks:  # a tmpfs without a limit
        return None
    return Shared(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


def require_shared_memory(settings: Settings, learned: int, held_out: int, shared: Shared | None) -> None:
    """Raise a Failure if the batches of the workers do not fit in the shared memory.

    Args:
        settings: of the run; ``train.batch_size`` is a number.
        learned: the number of photos that a fold learns from.
        held_out: the number of photos that it is validated on.
        shared: the shared memory of this machine, None for no limit.
    """
    workers = settings.train.workers
    needs = [shared_bytes(settings, learned, held_out, number) for number in range(workers + 1)]
    needed = needs[workers]
    if shared is None or needed <= shared.free:
        return
    fewer = max(number for number, need in enumerate(needs) if need <= shared.free)
    if needed > shared.total:
        room = 1 << (needed + shared.total - shared.free - 1).bit_length()
        more = f"start the container with docker run --shm-size={-(-room // MEGABYTE)}m"
    else:
        more = f"remove what other programs left in {SHM}"
    height, width = settings.loaded_size
    raise Failure(
        f"{SHM}, where workers leave their batches, has {_size(shared.free)} free of {_size(shared.total)}, and "
        f"train.workers={workers} with batches of {settings.train.batch_size} x {width} x {height} (validation: "
        f"{settings.inference.batch_size} x {settings.input.width} x {settings.input.height}) needs {_size(needed)}; "
        f"{more}, or use SET=train.workers={fewer}"
    )


def shared_bytes(settings: Settings, learned: int, held_out: int, workers: int) -> int:
    """The shared memory in bytes that the processes of this machine take at most while they train a fold.

    While a fold is validated, the batches at the end of an epoch that make no whole update are still there.
    """
    train, world = settings.train, ranks.world()
    if not workers:
        return 0
    assert train.batch_size != "auto"
    in_advance = PREFETCH * workers
    # The trainer holds one batch while it waits for the next, on a GPU in a copy of its own.
    at_once = in_advance if torch.cuda.is_available() else in_advance + 1
    share = min(train.batch_size, learned) // world
    batches = learned // max(1, share * world)
    height, width = settings.loaded_size
    batch = share * height * width * 4  # three channels of the photo and one of the target, uint8
    validated = min(settings.inference.batch_size, -(-held_out // world))
    photo = settings.input.height * settings.input.width * 3
    rest = batches % min(train.accumulate, max(1, batches))
    validation = min(in_advance, rest) * batch + min((in_advance + 1) * validated, held_out) * photo
    semaphores = 2 * (3 * workers + 10) * PAGE  # of the queues of two loaders
    return ranks.world_here() * (max(min(at_once, batches) * batch, validation) + semaphores)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / MEGABYTE:.3g} MB"
