"""The device and its precision."""

import ctypes
import multiprocessing
import platform
import resource
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from competition.command import Failure
from competition.settings.resolve import preset_names
from competition.settings.schema import Precision
from folds import device
from folds.device import (
    autocast,
    default_preset,
    describe_device,
    does_not_fit,
    keep_freed_memory,
    out_of_memory,
    pick_device,
    resolve_precision,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def test_without_a_gpu_the_cpu_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == CPU
    before = torch.get_num_threads()
    try:
        for threads, words in ((1, "CPU, 1 thread"), (2, "CPU, 2 threads")):
            torch.set_num_threads(threads)
            assert describe_device() == words
    finally:
        torch.set_num_threads(before)
    assert default_preset() == "cpu"
    assert default_preset() in preset_names()


def simulate_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Let torch report GPUs; returns the numbers that are given to ``set_device``."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_index: "A100")
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_with_a_gpu_it_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_gpus(monkeypatch, 1)
    assert pick_device() == CUDA
    assert describe_device() == "A100"
    assert default_preset() == "gpu"
    assert default_preset() in preset_names()


def test_device_names_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = simulate_gpus(monkeypatch, 2)
    for name, expected in (("cpu", CPU), ("auto", CUDA), ("cuda", CUDA), ("cuda:1", torch.device("cuda", 1))):
        monkeypatch.setenv("DEVICE", name)
        assert pick_device() == expected
        assert default_preset() == ("gpu" if expected.type == "cuda" else "cpu")
    assert set(chosen) == {1}


@pytest.mark.parametrize(
    ("gpus", "name", "message"),
    [
        (1, "gpu", "DEVICE=gpu is not a device; use auto, cpu, cuda, or cuda:1 for the second GPU"),
        (2, "cuda:2", "this machine has 2 GPUs; use DEVICE=cuda:1 or a smaller number"),
        (0, "cuda", "DEVICE=cuda, but this machine has no NVIDIA GPU; DEVICE=cpu uses the CPU"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, message: str) -> None:
    if gpus:
        simulate_gpus(monkeypatch, gpus)
    monkeypatch.setenv("DEVICE", name)
    with pytest.raises(Failure, match=f"^{message}$"):
        pick_device()


def test_a_gpu_that_cannot_be_used_stops_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.gpu, "obstacle", lambda _index: "the driver is too old; update it")
    with pytest.raises(Failure, match="too old; update it; DEVICE=cpu uses the CPU"):
        pick_device()
    monkeypatch.setenv("DEVICE", "cpu")
    assert pick_device() == CPU


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_named_precision_stays(precision: Precision) -> None:
    assert resolve_precision(precision, CPU) == resolve_precision(precision, CUDA) == precision


@pytest.mark.parametrize(
    ("able", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"avx2": True, "avx512_bf16": False}, "fp32"), ({}, "fp32")],
)
def test_auto_on_a_cpu(monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize(("able", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu(monkeypatch: pytest.MonkeyPatch, able: bool, expected: str) -> None:
    monkeypatch.setattr(device.torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    assert resolve_precision("auto", CUDA) == expected


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_context_computes_in_the_precision(precision: Precision, dtype: torch.dtype) -> None:
    a = torch.ones(2, 2)
    with autocast(precision, CPU):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = simulate_gpus(monkeypatch, 2)
    monkeypatch.setattr(device.ranks, "world", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == torch.device("cuda", 1)
    assert chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(Failure, match="use at most NPROC=2"):
        pick_device()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (
            RuntimeError("upsample_nearest_nhwc only supports grad_output tensors with less than INT_MAX elements"),
            True,
        ),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_errors_of_a_batch_that_is_too_large(error: RuntimeError, expected: bool) -> None:
    assert does_not_fit(error) == expected
    with pytest.raises(Failure if expected else RuntimeError), out_of_memory("a step", "use less"):
        raise error


def page_faults_of_a_step() -> int:
    """The page faults of the third of three steps that allocate, write and free eight blocks of 16 MiB."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    keep_freed_memory()
    before = 0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [libc.malloc(2**24) for _ in range(8)]
        for block in blocks:
            libc.memset(block, 1, 2**24)
        for block in blocks:
            libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        faults = pool.submit(page_faults_of_a_step).result()
    assert faults < 1000, "eight blocks have 32,768 pages"
