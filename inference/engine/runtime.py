"""Which runtime computes the networks: torch or onnxruntime.

``auto`` is onnxruntime on a CPU without bf16, where both compute in fp32: benchmarks.engines measured it to be faster
(docs/performance.md). It is torch on a GPU, with torch.compile, and on a CPU with bf16, in which only torch computes;
the two are not compared there.
"""

from typing import Literal

import torch

from competition.command import Failure
from competition.settings.schema import Inference, Precision
from folds.device import resolve_precision
from inference.engine.onnx_graph import missing_packages, require_packages

Runtime = Literal["torch", "onnxruntime"]


def resolve_engine(settings: Inference, device: torch.device) -> Runtime:
    """The runtime that ``inference.engine`` means on a device."""
    if settings.engine == "torch":
        return "torch"
    if settings.engine == "onnxruntime":
        if device.type != "cpu":
            raise Failure(
                f"inference.engine=onnxruntime computes on a CPU, and the device is {device}; use DEVICE=cpu, or "
                "SET=inference.engine=torch"
            )
        require_packages()
        return "onnxruntime"
    in_fp32 = resolve_precision("auto", device) == resolve_precision(settings.precision, device) == "fp32"
    usable = device.type == "cpu" and in_fp32 and not settings.compile and not missing_packages()
    return "onnxruntime" if usable else "torch"


def precision_of(settings: Inference, device: torch.device) -> Precision:
    """The precision that the networks compute in: onnxruntime computes in fp32 only."""
    if resolve_engine(settings, device) == "onnxruntime":
        return "fp32"
    return resolve_precision(settings.precision, device)
