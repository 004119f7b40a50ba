"""The training of one fold: steps, epochs, validations, and a state from which it goes on as if never stopped."""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from competition import files
from competition.command import Failure, Terminated
from competition.metrics import Scores
from competition.run.folder import RunFolder
from competition.settings.schema import Loss, Precision, Settings, Train
from folds import ranks
from folds.checkpoint import Provenance, State, load_provenance, load_state, save_state, save_weights
from folds.device import autocast, describe_device, resolve_precision
from folds.losses import segmentation_loss
from folds.samples import Batches, Samples, leave_signals_to_the_trainer
from folds.schedule import learning_rate
from folds.validation import Validation


def make_optimizer(network: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum; weight decay acts on weights that multiply, not on biases and norms."""
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in learned if parameter.ndim > 1]
    others = [parameter for parameter in learned if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.lr)


def batch_loss(network: nn.Module, image: Tensor, target: Tensor, settings: Loss, precision: Precision) -> Tensor:
    """The loss of a batch of samples on the network's device: (N, h, w, 3) and (N, h, w) uint8, as they travel."""
    with autocast(precision, image.device):
        logits = network(image.permute(0, 3, 1, 2))
    return segmentation_loss(settings, logits, target.unsqueeze(1).float() / 255)


def best_line(history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The history's line of the best validated epoch, if any is validated."""
    validated = [line for line in history if line["dice"] is not None]
    return max(validated, key=lambda line: line["dice"], default=None)


class Trainer:
    """Trains one fold, from its beginning or from where ``last.pt`` says.

    Several processes share every batch and have the same weights at all times; the first one writes.

    Args:
        network: with its first weights.
        samples: the training samples.
        validation: the held-out photos.
        settings: of the run.
        run: the run's folder.
        fold: number of the fold.
        device: where to train.
    """

    def __init__(
        self,
        network: nn.Module,
        samples: Samples,
        validation: Validation,
        *,
        settings: Settings,
        run: RunFolder,
        fold: int,
        device: torch.device,
    ) -> None:
        self.settings = settings
        self.run = run
        self.fold = fold
        self.device = device
        self.validation = validation
        train = settings.train
        # Channels last is how convolutions read memory, on tensor cores and in oneDNN.
        self.network: nn.Module = network.to(device).to(memory_format=torch.channels_last)
        if ranks.world() > 1 and device.type == "cuda":
            self.network = convert_sync_batchnorm(self.network)
        self.ema = ModelEmaV3(self.network, decay=train.ema, use_warmup=True) if train.ema else None
        self.optimizer = make_optimizer(self.network, train)
        self.precision = resolve_precision(train.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        assert train.batch_size != "auto", "a run begins with a number"
        self.batches = Batches(len(samples), train.batch_size, settings.seed, rank=ranks.rank(), world=ranks.world())
        self.loader = DataLoader(
            samples,
            batch_sampler=self.batches,
            num_workers=train.workers,
            persistent_workers=train.workers > 0,
            pin_memory=device.type == "cuda",
            worker_init_fn=leave_signals_to_the_trainer,
            # Its own generator: the global one's state belongs to the network and must not depend on how often a
            # loader was started.
            generator=torch.Generator().manual_seed(settings.seed),
        )
        self.updates_per_epoch = max(1, len(self.batches) // train.accumulate)
        self.epoch = 0  # finished epochs
        self.update = 0  # finished updates of the epoch under way
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.sound = torch.zeros((), dtype=torch.int64, device=device)  # updates of it up to which the loss is finite
        self.seconds = 0.0  # spent on the epoch under way
        self.history: list[dict[str, Any]] = []
        self.best_weights: dict[str, Tensor] | None = None  # of the best validated epoch, on the host
        self.stop: signal.Signals | None = None
        if run.last(fold).is_file():
            state = load_state(run.last(fold))
            try:
                self.load(state)
            except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
                reason = str(error).partition("\n")[0][:120]
                raise Failure(
                    f"{run.last(fold)} is not the state of this training ({reason}); remove it to train this fold "
                    "from its beginning"
                ) from error
        # What goes forward and backward; all else is done with the bare network.
        self.parallel = DistributedDataParallel(self.network) if ranks.world() > 1 else self.network

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.settings.train.epochs

    @property
    def best(self) -> dict[str, Any] | None:
        """The history's line of the best validated epoch so far, if any."""
        return best_line(self.history)

    def fit(self) -> None:
        """Train until all epochs are done.

        Raises:
            Terminated: SIGTERM or Ctrl-C arrived; the state has been saved.
            Failure: the loss is no longer finite, the GPU's memory is too small, or the disk refuses.
        """
        # Events behind the last finished epoch are those of a process that was killed before it could save.
        step = self.epoch * self.updates_per_epoch + 1
        self.write_results()
        with (
            self._listening_to_signals(),
            SummaryWriter(self.run.fold(self.fold) / "events", purge_step=step)
            if ranks.first()
            else nullcontext() as board,
        ):
            while not self.finished:
                self._finish_epoch()
                self._close_epoch(board)
        # Heard in the last validation: whoever trains the next fold after this one must not go on with it.
        [stop] = ranks.largest(self.stop or 0)
        if stop:
            raise Terminated(
                f"stopped by {signal.Signals(stop).name}; fold {self.fold} is finished, and the same command goes on "
                "from there"
            )

    def state(self) -> State:
        """All that decides how the training goes on."""
        return {
            "fold": self.fold,
            "held_out": self.validation.held_out,
            "network": self.network.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "epoch": self.epoch,
            "update": self.update,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "history": self.history,
            "best": self.best_weights,
        }

    def load(self, state: State) -> None:
        """Go on from a state; raises ValueError if that of another fold or split, which has seen what is held out."""
        if state.get("fold", self.fold) != self.fold:
            raise ValueError(f"it is that of fold {state['fold']}")
        if state.get("held_out", self.validation.held_out) != self.validation.held_out:
            raise ValueError("it began with another split")
        self.network.load_state_dict(state["network"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where it was not needed: "auto" means another precision on another device
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["random_cuda"][: torch.cuda.device_count()])
        self.epoch = state["epoch"]
        self.update = state["update"]
        self.loss_sum = state["loss_sum"].to(self.device)
        self.seconds = state["seconds"]
        self.history = state["history"]
        self.best_weights = state.get("best")  # older states do not have them

    def save(self) -> None:
        """Write last.pt, unless the loss or the weights are no longer finite; all processes wait for that."""
        self._require_finite()
        if ranks.first():
            save_state(self.run.last(self.fold), self.state())
        ranks.barrier()

    def _require_finite(self) -> None:
        """Refuse to go on, or to save anything, once the loss or a weight is infinite or no number.

        A finite loss may have had a gradient that was not: then only the weights tell until the next step.
        """
        finite = [torch.isfinite(parameter).all() for parameter in self.network.parameters()]
        if not (torch.isfinite(self.loss_sum) & torch.stack(finite).all()):
            update = min(int(self.sound) + 1, self.update)
            last = self.run.last(self.fold)
            kept = f"{last} holds the state before that; " if last.is_file() else ""
            raise Failure(
                f"the loss of fold {self.fold} is not finite after update {update} of epoch {self.epoch + 1}; "
                f"{kept}try a smaller train.lr, or train.precision=fp32, under a new RUN"
            )

    def _finish_epoch(self) -> None:
        """Do the updates that are left of the epoch under way."""
        train = self.settings.train
        total = self.updates_per_epoch
        began = saved = time.monotonic()
        before = self.seconds
        self.network.train()
        self.sound.fill_(self.update)
        self.batches.epoch = self.epoch
        self.batches.start = self.update * train.accumulate
        batches = iter(self.loader)
        title = f"fold {self.fold} epoch {self.epoch + 1}/{train.epochs}"
        hidden = None if ranks.first() else True
        with tqdm(total=total, initial=self.update, desc=title, unit="step", disable=hidden, leave=False) as bar:
            while self.update < total:
                with self._within_memory():
                    loss = self._step(batches)
                self.loss_sum += loss
                # Counted on the device: the line that refuses can name the update, and no step has to wait for it.
                self.sound += torch.isfinite(self.loss_sum)
                self.update += 1
                self.seconds = before + time.monotonic() - began
                bar.update()
                late = time.monotonic() - saved >= train.save_seconds
                stop, save = ranks.largest(self.stop or 0, late)
                if stop:
                    self.save()
                    raise Terminated(
                        f"stopped by {signal.Signals(stop).name} in epoch {self.epoch + 1} at step {self.update} of "
                        f"{total}, which is saved; the same command goes on from there"
                    )
                if save:
                    self.save()
                    saved = time.monotonic()

    def _step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        """One update of the weights from ``accumulate`` batches; returns its loss, detached."""
        train = self.settings.train
        number = self.epoch * self.updates_per_epoch + self.update
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(train, number, train.epochs * self.updates_per_epoch)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        accumulate = min(train.accumulate, len(self.batches))
        for number_of_batch in range(accumulate):
            image, target = (tensor.to(self.device, non_blocking=True) for tensor in next(batches))
            with self._sharing_gradients(number_of_batch == accumulate - 1):
                loss = batch_loss(self.parallel, image, target, self.settings.loss, self.precision) / accumulate
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if train.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), train.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        ranks.share_statistics(self.network)
        if self.ema:
            self.ema.update(self.network, step=number + 1)
        return ranks.mean(total)

    @contextmanager
    def _within_memory(self) -> Iterator[None]:
        """Where a step does not fit the GPU's memory, say what does."""
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            raise Failure(
                f"a step with train.batch_size={self.settings.train.batch_size} does not fit the memory of "
                f"{describe_device()}; name a new RUN with a smaller one, and train.accumulate to make up for it, or "
                "with train.batch_size=auto"
            ) from error

    def _sharing_gradients(self, last: bool) -> AbstractContextManager[None]:
        """The processes' gradients are averaged once an update, in the last of its batches."""
        if isinstance(self.parallel, DistributedDataParallel) and not last:
            return self.parallel.no_sync()
        return nullcontext()

    def _close_epoch(self, board: SummaryWriter | None) -> None:
        """Validate, keep the weights if they are the best, save, and write what follows from what is saved."""
        self._require_finite()
        train = self.settings.train
        images = self.updates_per_epoch * min(train.accumulate, len(self.batches)) * self.batches.batch_size
        line: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": float(self.loss_sum) / self.updates_per_epoch,
            "seconds": round(self.seconds, 2),
            "images_per_second": round(images / self.seconds, 2),
            "dice": None,
            "iou": None,
            "best": False,
        }
        if (self.epoch + 1) % train.validate_every == 0 or self.epoch + 1 == train.epochs:
            self._validate(line)
        self.history.append(line)
        self.epoch += 1
        self.update = 0
        self.seconds = 0.0
        self.loss_sum.zero_()
        if board:
            self._show(line, board)
        self.save()
        self.write_results()
        print(self._progress(line), flush=True)

    def _show(self, line: dict[str, Any], board: SummaryWriter) -> None:
        """Write the history's last line to TensorBoard."""
        for name in ("loss", "lr", "dice", "iou", "images_per_second"):
            if line[name] is not None:
                board.add_scalar(name, line[name], self.epoch * self.updates_per_epoch)
        board.flush()

    def write_results(self) -> None:
        """Write the best weights, unless they are there, and the history, from what last.pt holds.

        What was killed before it could begins with that. The history comes last: where it is whole, the fold is done.
        """
        if not ranks.first() or not self.history:
            return
        if self.best and self.best_weights:
            provenance = Provenance(
                fold=self.fold,
                held_out=self.validation.held_out,
                epoch=self.best["epoch"],
                dice=self.best["dice"],
                iou=self.best["iou"],
            )
            if not self._has_written(provenance):
                save_weights(self.run.best(self.fold), self.best_weights, self.settings, provenance)
        files.write_text(self.run.history(self.fold), "".join(json.dumps(each) + "\n" for each in self.history))

    def _has_written(self, provenance: Provenance) -> bool:
        """Whether best.safetensors exists and holds the weights of this provenance."""
        try:
            return load_provenance(self.run.best(self.fold)) == provenance
        except Failure:
            return False

    def _validate(self, line: dict[str, Any]) -> None:
        """Score the averaged weights, fill in the history's line, and keep the weights if they are the best."""
        network = self.ema.module if self.ema else self.network
        scores: Scores = self.validation.score(network, self.device, self.precision)
        line |= {"dice": scores.dice, "iou": scores.iou}
        if self.best is None or scores.dice > self.best["dice"]:
            line["best"] = True
            self.best_weights = {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}

    def _progress(self, line: dict[str, Any]) -> str:
        left = line["seconds"] * (self.settings.train.epochs - self.epoch)
        score = "" if line["dice"] is None else f"  Dice {line['dice']:.5f}  IoU {line['iou']:.5f}"
        return (
            f"fold {self.fold}  epoch {line['epoch']}/{self.settings.train.epochs}  loss {line['loss']:.4f}{score}  "
            f"{line['images_per_second']:.1f} images/s  {int(left) // 60}:{int(left) % 60:02d} left"
        )

    @contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        """Let SIGTERM and the first Ctrl-C end the training after the step under way; a second Ctrl-C ends it now."""

        def hear(number: int, _frame: FrameType | None) -> None:
            self.stop = signal.Signals(number)
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

        before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
