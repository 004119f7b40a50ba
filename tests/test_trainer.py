"""The trainer: its updates, what it keeps and what it refuses."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from competition.command import Failure, Terminated
from competition.data_folder import DataFolder
from competition.metrics import Scores
from competition.run.folder import RunFolder
from competition.settings.resolve import merge, resolve
from competition.settings.schema import Loss, Settings, Train
from folds import trainer as module
from folds.begin import ensure_split
from folds.checkpoint import Provenance, load_state, load_weights, save_state
from folds.leakage import held_out_key
from folds.losses import segmentation_loss
from folds.samples import Key
from folds.schedule import learning_rate
from folds.split import read_folds
from folds.train import make_trainer
from folds.trainer import Trainer, batch_loss, make_optimizer
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


def settings_with(**train: Any) -> Settings:
    return resolve(merge(SMALL, {"train": train}))


def trainer_of(data: Path, root: Path, **train: Any) -> Trainer:
    """The trainer of fold 0: 8 images in batches of 2 are 4 updates an epoch."""
    settings, folder, run = settings_with(**train), DataFolder(data), RunFolder(root / "run")
    return make_trainer(run, settings, folder, ensure_split(run, settings, folder), 0)


def lines_of(trainer: Trainer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trainer.run.history(0).read_text().splitlines()]


# The updates.


def test_weight_decay_spares_biases_and_norms() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    decayed, spared = make_optimizer(network, Train(weight_decay=0.3)).param_groups
    assert [parameter.ndim for parameter in decayed["params"]] == [4]
    assert [parameter.ndim for parameter in spared["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert isinstance(make_optimizer(network, Train(optimizer="sgd")), torch.optim.SGD)


class Plain(nn.Module):
    """A network without batch norm, for which the gradient of a batch is the mean of its images' gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layer(pixels.float() / 255)
        return logits


def plain_trainer(data: Path, root: Path, **train: Any) -> Trainer:
    one = trainer_of(data, root, **train)
    torch.manual_seed(0)
    return Trainer(
        Plain(),
        one.loader.dataset,  # type: ignore[arg-type]
        one.validation,
        settings=one.settings,
        run=one.run,
        fold=0,
        device=torch.device("cpu"),
    )


