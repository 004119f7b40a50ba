"""The state of a training: all that last.pt holds, and all that decides how the training continues."""

from pathlib import Path

import torch
from torch import Tensor, nn

from competition.command import Failure
from competition.run.records import Epoch
from competition.settings.schema import Precision, Train
from folds.checkpoint import State, load_state
from folds.device import sum_dtype
from folds.history import best_epoch
from folds.optimizer import make_optimizer
from folds.overflow import Overflows
from folds.writer import host_copy


class TrainingState:
    """Network, optimizer, position and results of the training of one fold.

    Args:
        network: on its device, without DistributedDataParallel.
        settings: of the training.
        precision: resolved, not "auto".
        fold: number of the fold.
        held_out: hash of the names of the held-out photos.
        learned: the cars that the network will have learned, those of its starting weights too; None if unknown.

    Attributes:
        ema: exponential moving average of the weights, None without one.
        epoch: number of finished epochs.
        update: number of finished updates of the current epoch.
        loss_sum: sum of their losses, a tensor on the device, float64 where it has that.
        seconds: time spent on the current epoch.
        overflows: the updates that fp16 had to skip.
        history: the finished epochs.
        best_weights: weights of the best validated epoch, on the CPU; None before the first validation.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: Train,
        precision: Precision,
        *,
        fold: int,
        held_out: str,
        learned: tuple[str, ...] | None = None,
    ) -> None:
        from timm.utils import ModelEmaV3  # see folds/networks/pretrained.py

        self.fold = fold
        self.held_out = held_out
        self.learned = learned
        self.network = network
        self.device = next(network.parameters()).device
        self.ema = ModelEmaV3(network, decay=settings.ema, use_warmup=True) if settings.ema else None
        self.optimizer = make_optimizer(network, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.overflows = Overflows(network, self.scaler)
        self.epoch = 0
        self.update = 0
        self.loss_sum = torch.zeros((), dtype=sum_dtype(self.device), device=self.device)
        self.seconds = 0.0
        self.history: list[Epoch] = []
        self.best_weights: dict[str, Tensor] | None = None

    @property
    def best(self) -> Epoch | None:
        """The best validated epoch so far."""
        return best_epoch(self.history)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the moving average, if there is one."""
        return self.ema.module if self.ema else self.network

    def finish_epoch(self, epoch: Epoch) -> None:
        """Append an epoch to the history, keep the weights if it is the best, and start the next epoch."""
        self.history.append(epoch)
        if epoch.best:
            self.best_weights = {name: value.cpu().clone() for name, value in self.evaluated.state_dict().items()}
        self.epoch += 1
        self.update = 0
        self.overflows.in_epoch = 0
        self.loss_sum.zero_()
        self.seconds = 0.0

    def is_finite(self) -> bool:
        """Whether the loss and all weights are finite; a finite loss can have a gradient that is not."""
        finite = [torch.isfinite(parameter).all() for parameter in self.network.parameters()]
        return bool(torch.isfinite(self.loss_sum) & torch.stack(finite).all())

    def snapshot(self) -> State:
        """The state now, on the CPU: it stays as it is while the training goes on."""
        # The best weights are replaced, never changed, so they need no copy.
        return {**host_copy({**self.state_dict(), "best": None}), "best": self.best_weights}

    def resume(self, path: Path) -> None:
        """Continue from a saved state of the same fold, split and network."""
        saved = load_state(path)
        try:
            self.load_state_dict(saved)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise Failure(
                f"{path} is not the state of this training ({reason}); remove it to train this fold from the start"
            ) from error

    def state_dict(self) -> State:
        """Tensors and plain values, as torch loads them with ``weights_only=True``."""
        return {
            "fold": self.fold,
            "held_out": self.held_out,
            "learned": self.learned,
            "network": self.network.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "overflows": [self.overflows.in_row, self.overflows.in_epoch],
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "epoch": self.epoch,
            "update": self.update,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "history": [epoch.model_dump() for epoch in self.history],
            "best": self.best_weights,
        }

    def load_state_dict(self, saved: State) -> None:
        """Take over a state and the state of the random number generators.

        Raises:
            ValueError: the state is of another fold or split, so its network may have seen the held-out photos.
        """
        if saved["fold"] != self.fold:
            raise ValueError(f"it is the state of fold {saved['fold']}")
        if saved["held_out"] != self.held_out:
            raise ValueError("it was trained with another split")
        self.learned = saved.get("learned")  # not in older files
        self.network.load_state_dict(saved["network"])
        if self.ema:
            self.ema.module.load_state_dict(saved["ema"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scaler"]:  # empty unless saved in fp16: precision=auto depends on the device
            self.scaler.load_state_dict(saved["scaler"])
        self.overflows.in_row, self.overflows.in_epoch = saved.get("overflows", [0, 0])  # not in older files
        torch.set_rng_state(saved["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state_all(saved["random_cuda"][: torch.cuda.device_count()])
        self.epoch = saved["epoch"]
        self.update = saved["update"]
        self.loss_sum = saved["loss_sum"].to(self.device, sum_dtype(self.device))
        self.seconds = saved["seconds"]
        self.history = [Epoch.model_validate(epoch) for epoch in saved["history"]]
        self.best_weights = saved["best"]
