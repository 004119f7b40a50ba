"""The trainer: its updates, what it keeps and which errors it raises."""

import contextlib
import copy
import signal
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.backends import cudnn

from competition.command import Failure, Terminated
from competition.data_folder import DataFolder
from competition.metrics import Scores
from competition.run.folder import RunFolder
from competition.run.records import Epoch, read_history
from competition.settings.resolve import merge, resolve
from folds import losses, ranks
from folds import trainer as trainer_module
from folds.begin import ensure_split
from folds.checkpoint import Provenance, State, load_provenance, load_state, load_weights
from folds.losses import segmentation_loss
from folds.optimizer import learning_rate
from folds.samples import Key
from folds.train import make_trainer
from folds.trainer import Trainer
from folds.validation import Validation

SMALL: dict[str, Any] = {
    "split": {"folds": 5},
    "input": {"height": 32, "width": 64},
    "network": {"width": 4, "depth": 1, "stem": 4},
    "train": {"epochs": 2, "batch_size": 2, "lr": 0.01, "workers": 0, "cache": True, "precision": "fp32", "ema": 0.5},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trainer_of(data: Path, root: Path, **train: Any) -> Trainer:
    """The trainer of fold 0: 8 images in batches of 2 are 4 updates an epoch."""
    settings, folder, run = resolve(merge(SMALL, {"train": train})), DataFolder(data), RunFolder(root / "run")
    return make_trainer(run, settings, folder, ensure_split(run, settings, folder), 0)


def history_of(trainer: Trainer) -> list[Epoch]:
    return read_history(trainer.run.history(0))


def same_tensors(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# Updates.


class Plain(nn.Module):
    """A network without batch norm: the gradient of a batch is the mean of its images' gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layer(pixels.float() / 255)
        return logits


def plain_trainer(data: Path, root: Path, **train: Any) -> Trainer:
    made = trainer_of(data, root, **train)
    torch.manual_seed(0)
    samples: Any = made.loader.dataset
    return Trainer(
        Plain(), samples, made.validation, settings=made.settings, run=made.run, fold=0, device=torch.device("cpu")
    )


def test_two_batches_of_4_make_the_update_of_one_of_8(tiny_data: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "ema": 0, "clip": 0, "schedule": "constant", "warmup": 0}
    weights = []
    for size, accumulate in ((8, 1), (4, 2)):
        root = tmp_path / str(accumulate)
        trainer = plain_trainer(tiny_data, root, batch_size=size, accumulate=accumulate, **common)
        trainer.fit()
        assert trainer.updates_per_epoch == 1
        weights.append(torch.cat([parameter.flatten() for parameter in trainer.network.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_one_update_by_hand(tiny_data: Path, tmp_path: Path, clip: float) -> None:
    """The first step of Nesterov SGD: weights - lr * gradient * (1 + momentum)."""
    train = {"optimizer": "sgd", "lr": 0.1, "ema": 0.5, "clip": clip, "weight_decay": 0, "batch_size": 8}
    trainer = plain_trainer(tiny_data, tmp_path, **train, schedule="constant", warmup=0, epochs=1)
    before = Plain()
    before.load_state_dict(trainer.network.state_dict())
    samples = trainer.loader.dataset
    pairs = [samples[Key(0, photo)] for photo in range(8)]
    logits = before(torch.stack([pair[0] for pair in pairs]).permute(0, 3, 1, 2))
    target = torch.stack([pair[1] for pair in pairs]).unsqueeze(1) / 255
    segmentation_loss(trainer.settings.loss, logits, target).backward()
    gradients = [parameter.grad for parameter in before.parameters() if parameter.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    factor = min(1.0, clip / float(norm)) if clip else 1.0
    trainer.fit()
    for old, gradient, new in zip(before.parameters(), gradients, trainer.network.parameters(), strict=True):
        assert torch.allclose(new, old - 0.1 * 1.9 * factor * gradient, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precisions_learn(tiny_data: Path, tmp_path: Path, precision: str) -> None:
    trainer = trainer_of(tiny_data, tmp_path, precision=precision, epochs=4, validate_every=4)
    assert trainer.state.scaler.is_enabled() == (precision == "fp16")
    trainer.fit()
    history = history_of(trainer)
    assert history[-1].loss < history[0].loss
    assert all(parameter.dtype == torch.float32 for parameter in trainer.network.parameters())


def overflow(trainer: Trainer, calls: set[int]) -> None:
    """The activations of these forward passes in training, counted from 1, are too large for fp16."""
    passes = iter(range(1, 1000))

    def enlarge(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        return (inputs[0] * 1e30,) if module.training and next(passes) in calls else None

    trainer.network.get_submodule("contracting.0.0").register_forward_pre_hook(enlarge)


def test_an_update_whose_forward_pass_overflows_in_fp16_is_skipped(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = trainer_of(tiny_data, tmp_path, precision="fp16", epochs=2, accumulate=2)
    overflow(trainer, {2})
    state, before = trainer.state, copy.deepcopy(trainer.state.state_dict())
    trainer.network.train()
    trainer.batches.epoch = 0
    assert float(trainer.train_step(iter(trainer.loader))) == 0
    assert (state.overflows.in_row, state.overflows.in_epoch) == (1, 1)
    for part in ("network", "ema"):  # with the running statistics
        assert same_tensors(before[part], state.state_dict()[part])
    state.update = 1
    trainer.fit()
    history = history_of(trainer)
    assert [0.3 < epoch.loss < 1.5 for epoch in history] == [True, True], "the mean of the updates that were made"
    assert capsys.readouterr().out.splitlines()[0] == "skipped updates because fp16 overflowed: 1"
    assert load_state(trainer.run.last(0))["overflows"] == [0, 0]
    assert all(torch.isfinite(tensor).all() for tensor in load_state(trainer.run.last(0))["ema"].values())


def test_many_overflows_in_a_row_end_the_training(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tiny_data, tmp_path, precision="fp16", epochs=20)
    trainer.state.overflows.in_row = 2  # of a training that resumes
    overflow(trainer, set(range(5, 1000)))
    reason = r"fp16 overflowed in 20 updates in a row, the last one update 4 of epoch 6; .*last.pt.*precision=bf16"
    with pytest.raises(Failure, match=reason):
        trainer.fit()
    assert load_state(trainer.run.last(0))["overflows"] == [16, 0]


def test_gradients_that_always_overflow_in_fp16_end_the_training(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite, and GradScaler skips each update."""
    trainer = trainer_of(tiny_data, tmp_path, precision="fp16", epochs=9)

    def spoiled(*arguments: Any) -> Tensor:
        loss = segmentation_loss(*arguments)
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(losses, "segmentation_loss", spoiled)
    with pytest.raises(Failure, match=r"fp16 overflowed in 20 updates in a row"):
        trainer.fit()


# Compilation.


def test_a_compiled_training_resumes_without_compilation_and_back(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal stops it after the first step of epochs 2 and 3. The backend runs what was traced, uncompiled."""
    plain = trainer_of(tiny_data, tmp_path / "plain", epochs=3, ema=0)
    plain.fit()
    counter, compile_it = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module, **given: compile_it(module, backend=counter, **given))
    score, signals = Validation.score, iter([signal.SIGTERM, signal.SIGINT])

    def signalled(*given: Any) -> Scores:
        for number in signals:
            signal.raise_signal(number)
            break
        return score(*given)

    monkeypatch.setattr(Validation, "score", signalled)
    for compiled in (True, False, True):
        trainer = trainer_of(tiny_data, tmp_path / "both", epochs=3, ema=0, compile=compiled)
        with nullcontext() if trainer.state.epoch == 2 else pytest.raises(Terminated):
            trainer.fit()
        assert counter.frame_count == 1, "torch keeps what it has compiled; the validation is not compiled"
    ours, theirs = (load_state(each.run.last(0)) for each in (trainer, plain))
    assert ours["network"].keys() == theirs["network"].keys()
    for name, tensor in theirs["network"].items():
        assert torch.allclose(ours["network"][name], tensor, atol=1e-5)


def test_an_error_of_the_compiler_says_how_to_train_without(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no working\nC++ compiler")

    compile_it = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module, **given: compile_it(module, backend=broken, **given))
    reason = r"torch.compile failed \(.*no working C\+\+ compiler.*\); .* train without it: SET=train.compile=false"
    with pytest.raises(Failure, match=reason):
        trainer_of(tiny_data, tmp_path, compile=True).fit()


def test_cudnn_times_its_algorithms_in_training_only(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tiny_data, tmp_path, cudnn_benchmark=True, epochs=1, ema=0)
    seen: set[tuple[bool, bool]] = set()
    trainer.network.register_forward_hook(lambda module, *_: seen.add((module.training, cudnn.benchmark)))
    trainer.fit()
    assert seen == {(True, True), (False, False)}
    assert not cudnn.benchmark


def test_statistics_that_are_synchronized_are_not_averaged(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On GPUs each forward pass synchronizes them (SyncBatchNorm)."""
    trainer, averaged = trainer_of(tiny_data, tmp_path, epochs=1), []
    monkeypatch.setattr(ranks, "average_statistics", averaged.append)
    for trainer.synchronized in (True, False):
        trainer.train_step(iter(trainer.loader))
    assert averaged == [trainer.network]


# Files.


def test_history_best_weights_and_events(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epochs 2, 4 and, as the last one, 5 are validated; epoch 2 is best, and its averaged weights are kept."""
    trainer = trainer_of(tiny_data, tmp_path, epochs=5, validate_every=2)
    dice = iter([0.8, 0.7, 0.75])
    scored: list[dict[str, Tensor]] = []

    def score(_self: Validation, network: nn.Module, *_: object) -> Scores:
        assert trainer.state.ema is not None
        assert network is trainer.state.ema.module, "the averaged weights are validated"
        scored.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return Scores(next(dice), 0.5, 2)

    monkeypatch.setattr(Validation, "score", score)
    trainer.fit()
    history = history_of(trainer)
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4, 5]
    assert [epoch.dice for epoch in history] == [None, 0.8, None, 0.7, 0.75]
    assert [epoch.best for epoch in history] == [False, True, False, False, False]
    assert history[-1].lr == learning_rate(trainer.settings.train, 19, 20)
    assert all(epoch.loss > 0 and epoch.images_per_second > 0 for epoch in history)
    assert trainer.best == history[1]
    network, _, provenance = load_weights(trainer.run.best(0))
    held_out = trainer.validation.held_out
    learned = tuple(sorted({photo.car for photo in trainer.loader.dataset.photos}))
    assert provenance == Provenance(fold=0, held_out=held_out, epoch=2, dice=0.8, iou=0.5, learned=learned)
    assert same_tensors(network.state_dict(), scored[0])
    assert not torch.equal(scored[0]["head.weight"], scored[1]["head.weight"])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in printed] == [f"epoch {number}/5" for number in range(1, 6)]
    assert events_of(trainer, "dice") == [(8, 0.8), (16, 0.7), (20, 0.75)]
    assert [step for step, _ in events_of(trainer, "loss")] == [4, 8, 12, 16, 20]


def events_of(trainer: Trainer, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(trainer.run.fold(0) / "events"))
    events.Reload()
    return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars(name)]


def test_events_of_an_epoch_that_was_not_saved_are_replaced(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tiny_data, tmp_path, epochs=3)

    write = Trainer.write

    def killed(self: Trainer, state: State) -> None:
        if state["epoch"] == 2:
            raise KeyboardInterrupt
        write(self, state)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "write", killed)
        trainer.fit()
    resumed = trainer_of(tiny_data, tmp_path, epochs=3)
    assert (resumed.state.epoch, resumed.state.update) == (1, 0)
    second = int(time.time())
    while int(time.time()) == second:  # TensorBoard orders its files by the second in their names
        time.sleep(0.01)
    resumed.fit()
    assert [step for step, _ in events_of(resumed, "loss")] == [4, 8, 12]


@pytest.mark.parametrize("dice", [[0.5, 0.9, 0.7], [0.9, 0.5, 0.7]], ids=["better", "worse"])
def test_best_weights_and_history_follow_from_the_saved_state(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: list[float]
) -> None:
    """A process is killed between saving the state of epoch 2 and writing its results."""
    scores = iter(dice)
    monkeypatch.setattr(Validation, "score", lambda *_: Scores(next(scores), 0.5, 2))
    trainer = trainer_of(tiny_data, tmp_path, epochs=3)
    original = Trainer.write_results

    def killed(self: Trainer, state: State) -> None:
        if state["epoch"] == 2:
            raise KeyboardInterrupt
        original(self, state)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "write_results", killed)
        trainer.fit()
    assert (load_state(trainer.run.last(0))["epoch"], len(history_of(trainer))) == (2, 1)
    trainer_of(tiny_data, tmp_path, epochs=3).fit()
    assert [epoch.dice for epoch in history_of(trainer)] == dice
    network, _, provenance = load_weights(trainer.run.best(0))
    assert (provenance.dice, provenance.epoch) == (0.9, 1 + dice.index(0.9))
    assert same_tensors(network.state_dict(), load_state(trainer.run.last(0))["best"])


def test_without_an_average_the_weights_themselves_are_kept(tiny_data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_data, tmp_path, epochs=1, ema=0)
    trainer.fit()
    assert trainer.state.ema is None
    assert same_tensors(trainer.network.state_dict(), load_weights(trainer.run.best(0))[0].state_dict())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_last_validation_stops_before_the_next_fold(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    trainer = trainer_of(tiny_data, tmp_path, epochs=1)

    def score(*_: object) -> Scores:
        signal.raise_signal(number)
        return Scores(0.5, 0.5, 2)

    monkeypatch.setattr(Validation, "score", score)
    with pytest.raises(Terminated, match=f"stopped by {number.name} after the last epoch of fold 0"):
        trainer.fit()
    assert trainer_of(tiny_data, tmp_path, epochs=1).finished


# Checkpoints are written in a thread.


class Gate:
    """Delays the writing of states until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        write = Trainer.write

        def delayed(trainer: Trainer, state: State) -> None:
            assert self.open.wait(60)
            write(trainer, state)

        monkeypatch.setattr(Trainer, "write", delayed)


def test_steps_go_on_while_a_state_is_written_and_do_not_change_it(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, trainer = Gate(monkeypatch), trainer_of(tiny_data, tmp_path)
    before = copy.deepcopy(trainer.state.state_dict())
    trainer.save()
    trainer.network.train()
    trainer.batches.epoch = 0
    trainer.train_step(iter(trainer.loader))
    assert not trainer.run.last(0).exists()
    gate.open.set()
    trainer.writer.wait()
    saved = load_state(trainer.run.last(0))
    for part in ("network", "ema"):
        assert same_tensors(saved[part], before[part])
        assert not same_tensors(saved[part], trainer.state.state_dict()[part])


def test_the_end_of_the_training_waits_for_the_last_state(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, trainer = Gate(monkeypatch), trainer_of(tiny_data, tmp_path, epochs=1)
    line = trainer_module.epoch_line

    def last_line(*given: Any) -> str:
        threading.Timer(0.1, gate.open.set).start()
        return line(*given)

    monkeypatch.setattr(trainer_module, "epoch_line", last_line)
    trainer.fit()
    assert (load_state(trainer.run.last(0))["epoch"], len(history_of(trainer))) == (1, 1)


def test_a_state_that_cannot_be_written_ends_the_training_at_the_next_step(tiny_data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_data, tmp_path, save_seconds=1000)
    trainer.run.last(0).mkdir(parents=True)
    trainer.save()
    with contextlib.suppress(Failure):
        trainer.writer._job.result()
    with pytest.raises(Failure, match=r"cannot write .*last.pt: "):
        trainer.fit()
    assert trainer.state.update == 0


# Errors.


def scale_loss(monkeypatch: pytest.MonkeyPatch, calls: list[float]) -> None:
    """Multiply the loss of successive batches by these numbers, then by 1."""
    factors = iter(calls)
    monkeypatch.setattr(losses, "segmentation_loss", lambda *given: segmentation_loss(*given) * next(factors, 1.0))


@pytest.mark.parametrize(
    "case",
    [
        (0, 7, "update 3 of epoch 2; .*last.pt holds .*; try a smaller train.lr", (1, 2)),
        (0, 1, "update 1 of epoch 1; try a smaller train.lr", None),
        (1000, 6, "update 2 of epoch 2; .*last.pt holds", (1, 0)),
    ],
    ids=["every update is saved", "none is saved", "found at the end of the epoch"],
)
def test_a_loss_that_is_not_finite_stops_and_keeps_the_state_before(
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[int, int, str, tuple[int, int] | None],
) -> None:
    save_seconds, bad, place, saved = case
    trainer = trainer_of(tiny_data, tmp_path, epochs=3, save_seconds=save_seconds)
    scale_loss(monkeypatch, [1.0] * (bad - 1) + [float("nan")])
    with pytest.raises(Failure, match=f"the loss of fold 0 is not finite after {place}"):
        trainer.fit()
    if saved is None:
        assert not trainer.run.last(0).exists()
        return
    state = load_state(trainer.run.last(0))
    assert (state["epoch"], state["update"]) == saved
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())
    assert load_provenance(trainer.run.best(0)).epoch == 1


def test_weights_that_are_not_finite_are_not_saved(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is still finite, but its gradient is not."""
    trainer = trainer_of(tiny_data, tmp_path, save_seconds=0, clip=0)
    trainer.save()
    trainer.writer.wait()

    def spoiled(*arguments: Any) -> Tensor:
        loss = segmentation_loss(*arguments)
        loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    monkeypatch.setattr(losses, "segmentation_loss", spoiled)
    with pytest.raises(Failure, match="is not finite after update 1 of epoch 1"):
        trainer.fit()
    assert load_state(trainer.run.last(0))["update"] == 0


def test_a_step_that_runs_out_of_memory_says_what_to_do(tiny_data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_data, tmp_path)

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    trainer.network.register_forward_pre_hook(full)
    reason = r"train.batch_size=2 runs out of memory .*; start a new RUN .*train.accumulate.*train.batch_size=auto"
    with pytest.raises(Failure, match=reason):
        trainer.fit()
