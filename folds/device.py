"""The device, and the precision it computes in."""

import ctypes
from contextlib import AbstractContextManager

import torch

from competition.command import Failure
from competition.settings.schema import Precision
from folds import ranks

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_BLOCK = 32 * 2**20  # bytes; glibc rejects more
NEVER = 2**31 - 1


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU; of several processes each has a GPU of its own.

    Raises:
        Failure: this machine has more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if ranks.world() == 1:
        return torch.device("cuda")
    number, count = ranks.local_rank(), torch.cuda.device_count()
    if number >= count:
        raise Failure(f"there are more processes than GPUs on this machine; NPROC={count} at most")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def describe_device() -> str:
    """The device in words, for the record of a run."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return "CPU, 1 thread" if threads == 1 else f"CPU, {threads} threads"


def cpu_threads(device: torch.device) -> int | None:
    """How many threads a network computes with, on which its last bits depend on a CPU; None on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else None


def default_preset() -> str:
    """The preset of a new run for which none is named."""
    return "gpu" if torch.cuda.is_available() else "cpu"


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """What "auto" means on a device: bf16 where it computes in it, else fp16 on a GPU and fp32 on a CPU."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "fp32"


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What convolutions compute in."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return dtypes[resolve_precision(precision, device)]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the network computes."""
    dtype = autocast_dtype(precision, device)
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype)


def keep_freed_memory() -> bool:
    """Make glibc keep the memory that this process frees; returns False with another C library.

    A training step on a CPU frees large tensors. By default glibc returns many of them to the system, which has to
    clear pages again for the next step. The peak does not change.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK) and mallopt(M_TRIM_THRESHOLD, NEVER))
