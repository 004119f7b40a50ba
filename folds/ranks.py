"""Which of several processes this one is, when torchrun starts a command several times, and what they agree on.

With one process everything here does nothing, and torch.distributed is not initialised.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from competition.command import INTERRUPTED, TERMINATED, Failure, Terminated

Value = TypeVar("Value")
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def rank() -> int:
    """The number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """The number of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun has started, if it has; all but the first are silent on stdout.

    However many of them fail, one speaks: whoever fails first raises its error, and the others, which may have
    failed only because that one is gone, end with the same exit status and nothing to say.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    _end_with_launcher()
    store, number, count = next(rendezvous("env://"))
    # CPU tensors are what the processes agree with, so that no agreement waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=PrefixStore("group", store), rank=number, world_size=count)
    said = PrefixStore("said", store)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(sys.stdout if first() else nowhere):
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if _is_lost_peer(error) or not _speaks_first(said):
                sys.exit(_status_of(error))
            raise
    # Not after an error: others may still be in the middle of something, which would then have to be waited for.
    dist.destroy_process_group()


def barrier() -> None:
    """Wait until all processes are here."""
    largest(0)


def largest(*values: int) -> list[int]:
    """The largest of each value among all processes, on all of them: what one of them wants, all do."""
    if world() == 1:
        return list(values)
    together = torch.tensor(values)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return [int(value) for value in together]


def gathered(value: Value) -> list[Value]:
    """The value of each process, by rank, on all of them."""
    if world() == 1:
        return [value]
    values: list[Value | None] = [None] * world()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, on all of them."""
    if world() > 1:
        dist.all_reduce(value)
        value /= world()
    return value


def share_statistics(network: nn.Module) -> None:
    """Give all processes the same running statistics of batch normalisation: the mean of theirs."""
    floats = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if world() == 1 or not floats:
        return
    together = mean(torch.cat([buffer.flatten() for buffer in floats]))
    parts = torch.split(together, [buffer.numel() for buffer in floats])
    for buffer, part in zip(floats, parts, strict=True):
        buffer.copy_(part.view_as(buffer))


def require_same(what: str, value: str) -> None:
    """Raise a Failure unless all processes have the same value."""
    if len(set(gathered(value))) > 1:
        raise Failure(
            f"the processes differ in {what}; give all machines the same data, versions and kind of device, and on "
            "CPUs the same number of threads, such as OMP_NUM_THREADS=16 before torchrun"
        )


@contextmanager
def on_behalf_of_all(entered: AbstractContextManager[None]) -> Iterator[None]:
    """The first process enters a context, such as a lock, and the others go on once it has."""
    with entered if first() else nullcontext():
        barrier()
        yield


def _end_with_launcher() -> None:
    """Be sent SIGTERM when the launcher dies.

    torchrun starts processes in sessions of their own; a kill that it cannot pass on would leave them at work, and
    holding their locks against the next call.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _speaks_first(said: Store) -> bool:
    try:
        return int(said.add("errors", 1)) == 1
    except RuntimeError:  # the process that kept the store is gone
        return False


def _is_lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another process is gone: torch has no type of its own for that."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("by peer" in text or "broken pipe" in text)


def _status_of(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return TERMINATED if isinstance(error, Terminated) else 1
