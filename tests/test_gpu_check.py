"""The check of a GPU: every step is rehearsed on the CPU, and no step can stop the others."""

import importlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from rank_processes import BEGIN

from benchmarks.gpu_check import __main__ as program
from benchmarks.gpu_check.__main__ import STEPS, Limited, main
from benchmarks.gpu_check.speed import batch, speed
from benchmarks.gpu_check.step import Check, Figure, require
from competition.command import Failure
from competition.data_folder import DataFolder


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "cpu")


def results(out: Path) -> dict[str, dict[str, object]]:
    """The recorded steps by name."""
    recorded = json.loads((out / "gpu_check.json").read_text())
    assert {"processor", "gpu", "packages"} <= recorded["machine"].keys()
    return {step["step"]: step for step in recorded["steps"]}


@pytest.mark.long
def test_every_step_is_rehearsed(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in BEGIN:  # here once, and not in the process of each step
        importlib.import_module(name)
    main(["--rehearse", "--data", str(tiny_data), "--out", str(tmp_path), "--steps", *STEPS])
    screen, found = capsys.readouterr().out, results(tmp_path)
    assert [step["error"] for step in found.values()] == [None] * len(STEPS)
    assert list(found) == list(STEPS)
    assert all(step["figures"] for step in found.values())
    assert all(f"{name:16} passed" in screen for name in STEPS)
    assert "largest difference of a weight from an uninterrupted training" in screen
    assert not list(tmp_path.glob("*/")), "the runs of the steps are removed"


def test_without_a_gpu_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA is asked in another process: one that has used it cannot fork the steps."""
    monkeypatch.delenv("DEVICE")
    asked = tmp_path / "asked"

    def not_available() -> bool:
        with asked.open("a") as file:
            print(os.getpid(), file=file)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", not_available)
    with pytest.raises(Failure, match=r"^this machine has no NVIDIA GPU, .* REHEARSE=1 to run every step tiny"):
        main(["--out", str(tmp_path)])
    assert str(os.getpid()) not in asked.read_text().split()
    monkeypatch.setenv("DEVICE", "cpu")
    with pytest.raises(Failure, match=r"^DEVICE=cpu is no NVIDIA GPU, so there is nothing to check"):
        main(["--out", str(tmp_path)])


def test_on_a_gpu_the_presets_for_gpus_are_measured(tiny_data: Path, tmp_path: Path) -> None:
    check = Check(DataFolder(tiny_data), tmp_path)
    sizes = {name: each.sample_size for name, each in check.trainings.items()}
    assert sizes == {"gpu, first stage": (640, 960), "gpu": (1280, 1920), "fullres": (1280, 1920)}
    assert {each.network.weights for each in check.trainings.values()} == {"none"}


def test_a_training_that_does_not_fit_a_small_gpu_is_a_figure(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> float:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("benchmarks.gpu_check.speed.trained_per_second", full)
    monkeypatch.setattr("benchmarks.gpu_check.speed.trial_steps", full)
    monkeypatch.setattr("benchmarks.gpu_check.speed.largest_that_fits", lambda *_: 0)
    check = Check(DataFolder(tiny_data), tmp_path, rehearsal=True)
    assert list(speed(check)) == [("demo: training", "a batch of 2 does not fit", "")]
    assert list(batch(check)) == [("demo: largest batch", 0, "images")]


def test_a_batch_that_does_not_fit_is_explained(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_settings: object, _device: object, size: int) -> None:
        if size > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of\nmemory")

    monkeypatch.setattr("benchmarks.gpu_check.speed.trial_steps", full)
    monkeypatch.setattr("benchmarks.gpu_check.speed.largest_that_fits", lambda *_: 1)
    check = Check(DataFolder(tiny_data), tmp_path, rehearsal=True)
    assert ("demo: a batch of 2", "CUDA out of memory", "") in list(batch(check))


def good(check: Check) -> Iterator[Figure]:
    yield Figure("half", 0.5, "GB")


def bad(check: Check) -> Iterator[Figure]:
    yield Figure("before", "it failed")
    require(False, "the masks differ")


def crashing(check: Check) -> Iterator[Figure]:
    yield Figure("before", 1)
    os._exit(3)


def hanging(check: Check) -> Iterator[Figure]:
    child = os.fork()
    if child:
        yield Figure("child", str(child))
    time.sleep(60)


def test_no_step_stops_the_others(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"hanging": hanging, "bad": bad, "crashing": crashing, "good": good}
    monkeypatch.setattr(program, "STEPS", {name: Limited(act, 30) for name, act in steps.items()})
    monkeypatch.setattr(program, "ON_DEMAND", ())
    start = time.monotonic()
    with pytest.raises(Failure, match=r"^3 of 4 steps failed: hanging, bad, crashing; what they printed is in .*/h"):
        main(["--rehearse", "--data", str(tiny_data), "--out", str(tmp_path), "--limit", "2"])
    assert time.monotonic() - start < 30
    found = results(tmp_path)
    assert {name: step["error"] for name, step in found.items()} == {
        "hanging": "not finished after 2 s",
        "bad": "the masks differ",
        "crashing": "its process ended with status 3",
        "good": None,
    }
    (child,) = found["hanging"]["figures"]  # type: ignore[misc]
    with suppress(psutil.NoSuchProcess):  # what the step has started is ended with it
        while psutil.Process(int(child["value"])).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() - start < 30
            time.sleep(0.05)
    screen = capsys.readouterr().out
    assert "bad              FAILED" in screen
    assert "before" in screen, "figures that came before an error are kept"
