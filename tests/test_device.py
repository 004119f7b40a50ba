"""The device and its precision."""

import ctypes
import multiprocessing
import os
import platform
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from competition.command import Failure
from competition.cores import usable_cores
from competition.settings.resolve import preset_names
from competition.settings.schema import Precision
from folds import device
from folds.device import (
    autocast,
    cpu_threads,
    default_preset,
    describe_device,
    describe_precision,
    device_model,
    does_not_fit,
    keep_freed_memory,
    out_of_memory,
    pick_device,
    resolve_precision,
    sum_dtype,
)
from folds.train import main as train

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
MPS = torch.device("mps")


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
        (1, "gpu", "DEVICE=gpu is not a device; use auto, cpu, mps, cuda, or cuda:1 for the second GPU"),
        (2, "cuda:2", "this machine has 2 GPUs; use DEVICE=cuda:1 or a smaller number"),
        (0, "mps", "DEVICE=mps, but PyTorch finds no Apple GPU on this machine; DEVICE=cpu uses the CPU"),
        (0, "cuda", "DEVICE=cuda, but this machine has no NVIDIA GPU; DEVICE=cpu uses the CPU"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, message: str) -> None:
    if gpus:
        simulate_gpus(monkeypatch, gpus)
    monkeypatch.setenv("DEVICE", name)
    with pytest.raises(Failure, match=f"^{message}$"):
        pick_device()


def test_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is simulated: it was never tried."""
    monkeypatch.setenv("DEVICE", "mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == MPS
    assert (describe_device(), device_model(MPS), cpu_threads(MPS)) == ("Apple GPU", "mps", None)
    assert sum_dtype(MPS) == torch.float32
    assert resolve_precision("auto", MPS) == "fp32"
    assert describe_precision("bf16", MPS) == "bf16"
    with pytest.raises(Failure, match="fp16 needs a loss scaler, which PyTorch has not for Apple's GPU"):
        resolve_precision("fp16", MPS)
    assert not torch.amp.GradScaler("mps", enabled=False).is_enabled()
    monkeypatch.setattr(device.ranks, "world", lambda: 2)
    with pytest.raises(Failure, match="DEVICE=mps is one GPU; use it without NPROC"):
        pick_device()


class NoFloat64(TorchDispatchMode):
    """Apple's GPUs have no float64: an operation that makes such a tensor fails."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        assert not isinstance(made, torch.Tensor) or made.dtype != torch.float64, function
        return made


def test_a_training_without_float64(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated device without it trains, validates and saves."""
    for module in ("folds.trainer", "folds.training_state"):
        monkeypatch.setattr(f"{module}.sum_dtype", lambda _: torch.float32)
    command = ["--fold", "0", "--run", str(tmp_path / "run"), "--data", str(tiny_data), "--preset", "demo", "--set"]
    small = ["split.folds=3", "input={height: 32, width: 64}", "network={width: 4, depth: 1, stem: 2}"]
    with NoFloat64():
        train([*command, *small, "train={epochs: 1, batch_size: 2, workers: 0}"])


@pytest.mark.parametrize(
    ("capability", "allowed", "words"),
    [((8, 0), True, "fp32 (convolutions in TF32)"), ((7, 5), True, "fp32"), ((9, 0), False, "fp32")],
)
def test_tf32_has_its_name(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], allowed: bool, words: str
) -> None:
    simulate_gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert describe_precision("fp32", CUDA) == words
    assert describe_precision("bf16", CUDA) == "bf16"
    assert describe_precision("fp32", CPU) == "fp32"


def test_the_model_of_a_gpu_is_a_fact_of_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_gpus(monkeypatch, 1)
    assert (device_model(CUDA), device_model(CPU)) == ("A100", "cpu")


def test_cores_on_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()


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
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
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
