"""A training that is interrupted and resumed ends with the weights of an uninterrupted one."""

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from rank_processes import CONTEXT, run_rank, start_server

from competition.command import OutOfTime, Terminated
from competition.deadline import Deadline
from competition.run.folder import RunFolder
from folds.checkpoint import load_state
from folds.samples import Key, Samples
from folds.train import main as train

EPOCHS = 12  # enough for a slow machine to interrupt the training before it ends
# 8 images in batches of 2 with 2 batches an update: 2 updates an epoch, and a save after each of them.
SETTINGS = [
    "split.folds=5",
    "input={height: 32, width: 64}",
    "network={width: 8, depth: 2, stem: 2}",
    f"train={{epochs: {EPOCHS}, batch_size: 2, accumulate: 2, lr: 0.01, ema: 0.9, validate_every: 6}}",
    "train.save_seconds=0",
]


def arguments_of(run: RunFolder, data: Path, workers: int) -> list[str]:
    return [
        *("--fold", "0", "--run", str(run.root), "--data", str(data), "--preset", "demo"),
        *("--set", *SETTINGS, f"train.workers={workers}", f"train.cache={str(workers == 0).lower()}"),
    ]


def train_as_from_a_shell(arguments: list[str]) -> None:
    os.setsid()
    train(arguments)


class Training:
    """A process that trains fold 0 in its own process group, as when a shell starts it."""

    def __init__(self, run: RunFolder, data: Path, workers: int = 0) -> None:
        self.last = run.last(0)
        self.outputs = run.root.parent / "out", run.root.parent / "err"
        start_server()
        arguments = (arguments_of(run, data, workers),)
        self.process = CONTEXT.Process(target=run_rank, args=({}, self.outputs, train_as_from_a_shell, arguments))
        self.process.start()

    def wait_for_saves(self, count: int) -> None:
        """Wait until last.pt has been replaced that many times."""
        seen, before = 0, self._stamp()
        deadline = time.monotonic() + 90
        while seen < count:
            assert self.process.is_alive(), f"ended too early: {self.end()}"
            assert time.monotonic() < deadline, "nothing is saved"
            now = self._stamp()
            seen += now != before
            before = now
            time.sleep(0.0005)

    def end(self, number: signal.Signals | None = None) -> tuple[int | None, str, str]:
        """Send a signal, if given, to the whole group, and wait; returns the exit status, stdout and stderr."""
        if number is not None:
            os.killpg(self.process.pid or 0, number)
        self.process.join(90)
        out, err = (path.read_text() for path in self.outputs)
        return self.process.exitcode, out, err

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self.last.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns


def progress(run: RunFolder) -> tuple[int, int]:
    state = load_state(run.last(0))
    return state["epoch"], state["update"]


