"""The training of one fold."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from competition.command import Failure, OutOfTime, Terminated
from competition.deadline import Deadline
from competition.run.folder import RunFolder
from competition.run.records import Epoch, write_history
from competition.settings.schema import Settings
from folds import device_augment, ranks
from folds.checkpoint import Provenance, State, load_provenance, save_state, save_weights
from folds.device import compiler_error, cudnn_benchmark, out_of_memory, resolve_precision, sum_dtype
from folds.history import best_epoch
from folds.losses import batch_loss
from folds.optimizer import learning_rate
from folds.progress import epoch_line, event_writer, step_bar, write_events
from folds.samples import Batches, Samples
from folds.signals import StopSignal
from folds.training_state import TrainingState
from folds.validation import Validation
from folds.workers import start_method, start_worker
from folds.writer import Writer


class Trainer:
    """Trains one fold, from the start or from last.pt.

    All ranks share every batch and always have the same weights; the first rank writes the files.

    Args:
        network: with its initial weights.
        samples: the training samples.
        validation: scores networks on the held-out photos.
        settings: of the run.
        run: the run's folder.
        fold: number of the fold.
        device: where to train.
        learned: the cars that the network will have learned, those of its starting weights too; None if unknown.
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
        learned: tuple[str, ...] | None = None,
    ) -> None:
        train = settings.train
        assert train.batch_size != "auto", "resolved when the run was created"
        self.settings, self.run, self.fold, self.device = settings, run, fold, device
        self.validation = validation
        self.precision = resolve_precision(train.precision, device)
        # Channels last is the memory layout of convolutions on tensor cores and in oneDNN.
        network = network.to(device).to(memory_format=torch.channels_last)
        # Synchronized batch normalization has the same running statistics on all ranks. It computes on GPUs only.
        self.synchronized = ranks.world() > 1 and device.type == "cuda"
        if self.synchronized:
            from timm.layers import convert_sync_batchnorm  # see folds/networks/pretrained.py

            network = convert_sync_batchnorm(network)
        self.state = TrainingState(
            network, train, self.precision, fold=fold, held_out=validation.held_out, learned=learned
        )
        self.batches = Batches(len(samples), train.batch_size, settings.seed, rank=ranks.rank(), world=ranks.world())
        self.loader = DataLoader(
            samples,
            batch_sampler=self.batches,
            num_workers=train.workers,
            persistent_workers=train.workers > 0,
            pin_memory=device.type == "cuda",
            multiprocessing_context=start_method(train.workers),
            worker_init_fn=start_worker,
            # A separate generator: starting a loader draws a number, and the global generator is the network's.
            generator=torch.Generator().manual_seed(settings.seed),
        )
        self.accumulate = min(train.accumulate, len(self.batches))
        self.updates_per_epoch = len(self.batches) // self.accumulate
        self.finite_updates = torch.zeros((), dtype=torch.int64, device=device)
        self.writer = Writer()
        if run.last(fold).is_file():
            self.state.resume(run.last(fold))
        self.network = network
        if train.compile:
            network.compile(dynamic=False)  # in place: the names in its state stay as they are
        self.parallel = DistributedDataParallel(network) if ranks.world() > 1 else network
        if isinstance(self.parallel, DistributedDataParallel):
            # Running statistics are equal on all ranks after each update, so they need not be sent before it. The
            # argument of this name is deprecated since torch 2.13, and the new one unknown to older versions.
            self.parallel.broadcast_buffers = False

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.state.epoch >= self.settings.train.epochs

    @property
    def best(self) -> Epoch | None:
        """The best validated epoch so far."""
        return self.state.best

    def fit(self, deadline: Deadline | None = None) -> None:
        """Train until all epochs are done.

        Raises:
            Terminated: SIGTERM or Ctrl-C arrived, and the state was saved.
            OutOfTime: the deadline was reached, and the state was saved.
        """
        self.write_results(self.state.state_dict())  # the last process may have been killed before it could
        deadline = deadline or Deadline()
        [over] = ranks.all_reduce_max(not deadline.leaves())
        if over:
            raise OutOfTime(f"stopped by {deadline} before fold {self.fold}; the same command resumes there")
        first_step = self.state.epoch * self.updates_per_epoch + 1
        events_of_fold = event_writer(self.run.fold(self.fold) / "events", first_step)
        with StopSignal() as stop, events_of_fold as events, self.writer:
            while not self.finished:
                self.train_epoch(stop, deadline)
                # Validation forks its workers, and a thread that is writing could hold a lock at that moment.
                self.writer.wait()
                epoch = self._validated_epoch()
                if self.state.overflows.in_epoch:
                    print(f"skipped updates because fp16 overflowed: {self.state.overflows.in_epoch}", flush=True)
                self.state.finish_epoch(epoch)
                write_events(events, epoch, self.state.epoch * self.updates_per_epoch)
                self.save()
                print(epoch_line(self.fold, epoch, self.settings.train.epochs), flush=True)
        [number] = ranks.all_reduce_max(stop.number)
        if number:  # it arrived during the last validation; without this, the next fold would start
            raise Terminated(
                f"stopped by {signal.Signals(number).name} after the last epoch of fold {self.fold}; the same "
                "command resumes there",
                number,
            )

    def train_epoch(self, stop: StopSignal, deadline: Deadline) -> None:
        """Do the remaining updates of an epoch; the state is saved at intervals, and when the training must stop."""
        state, train = self.state, self.settings.train
        self.network.train()
        self.batches.epoch, self.batches.start = state.epoch, state.update * self.accumulate
        self.finite_updates.fill_(state.update)
        batches = iter(self.loader)
        title = f"fold {self.fold} epoch {state.epoch + 1}/{train.epochs}"
        benchmark = cudnn_benchmark(train.cudnn_benchmark)  # not in validation: a prediction must not depend on it
        with step_bar(title, state.update, self.updates_per_epoch) as bar, benchmark:
            now = saved = time.monotonic()
            while state.update < self.updates_per_epoch:
                self.writer.check()
                with self._out_of_memory(), compiler_error("train without it: SET=train.compile=false"):
                    state.loss_sum += self.train_step(batches)
                self.finite_updates += torch.isfinite(state.loss_sum)  # on the device: no synchronization
                state.update += 1
                before, now = now, time.monotonic()
                state.seconds += now - before
                bar.update()
                number, over, due = ranks.all_reduce_max(
                    stop.number, not deadline.leaves(), now - saved >= train.save_seconds
                )
                if number or over or due:
                    self.save()
                    saved = time.monotonic()
                if number or over:
                    self.writer.wait()
                    ranks.barrier()
                    cause = signal.Signals(number).name if number else deadline
                    message = (
                        f"stopped by {cause} in epoch {state.epoch + 1} at step {state.update} "
                        f"of {self.updates_per_epoch}; it is saved, and the same command resumes there"
                    )
                    raise Terminated(message, number) if number else OutOfTime(message)
        self._require_finite()

    def train_step(self, batches: Iterator[Sequence[Tensor]]) -> Tensor:
        """One update of the weights from ``accumulate`` batches; returns its mean loss over all ranks."""
        state, train = self.state, self.settings.train
        update = state.epoch * self.updates_per_epoch + state.update
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(train, update, train.epochs * self.updates_per_epoch)
        total = torch.zeros((), dtype=sum_dtype(self.device), device=self.device)
        state.overflows.before_update()
        for batch in range(self.accumulate):
            image, target = self._to_device(next(batches))
            with self._gradient_sync(batch == self.accumulate - 1):
                loss = batch_loss(self.parallel, image, target, self.settings.loss, self.precision) / self.accumulate
                state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        total = ranks.all_reduce_mean(total)
        if state.overflows.spoils(total):
            state.optimizer.zero_grad(set_to_none=True)
            self._require_few_overflows()
            return torch.zeros_like(total)
        if train.clip:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), train.clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.overflows.after_update()
        self._require_few_overflows()
        state.optimizer.zero_grad(set_to_none=True)
        if not self.synchronized:
            ranks.average_statistics(self.network)
        if state.ema:
            state.ema.update(self.network, step=update + 1)
        return total

    def save(self) -> None:
        """Start writing last.pt and the results, unless the loss or a weight is not finite."""
        self._require_finite()
        if ranks.first():
            self.writer.start(self.write, self.state.snapshot)

    def write(self, state: State) -> None:
        """Write last.pt, and the results that follow from it."""
        save_state(self.run.last(self.fold), state)
        self.write_results(state)

    def write_results(self, state: State) -> None:
        """Write best.safetensors, unless it is up to date, and history.jsonl, both from the state in last.pt.

        The history is written last, so a complete history means that the fold is finished.
        """
        history = [Epoch.model_validate(epoch) for epoch in state["history"]]
        if not ranks.first() or not history:
            return
        best = best_epoch(history)
        if best and state["best"]:
            scores = best.model_dump(include={"epoch", "dice", "iou"})
            provenance = Provenance(
                fold=self.fold, held_out=state["held_out"], learned=state.get("learned"), **scores
            )
            if not self._has_written(provenance):
                save_weights(self.run.best(self.fold), state["best"], self.settings, provenance)
        write_history(self.run.history(self.fold), history)

    def _has_written(self, provenance: Provenance) -> bool:
        try:
            return load_provenance(self.run.best(self.fold)) == provenance
        except Failure:  # missing or damaged
            return False

    def _validated_epoch(self) -> Epoch:
        """The record of the epoch whose updates are done, with scores if it is to be validated."""
        state, train = self.state, self.settings.train
        images = self.updates_per_epoch * self.accumulate * self.batches.batch_size
        epoch = Epoch(
            epoch=state.epoch + 1,
            lr=state.optimizer.param_groups[0]["lr"],
            loss=float(state.loss_sum) / max(1, self.updates_per_epoch - state.overflows.in_epoch),
            seconds=round(state.seconds, 2),
            images_per_second=round(images / state.seconds, 2),
        )
        if epoch.epoch % train.validate_every and epoch.epoch < train.epochs:
            return epoch
        # Without a moving average this is the compiled network, and batches of other sizes would compile it again.
        with torch.compiler.set_stance("force_eager") if train.compile else nullcontext():
            scores = self.validation.score(state.evaluated, self.device, self.precision)
        best = state.best is None or scores.dice > (state.best.dice or 0.0)
        return epoch.model_copy(update={"dice": scores.dice, "iou": scores.iou, "best": best})

    def _require_finite(self) -> None:
        if self.state.is_finite():
            return
        update = min(int(self.finite_updates) + 1, self.state.update)
        raise Failure(
            f"the loss of fold {self.fold} is not finite after update {update} of epoch {self.state.epoch + 1}; "
            f"{self._kept()}try a smaller train.lr, or train.precision=fp32, under a new RUN"
        )

    def _require_few_overflows(self) -> None:
        if self.state.overflows.too_many:
            raise Failure(
                f"fold {self.fold}: fp16 overflowed in {self.state.overflows.in_row} updates in a row, the last one "
                f"update {self.state.update + 1} of epoch {self.state.epoch + 1}; {self._kept()}try "
                "train.precision=bf16 if the GPU has it, else fp32, or a smaller train.lr, under a new RUN"
            )

    def _kept(self) -> str:
        last = self.run.last(self.fold)
        return f"{last} holds the state before that; " if last.is_file() else ""

    def _to_device(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Images and targets of a batch on the device, changed there if ``augment.on_device`` says so."""
        image, target, *changes = batch
        image, target = (tensor.to(self.device, non_blocking=True) for tensor in (image, target))
        if not changes:
            return image, target
        return device_augment.apply(image, target, changes[0], self.settings.sample_size)

    def _gradient_sync(self, last: bool) -> AbstractContextManager[None]:
        """The ranks average their gradients once per update, in its last batch."""
        if isinstance(self.parallel, DistributedDataParallel) and not last:
            return self.parallel.no_sync()
        return nullcontext()

    def _out_of_memory(self) -> AbstractContextManager[None]:
        return out_of_memory(
            f"a step with train.batch_size={self.settings.train.batch_size}",
            "start a new RUN with a smaller one and a larger train.accumulate, or with train.batch_size=auto",
        )