def test_two_batches_of_4_are_one_of_8(tiny_data: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "ema": 0, "clip": 0, "schedule": "constant", "warmup": 0}
    weights = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        trainer = plain_trainer(
            tiny_data, tmp_path / str(accumulate), batch_size=batch_size, accumulate=accumulate, **common
        )
        trainer.fit()
        assert trainer.updates_per_epoch == 1
        weights.append(torch.cat([parameter.flatten() for parameter in trainer.network.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-6)


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_one_update_by_hand(tiny_data: Path, tmp_path: Path, clip: float) -> None:
    """Plain SGD in its first step: weights - lr * gradient * (1 + momentum), Nesterov's, and the EMA after it."""
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
    expected = [
        parameter.detach() - 0.1 * 1.9 * factor * gradient
        for parameter, gradient in zip(before.parameters(), gradients, strict=True)
    ]
    trainer.fit()
    for parameter, value in zip(trainer.network.parameters(), expected, strict=True):
        assert torch.allclose(parameter, value, atol=1e-5)


def test_a_batch_learns_from_soft_or_hard_targets() -> None:
    """The network answers one half everywhere: the gradient of its bias is the mean of 0.5 - target."""
    network = Plain()
    nn.init.zeros_(network.layer.weight)
    nn.init.zeros_(network.layer.bias)
    target = torch.tensor([[[255, 200, 128, 127]]], dtype=torch.uint8)
    image = torch.full((1, 1, 4, 3), 255, dtype=torch.uint8)
    for targets, expected in (("soft", [1, 200 / 255, 128 / 255, 127 / 255]), ("hard", [1, 1, 1, 0])):
        network.zero_grad()
        batch_loss(network, image, target, Loss(targets=targets), "fp32").backward()
        assert network.layer.bias.grad is not None
        assert network.layer.bias.grad.item() == pytest.approx(0.5 - sum(expected) / 4, abs=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precisions_learn(tiny_data: Path, tmp_path: Path, precision: str) -> None:
    trainer = trainer_of(tiny_data, tmp_path, precision=precision, epochs=4)
    assert trainer.scaler.is_enabled() == (precision == "fp16")
    trainer.fit()
    losses = [line["loss"] for line in lines_of(trainer)]
    assert losses[-1] < losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in trainer.network.parameters())


def test_another_precision_goes_on(tiny_data: Path, tmp_path: Path) -> None:
    """precision=auto is another one on another device: a state without a loss scale must do, and the reverse."""
    trainer_of(tiny_data, tmp_path).save()
    resumed = trainer_of(tiny_data, tmp_path, precision="fp16")
    resumed.save()
    trainer_of(tiny_data, tmp_path)


# What is kept.


def test_history_best_weights_and_events(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validated in epochs 2, 4 and, as the last, 5; the second is best, and its averaged weights are kept."""
    trainer = trainer_of(tiny_data, tmp_path, epochs=5, validate_every=2)
    dice = iter([0.8, 0.7, 0.75])
    scored: list[dict[str, Tensor]] = []

    def score(_self: Validation, network: nn.Module, *_: object) -> Scores:
        assert trainer.ema is not None
        assert network is trainer.ema.module, "the averaged weights are validated"
        scored.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return Scores(next(dice), 0.5, 2)

    monkeypatch.setattr(Validation, "score", score)
    trainer.fit()
    lines = lines_of(trainer)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["dice"] for line in lines] == [None, 0.8, None, 0.7, 0.75]
    assert [line["best"] for line in lines] == [False, True, False, False, False]
    assert lines[-1]["lr"] == learning_rate(trainer.settings.train, 19, 20)
    assert all(line["loss"] > 0 and line["images_per_second"] > 0 for line in lines)
    assert trainer.best == lines[1]
    network, _, provenance = load_weights(trainer.run.best(0))
    held_out = held_out_key(name for name, fold in read_folds(trainer.run.folds).items() if fold == 0)
    assert provenance == Provenance(fold=0, held_out=held_out, epoch=2, dice=0.8, iou=0.5)
    assert all(torch.equal(tensor, scored[0][name]) for name, tensor in network.state_dict().items())
    assert not torch.equal(scored[0]["head.weight"], scored[1]["head.weight"])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in printed] == [f"epoch {number}/5" for number in range(1, 6)]
    assert events_of(trainer, "dice") == [(8, 0.8), (16, 0.7), (20, 0.75)]
    assert [step for step, _ in events_of(trainer, "loss")] == [4, 8, 12, 16, 20]


def events_of(trainer: Trainer, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(trainer.run.fold(0) / "events"))
    events.Reload()
    return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars(name)]


def test_events_survive_a_restart(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the second epoch's events and before its state: they come again, and those of the first stay."""
    trainer = trainer_of(tiny_data, tmp_path, epochs=3)

    def save(self: Trainer) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        save_state(self.run.last(0), self.state())

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "save", save)
        trainer.fit()
    resumed = trainer_of(tiny_data, tmp_path, epochs=3)
    assert (resumed.epoch, resumed.update) == (1, 0)
    second = int(time.time())
    while int(time.time()) == second:  # TensorBoard orders its files by the second in their names
        time.sleep(0.01)
    resumed.fit()
    assert [step for step, _ in events_of(resumed, "loss")] == [4, 8, 12]


@pytest.mark.parametrize("dice", [[0.5, 0.9, 0.7], [0.9, 0.5, 0.7]], ids=["better", "worse"])
def test_killed_after_the_state_the_best_weights_and_the_history_follow(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: list[float]
) -> None:
    """They are what the state says, whatever the epoch that is under way then brings."""
    scores = iter(dice)
    monkeypatch.setattr(Validation, "score", lambda *_: Scores(next(scores), 0.5, 2))
    trainer = trainer_of(tiny_data, tmp_path, epochs=3)
    original = Trainer.write_results

    def killed(self: Trainer) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "write_results", killed)
        trainer.fit()
    assert (load_state(trainer.run.last(0))["epoch"], len(lines_of(trainer))) == (2, 1)
    trainer_of(tiny_data, tmp_path, epochs=3).fit()
    assert [line["dice"] for line in lines_of(trainer)] == dice
    network, _, provenance = load_weights(trainer.run.best(0))
    assert (provenance.dice, provenance.epoch) == (0.9, 1 + dice.index(0.9))
    kept = load_state(trainer.run.last(0))["best"]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in network.state_dict().items())


