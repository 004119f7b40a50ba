"""The ranks of a command that torchrun started in several processes, and their collectives.

With one process nothing here has an effect, and torch.distributed is not initialized.
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

from competition.command import Failure, Terminated
from competition.cores import usable_cores
from competition.startup import INTERRUPTED

Value = TypeVar("Value")
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def rank() -> int:
    """The number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def world_here() -> int:
    """The number of processes on this machine."""
    return min(world(), int(os.environ.get("LOCAL_WORLD_SIZE", world())))


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def first() -> bool:
    """Whether this is rank 0, which writes and prints."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """The process group that torchrun describes, if any; ranks other than the first print nothing to stdout.

    Only one rank reports an error. The first rank that fails raises it; the others may have failed only because that
    rank is gone, and exit with the same status and no message.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    _terminate_with_launcher()
    store, number, count = next(rendezvous("env://"))
    # The collectives here use CPU tensors, so none of them waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=PrefixStore("group", store), rank=number, world_size=count)
    reports = PrefixStore("reports", store)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(sys.stdout if first() else nowhere):
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if is_lost_peer(error) or not _is_first_report(reports):
                sys.exit(_status_of(error))
            raise
    # Not after an error: it would wait for ranks that are still busy.
    dist.destroy_process_group()


@contextmanager
def shared_cores() -> Iterator[None]:
    """Inside, the processes of this machine share its cores, unless OMP_NUM_THREADS gives each its threads.

    This is for training. In prediction each process has the threads of a single one: the last bits of a network on a
    CPU depend on the number of threads, and masks must not depend on the number of processes.
    """
    before = torch.get_num_threads()
    shares = world_here() > 1 and not os.environ.get("OMP_NUM_THREADS")
    if shares:
        torch.set_num_threads(max(1, usable_cores() // world_here()))
    try:
        yield
    finally:
        if shares:
            torch.set_num_threads(before)


def barrier() -> None:
    """Wait until all ranks are here."""
    all_reduce_max(0)


def all_reduce_max(*values: int) -> list[int]:
    """The maximum of each value over all ranks."""
    if world() == 1:
        return list(values)
    together = torch.tensor(values)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return [int(value) for value in together]


def all_reduce_mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks."""
    if world() > 1:
        dist.all_reduce(value)
        value /= world()
    return value


def all_gather(value: Value) -> list[Value]:
    """The value of each rank, in the order of the ranks."""
    if world() == 1:
        return [value]
    values: list[Value | None] = [None] * world()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def average_statistics(network: nn.Module) -> None:
    """Replace the running statistics of batch normalization by their mean over all ranks."""
    floats = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if world() == 1 or not floats:
        return
    together = all_reduce_mean(torch.cat([buffer.flatten() for buffer in floats]))
    parts = torch.split(together, [buffer.numel() for buffer in floats])
    for buffer, part in zip(floats, parts, strict=True):
        buffer.copy_(part.view_as(buffer))


def require_same(what: str, value: str) -> None:
    """Raise a Failure unless all ranks have the same value."""
    if len(set(all_gather(value))) > 1:
        raise Failure(
            f"the processes differ in {what}; give all machines the same data, versions and kind of device, and on "
            "CPUs the same number of threads, such as OMP_NUM_THREADS=16 before torchrun"
        )


@contextmanager
def entered_by_first(context: AbstractContextManager[None]) -> Iterator[None]:
    """Enter a context, such as a lock, on the first rank only; the other ranks wait until it is entered."""
    with context if first() else nullcontext():
        barrier()
        yield


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another process is gone; torch has no error type for that."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("by peer" in text or "broken pipe" in text)


def _terminate_with_launcher() -> None:
    """Ask Linux to send SIGTERM to this process when the launcher dies.

    torchrun starts ranks in sessions of their own. If it is killed, they would continue and hold their locks.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _is_first_report(reports: Store) -> bool:
    try:
        return int(reports.add("errors", 1)) == 1
    except RuntimeError:  # the process with the store is gone
        return False


def _status_of(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.status if isinstance(error, Terminated) else 1
