"""Why PyTorch cannot use a GPU. The driver's files and PyTorch's answers are simulated."""

from pathlib import Path

import pytest
import torch

from folds import gpu


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the driver 535 with one card; PyTorch is a build for CUDA 13.0 and finds no GPU."""
    (tmp_path / "gpus" / "0000:00:04.0").mkdir(parents=True)
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023"
    (tmp_path / "version").write_text(f"{version}\nGCC version:  gcc version 11.4.0\n")
    monkeypatch.setattr(gpu, "DRIVER", tmp_path)
    monkeypatch.setattr(torch, "__version__", "2.15.0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def test_an_old_driver_is_named(driver: Path) -> None:
    assert gpu.obstacle() == (
        "the NVIDIA driver 535.104.05 is too old for PyTorch 2.15.0, which needs 580 or newer for CUDA 13.0; "
        "update the driver, or install a PyTorch build for an older CUDA"
    )


@pytest.mark.parametrize(("cuda", "words"), [(None, "is built without CUDA"), ("12.6", "torch.cuda.init()")])
def test_other_reasons(driver: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None, words: str) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert words in str(gpu.obstacle())


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_no_obstacle(driver: Path, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert gpu.obstacle() is None


def test_without_a_card_there_is_no_obstacle(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (driver / "gpus" / "0000:00:04.0").rmdir()
    assert gpu.obstacle() is None
    monkeypatch.setattr(gpu, "DRIVER", driver / "missing")
    assert gpu.obstacle() is None


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 0), "has no kernels for the Tesla P100 (compute capability 6.0), only for 7.5 and newer"),
        ((7, 5), None),
        ((9, 0), None),
    ],
)
def test_an_old_card_is_named(
    driver: Path, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "Tesla P100")
    found = gpu.obstacle()
    assert found is None if expected is None else expected in str(found)
