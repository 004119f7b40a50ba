"""The device, its precision, and its memory."""

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from competition.command import Failure
from competition.plural import counted
from competition.settings.schema import Precision
from folds import gpu, ranks

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc accepts no larger one
LARGEST_TRIM_THRESHOLD = 2**31 - 1
# What a GPU's errors about the size of a batch say if they are no OutOfMemoryError: cuDNN and cuBLAS cannot allocate
# their workspace, or a kernel counts elements in 32 bits (nearest upsampling: at most 2^31 in a tensor).
TOO_LARGE = (
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "INT_MAX",
    "32-bit index math",
    "unable to find an engine",  # cuDNN: no algorithm whose workspace fits
)


def pick_device() -> torch.device:
    """The device that DEVICE names: auto, cpu, cuda, cuda:<number>, or mps for Apple's GPU.

    auto is the NVIDIA GPU if there is one, else the CPU; a GPU that PyTorch cannot use is an error. Each rank of this
    machine has its own GPU.
    """
    wanted = os.environ.get("DEVICE") or "auto"
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", wanted):
        raise Failure(f"DEVICE={wanted} is not a device; use auto, cpu, mps, cuda, or cuda:1 for the second GPU")
    if wanted == "cpu":
        return torch.device("cpu")
    ranked = ranks.world() > 1
    if wanted == "mps":
        return _apple_gpu(ranked)
    index = ranks.local_rank() if ranked else int(wanted.partition(":")[2] or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count and index >= count:
        most = f"use at most NPROC={count}" if ranked else f"use DEVICE=cuda:{count - 1} or a smaller number"
        raise Failure(f"this machine has {counted(count, 'GPU')}; {most}")
    if problem := gpu.obstacle(index):
        raise Failure(f"{problem}; DEVICE=cpu uses the CPU")
    if not count:
        if wanted != "auto":
            raise Failure(f"DEVICE={wanted}, but this machine has no NVIDIA GPU; DEVICE=cpu uses the CPU")
        return torch.device("cpu")
    if not ranked and ":" not in wanted:
        return torch.device("cuda")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _apple_gpu(ranked: bool) -> torch.device:
    if not torch.backends.mps.is_available():
        raise Failure("DEVICE=mps, but PyTorch finds no Apple GPU on this machine; DEVICE=cpu uses the CPU")
    if ranked:
        raise Failure("DEVICE=mps is one GPU; use it without NPROC")
    return torch.device("mps")


def describe_device() -> str:
    """The name of the device, for messages and for the record of a run."""
    device = pick_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    if device.type == "mps":
        return "Apple GPU"
    threads = torch.get_num_threads()
    return "CPU, 1 thread" if threads == 1 else f"CPU, {threads} threads"


def device_model(device: torch.device) -> str:
    """The kind of device, on which the last bits of a prediction depend: cpu, mps, or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def sum_dtype(device: torch.device) -> torch.dtype:
    """The dtype of the sum of the losses of an epoch: float64, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def cpu_threads(device: torch.device) -> int | None:
    """The number of threads of a network on a CPU; the last bits of its output depend on it. None on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else None


def default_preset() -> str:
    """The preset of a new run if the user names none."""
    return "gpu" if pick_device().type == "cuda" else "cpu"


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Resolve "auto": bf16 if the device computes in it, else fp16 on a GPU and fp32 on a CPU."""
    if precision == "fp16" and device.type == "mps":
        raise Failure("fp16 needs a loss scaler, which PyTorch has not for Apple's GPU; use fp32 or bf16 there")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "fp32"


def describe_precision(precision: Precision, device: torch.device) -> str:
    """The resolved precision, for messages.

    With fp32, cuDNN on Ampere and newer GPUs rounds the inputs of convolutions to TF32 (10 bits of mantissa).
    """
    resolved = resolve_precision(precision, device)
    if resolved == "fp32" and device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        rounds = torch.cuda.get_device_capability(device) >= (8, 0)
        return "fp32 (convolutions in TF32)" if rounds else resolved
    return resolved


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of convolutions."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return dtypes[resolve_precision(precision, device)]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which networks compute."""
    dtype = autocast_dtype(precision, device)
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype)


@contextmanager
def out_of_memory(what: str, advice: str) -> Iterator[None]:
    """Turn the error of a batch too large for the GPU into a Failure that says what needed memory and what to do."""
    try:
        yield
    except RuntimeError as error:
        if not does_not_fit(error):
            raise
        raise Failure(f"{what} runs out of memory on {describe_device()}; {advice}") from error


def does_not_fit(error: RuntimeError) -> bool:
    """Whether an error of torch means that a batch is too large for the GPU."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in TOO_LARGE)


@contextmanager
def compiler_error(advice: str) -> Iterator[None]:
    """Turn an error of torch.compile, or of the compiler that it calls, into a Failure that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Failure(f"torch.compile failed ({reason}); install a C++ compiler such as g++, or {advice}") from error


@contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Let cuDNN time its algorithms for each new size of input, and use the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next photo or step; False if the C library has no such setting.

    A worker frees each photo, and a training step on a CPU frees large tensors. By default glibc returns them to the
    system, which must clear new pages for the next ones. The peak memory does not change.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)
    )