def test_without_an_average_the_weights_themselves_are_validated(tiny_data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_data, tmp_path, epochs=1, ema=0)
    trainer.fit()
    assert trainer.ema is None
    kept = load_weights(trainer.run.best(0))[0].state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in trainer.network.state_dict().items())


def test_it_learns(tiny_data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_data, tmp_path, epochs=40, lr=0.03, validate_every=40)
    trainer.fit()
    assert trainer.best is not None
    assert trainer.best["dice"] > 0.85


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_last_validation_is_heard(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """No step follows it, and the next fold must not begin."""
    trainer = trainer_of(tiny_data, tmp_path, epochs=1)

    def score(*_: object) -> Scores:
        signal.raise_signal(number)
        return Scores(0.5, 0.5, 2)

    monkeypatch.setattr(Validation, "score", score)
    with pytest.raises(Terminated, match=f"stopped by {number.name}; fold 0 is finished"):
        trainer.fit()
    assert trainer_of(tiny_data, tmp_path, epochs=1).finished


# What is refused.


def test_a_loss_that_is_no_number_stops_and_keeps_the_state_before(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tiny_data, tmp_path, epochs=3, save_seconds=0)
    trainer.save()
    calls = []

    def spoiled(*arguments: Any) -> Tensor:
        calls.append(1)
        return segmentation_loss(*arguments) * (float("nan") if len(calls) == 7 else 1)

    monkeypatch.setattr(module, "segmentation_loss", spoiled)
    with pytest.raises(Failure, match=r"fold 0 is not finite after update 3 of epoch 2; .*last.pt holds .* train.lr"):
        trainer.fit()
    state = load_state(trainer.run.last(0))
    assert (state["epoch"], state["update"]) == (1, 2)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())


def test_a_loss_that_is_no_number_from_the_beginning_promises_no_state(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tiny_data, tmp_path, save_seconds=0)
    monkeypatch.setattr(module, "segmentation_loss", lambda *given: segmentation_loss(*given) * float("nan"))
    with pytest.raises(Failure, match=r"is not finite after update 1 of epoch 1; try a smaller train.lr"):
        trainer.fit()
    assert not trainer.run.last(0).exists()


def test_weights_that_are_no_numbers_are_not_saved(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is still finite, but its gradient was not."""
    trainer = trainer_of(tiny_data, tmp_path, save_seconds=0, clip=0)
    trainer.save()

    def spoiled(*arguments: Any) -> Tensor:
        loss = segmentation_loss(*arguments)
        loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    monkeypatch.setattr(module, "segmentation_loss", spoiled)
    with pytest.raises(Failure, match="is not finite after update 1 of epoch 1"):
        trainer.fit()
    assert load_state(trainer.run.last(0))["update"] == 0


def test_the_line_names_the_update_and_the_best_weights_stay(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is saved within the epoch, so the loss is looked at only at its end, two updates after it broke."""
    trainer = trainer_of(tiny_data, tmp_path, epochs=3)
    calls = []

    def spoiled(*arguments: Any) -> Tensor:
        calls.append(1)
        return segmentation_loss(*arguments) * (float("inf") if len(calls) == 6 else 1)

    monkeypatch.setattr(module, "segmentation_loss", spoiled)
    with pytest.raises(Failure, match=r"loss of fold 0 is not finite after update 2 of epoch 2; "):
        trainer.fit()
    assert len(calls) == 8
    network, _, provenance = load_weights(trainer.run.best(0))
    assert provenance.epoch == 1
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
    assert load_state(trainer.run.last(0))["epoch"] == 1


@pytest.mark.parametrize("state", [{"weights": 1}, [1, 2], {"network": {"head.weight": torch.zeros(3)}}])
def test_a_foreign_state_is_refused(tiny_data: Path, tmp_path: Path, state: Any) -> None:
    trainer = trainer_of(tiny_data, tmp_path)
    save_state(trainer.run.last(0), state)
    with pytest.raises(Failure, match=r"last.pt is not the state of this training .*; remove it") as refused:
        trainer_of(tiny_data, tmp_path)
    assert "\n" not in str(refused.value)


def test_a_step_that_does_not_fit_says_what_does(tiny_data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_data, tmp_path)

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    trainer.network.register_forward_pre_hook(full)
    reason = r"train.batch_size=2 does not fit .*; name a new RUN .*train.accumulate .*train.batch_size=auto"
    with pytest.raises(Failure, match=reason):
        trainer.fit()
