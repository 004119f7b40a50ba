"""fp16: an update whose forward pass overflows is skipped, as GradScaler skips one whose gradients overflow."""

import torch
from torch import Tensor, nn

MOST_SKIPPED = 20  # updates in a row; GradScaler skips about 5 at the start, until its scale fits


class Overflows:
    """Takes back what an overflowing forward pass changed, and counts the updates that are skipped.

    Args:
        network: its running statistics take part in the forward pass.
        scaler: of the training; without it (in fp32 and bf16) nothing is skipped.

    Attributes:
        in_row: skipped updates since the last one that was made.
        in_epoch: updates of the current epoch that a forward pass spoiled.
    """

    def __init__(self, network: nn.Module, scaler: torch.amp.GradScaler) -> None:
        self.network = network
        self.scaler = scaler
        self.in_row = 0
        self.in_epoch = 0
        self._before: list[Tensor] = []
        self._scale = 0.0

    def before_update(self) -> None:
        """Remember the running statistics and the scale of the loss."""
        if self.scaler.is_enabled():
            self._before = [buffer.clone() for buffer in self.network.buffers()]
            self._scale = self.scaler.get_scale()

    def spoils(self, loss: Tensor) -> bool:
        """Whether the update must be skipped; the running statistics are then as they were before it.

        Args:
            loss: of the update, of all ranks together, so all decide alike.
        """
        if not self.scaler.is_enabled() or bool(torch.isfinite(loss)):
            return False
        for buffer, before in zip(self.network.buffers(), self._before, strict=True):
            buffer.copy_(before)
        self.in_row += 1
        self.in_epoch += 1
        return True

    def after_update(self) -> None:
        """Count an update that GradScaler has skipped: it has reduced the scale."""
        if self.scaler.is_enabled():
            self.in_row = self.in_row + 1 if self.scaler.get_scale() < self._scale else 0

    @property
    def too_many(self) -> bool:
        """Whether so many updates in a row were skipped that the training cannot go on in fp16."""
        return self.in_row >= MOST_SKIPPED
