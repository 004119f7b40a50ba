"""Which runtime computes the networks."""

import pytest
import torch

from competition.command import Failure
from competition.settings.resolve import resolve
from competition.settings.schema import Inference
from inference.engine import runtime
from inference.engine.runtime import precision_of, resolve_engine

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A processor with bf16, or without."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param}, raising=False)


@pytest.mark.parametrize(
    ("bf16", "settings", "expected"),
    [
        (False, {}, "onnxruntime"),
        (False, {"precision": "fp32"}, "onnxruntime"),
        (False, {"precision": "bf16"}, "torch"),
        (False, {"compile": True}, "torch"),
        (False, {"engine": "torch"}, "torch"),
        (True, {}, "torch"),
        (True, {"precision": "fp32"}, "torch"),
        (True, {"engine": "onnxruntime"}, "onnxruntime"),
    ],
    indirect=["bf16"],
)
def test_auto_is_onnxruntime_on_a_cpu_without_bf16(
    bf16: None, settings: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Inference.model_validate(settings)
    assert resolve_engine(chosen, CPU) == expected
    if expected == "onnxruntime":
        assert precision_of(chosen, CPU) == "fp32"
        monkeypatch.setattr(runtime, "missing_packages", lambda: ["onnx"])
        if chosen.engine == "auto":
            assert resolve_engine(chosen, CPU) == "torch"


def test_a_gpu_computes_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert resolve_engine(Inference(), GPU) == "torch"
    with pytest.raises(Failure, match="computes on a CPU, and the device is cuda; use DEVICE=cpu, or SET=inf"):
        resolve_engine(Inference(engine="onnxruntime"), GPU)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"compile": True}, "compile=true compiles the networks"),
        ({"precision": "bf16"}, "in fp32, not in bf16"),
    ],
)
def test_onnxruntime_neither_compiles_nor_computes_in_bf16(other: dict[str, object], message: str) -> None:
    with pytest.raises(Failure, match=message):
        resolve({"inference": {"engine": "onnxruntime", **other}})
