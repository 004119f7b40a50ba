"""Step ``facts``: the card, what PyTorch makes of it, and how fast it multiplies and copies."""

from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu_check.step import Check, Figure
from benchmarks.measure import in_turns, medians
from benchmarks.predict import finish_on
from competition.cores import usable_cores
from folds import gpu
from folds.device import describe_device, describe_precision
from folds.shared_memory import shared_memory


def facts(check: Check) -> Iterator[Figure]:
    """What decides which paths of the project this card takes."""
    device = check.device
    yield Figure("card", describe_device())
    yield Figure("torch", torch.__version__)
    yield Figure("precision auto is", describe_precision("auto", device))
    yield Figure("precision fp32 is", describe_precision("fp32", device))
    yield Figure("CPU cores", usable_cores())
    if shared := shared_memory():
        yield Figure("/dev/shm, free", shared.free / 1e9, "GB")
    if device.type == "cuda":
        yield from of_cuda(device)
    yield from speeds(device, side=check.few(64, 8192), megabytes=check.few(1, 512))


def of_cuda(device: torch.device) -> Iterator[Figure]:
    """The card, its driver and CUDA's libraries."""
    properties = torch.cuda.get_device_properties(device)
    yield Figure("cards", torch.cuda.device_count())
    yield Figure("compute capability", f"{properties.major}.{properties.minor}")
    yield Figure("memory", properties.total_memory / 1e9, "GB")
    yield Figure("driver", gpu.driver_version() or "unknown")
    yield Figure("CUDA", str(torch.version.cuda))
    yield Figure("cuDNN", str(torch.backends.cudnn.version()))  # type: ignore[no-untyped-call]


def speeds(device: torch.device, *, side: int, megabytes: int) -> Iterator[Figure]:
    """Matrix products, and copies on the device and to it."""
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        matrix = torch.randn(side, side, device=device).to(dtype)
        taken = seconds(lambda matrix=matrix: matrix @ matrix, device)  # type: ignore[misc]
        yield Figure(f"matrix product in {name}", 2 * side**3 / taken / 1e12, "TFLOP/s")
    host = torch.empty(megabytes * 10**6, dtype=torch.uint8, pin_memory=device.type == "cuda")
    here, other = (torch.empty_like(host, device=device) for _ in range(2))
    yield Figure("copy on the device", 2 * len(host) / seconds(lambda: other.copy_(here), device) / 1e9, "GB/s")
    upload = seconds(lambda: here.copy_(host, non_blocking=True), device)
    yield Figure("copy to the device", len(host) / upload / 1e9, "GB/s")


def seconds(way: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """The median time of something on a device, after a first time that does not count."""

    def whole() -> None:
        way()
        finish_on(device)

    whole()
    return medians(in_turns({"": whole}, repeats))[""]