def tensors_of(state: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in nested dicts and lists, with their paths."""
    if isinstance(state, torch.Tensor):
        yield name, state
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        yield from tensors_of(value, f"{name}.{key}")


def assert_same_end(run: RunFolder, reference: RunFolder, epochs: int = EPOCHS) -> None:
    best, expected = (safetensors.torch.load_file(one.best(0)) for one in (run, reference))
    assert best.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in best.items())
    states = [load_state(one.last(0)) for one in (run, reference)]
    for part in ("network", "ema", "optimizer", "scaler", "random", "loss_sum", "best"):
        ours, theirs = (dict(tensors_of(state[part], part)) for state in states)
        assert ours.keys() == theirs.keys()
        different = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
        assert not different, different
    timed = ("seconds", "images_per_second")
    histories = [
        [{name: value for name, value in line.items() if name not in timed} for line in state["history"]]
        for state in states
    ]
    assert histories[0] == histories[1]
    assert len(histories[0]) == epochs


@pytest.fixture(scope="module")
def reference(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An uninterrupted training."""
    run = RunFolder(tmp_path_factory.mktemp("reference") / "run")
    torch.set_num_threads(1)
    train(arguments_of(run, tiny_data, workers=0))
    return run


def test_killed_at_random_moments(tiny_data: Path, tmp_path: Path, reference: RunFolder) -> None:
    chance = random.Random(7)
    run = RunFolder(tmp_path / "run")
    reached = [(0, 0)]
    for _ in range(2):
        training = Training(run, tiny_data)
        training.wait_for_saves(chance.randint(2, 5))
        time.sleep(chance.uniform(0, 0.05))
        assert training.end(signal.SIGKILL)[0] == -signal.SIGKILL
        reached.append(progress(run))
    assert reached == sorted(set(reached)), "each start resumes"
    assert reached[-1][0] < EPOCHS
    status, out, err = Training(run, tiny_data).end()
    assert status == 0, err
    assert f"fold 0 resumes in epoch {reached[-1][0] + 1}" in out
    assert_same_end(run, reference)


def test_stopped_by_signals_with_workers(tiny_data: Path, tmp_path: Path, reference: RunFolder) -> None:
    """The signals reach the whole group, also the workers. The current step is finished and saved."""
    run = RunFolder(tmp_path / "run")
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")):
        training = Training(run, tiny_data, workers=1)
        training.wait_for_saves(3)
        status, _, err = training.end(number)
        assert status == 128 + number, err
        epoch, update = progress(run)
        expected = rf"stopped by {name} in epoch {epoch + 1} at step {update} of 2; it is saved, and the same command"
        assert re.fullmatch(rf"{expected} resumes there\n", err), err
    train(arguments_of(run, tiny_data, workers=0))
    assert_same_end(run, reference)


def test_stopped_by_a_deadline(
    tiny_data: Path, tmp_path: Path, reference: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reached before the first step, inside epoch 1, and after its last step; then there is time."""
    torch.set_num_threads(1)
    run = RunFolder(tmp_path / "run")
    arguments = [*arguments_of(run, tiny_data, workers=0), "--hours", "11"]
    ended = []
    for looks in (0, 1, 2):
        left = iter([True] * looks)
        monkeypatch.setattr(Deadline, "leaves", lambda _, left=left: next(left, False))
        with pytest.raises(OutOfTime) as stop:
            train(arguments)
        ended.append(str(stop.value))
    monkeypatch.undo()
    assert ended == [
        "stopped by HOURS=11 before fold 0; the same command resumes there",
        "stopped by HOURS=11 in epoch 1 at step 1 of 2; it is saved, and the same command resumes there",
        "stopped by HOURS=11 in epoch 2 at step 1 of 2; it is saved, and the same command resumes there",
    ]
    train(arguments)
    assert_same_end(run, reference)


WHOLE = ["loss={boundary: 3, boundary_width: 5}", "augment={hue: 0.1, blur: 0.5, jpeg: 0.5}"]
CROPS = ["augment.crop=[16, 32]"]
# The test writes the file.
FROZEN = (
    "network={name: timm_unet, width: 32, max_width: 256, depth: 4, stem: 4, decoder: [16, 8, 8], "
    "encoder: test_resnet, freeze: 2, weights: w.safetensors}"
)


@pytest.mark.parametrize(
    "recipe",
    [
        [*WHOLE, "train.optimizer=sgd", "train.schedule=step", "train.milestones=[0.3, 0.6]"],
        [*CROPS, "augment.on_device=true", "train.schedule=cosine", "train.ema=0", "loss={bce: 0, dice: 1}"],
        [*CROPS, "train.schedule=step", "train.warmup=0", "train.precision=bf16", "loss={dice: 1, boundary: 2}"],
        [*WHOLE, "train.optimizer=sgd", "train.schedule=constant", "train.precision=fp16"],
        [FROZEN, "loss={dice: 1, targets: hard}", "train.schedule=onecycle"],
    ],
    ids=[
        "boundary-step-sgd",
        "dice-cosine-crops-on-device",
        "boundary-step-bf16-crops",
        "boundary-constant-fp16-sgd",
        "frozen",
    ],
)
def test_every_recipe_resumes_within_an_epoch(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: list[str]
) -> None:
    """A signal arrives while a sample is prepared, in the first update of the second and of the third epoch."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    if FROZEN in recipe:
        encoder = timm.create_model("test_resnet", features_only=True)
        safetensors.torch.save_file(encoder.state_dict(), "w.safetensors")
    short = ["train.epochs=3", "train.validate_every=3", "train.save_seconds=1000", *recipe]

    def start(run: RunFolder) -> None:
        train([*arguments_of(run, tiny_data, workers=0), *short])

    reference, run = RunFolder(tmp_path / "reference"), RunFolder(tmp_path / "run")
    start(reference)
    prepare, prepared = Samples.__getitem__, []

    def signalled(samples: Samples, key: Key) -> tuple[torch.Tensor, ...]:
        prepared.append(key)
        if len(prepared) in (1 * 8 + 3, 2 * 8 + 1):
            signal.raise_signal(signal.SIGTERM)
        return prepare(samples, key)

    monkeypatch.setattr(Samples, "__getitem__", signalled)
    reached = []
    for _ in range(2):
        with pytest.raises(Terminated):
            start(run)
        reached.append(progress(run))
    start(run)
    assert reached == [(1, 1), (2, 1)]
    assert len(prepared) == 3 * 8, "no sample is prepared twice"
    assert_same_end(run, reference, epochs=3)
