"""Workers that the system kills, and other resources that run out."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from competition.command import Failure
from folds import workers
from folds.samples import Key, Samples
from folds.train import main as train
from folds.workers import lack_explained, require_files

Sample = tuple[torch.Tensor, torch.Tensor]
SMALL = [
    *("split.folds=3", "input={height: 32, width: 64}", "network={width: 4, depth: 1, stem: 2}"),
    "train={epochs: 2, batch_size: 2, workers: 1, cache: false, validate_every: 2}",
]


@pytest.mark.parametrize(
    "death",
    [
        (signal.SIGKILL, r"a worker was killed \(SIGKILL\), usually because the machine .* no memory \(RAM\) left"),
        (signal.SIGBUS, r"/dev/shm, where workers leave their batches, is full; .*train.workers=0.*--shm-size"),
    ],
)
def test_a_worker_that_is_really_killed(
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    death: tuple[signal.Signals, str],
) -> None:
    number, reason = death
    torch.set_num_threads(1)
    read: Callable[[Samples, Key], Sample] = Samples.__getitem__

    def killed(samples: Samples, key: Key) -> Sample:
        if key.epoch == 1:
            os.kill(os.getpid(), number)
        return read(samples, key)

    command = ["--fold", "0", "--run", str(tmp_path / "run"), "--data", str(tiny_data), "--preset", "demo", "--set"]
    with monkeypatch.context() as patched:
        patched.setattr(Samples, "__getitem__", killed)
        with pytest.raises(Failure, match=f"fold 0 was interrupted: {reason}") as error:
            train([*command, *SMALL])
    assert "the same command resumes from the last save" in str(error.value)
    assert capfd.readouterr().err == "", "no message of the worker"
    train([*command, *SMALL, "train.workers=0"])
    assert "fold 0 resumes in epoch 2" in capfd.readouterr().out


def test_workers_share_the_cache_with_another_default_of_python(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default of Python 3.14 pickles the samples for each worker."""

    def pickled(_samples: Samples, _protocol: object) -> NoReturn:
        raise AssertionError("the samples are pickled")

    torch.set_num_threads(1)
    monkeypatch.setattr(Samples, "__reduce_ex__", pickled)
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        train(["--fold", "0", "--run", str(tmp_path), "--data", str(tiny_data), "--preset", "demo", "--set", *SMALL])
    finally:
        multiprocessing.set_start_method(None, force=True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left (28)"),
            "/dev/shm",
        ),
        (RuntimeError("received 0 items of ancdata"), r"the limit of open files is used up \(ulimit -n\)"),
        (OSError(24, "Too many open files"), "the limit of open files is used up"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "the limit of processes and threads"),
        (MemoryError(), r"has no memory \(RAM\) left"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), "has no memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Floating point."), "killed by a signal"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "a worker ended unexpectedly, usually"),
        (ConnectionRefusedError(111, "Connection refused"), "a worker ended unexpectedly"),
    ],
)
def test_errors_that_name_a_lack(error: Exception, reason: str) -> None:
    with (
        pytest.raises(Failure, match=f"fold 2 was interrupted: .*{reason}.*; the same command resumes"),
        lack_explained(2),
    ):
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), RuntimeError("Connection reset by peer")])
def test_other_errors_stay(error: Exception) -> None:
    """The last one means that another rank has failed, which reports it."""
    with pytest.raises(type(error)) as raised, lack_explained(0):
        raise error
    assert raised.value is error


def test_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 4096)]
    monkeypatch.setattr(workers, "MANY_FILES", 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    require_files(8)
    assert limits[-1] == (1000, 4096)
    limits.append((200, 200))
    require_files(4)
    with pytest.raises(Failure, match=r"train.workers=8 can need 224 open files, and the limit is 200 .*workers=6$"):
        require_files(8)
