"""What a training shows: a progress bar of the steps, TensorBoard events, and one line per epoch."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from competition.run.records import Epoch
from folds import ranks

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def step_bar(title: str, done: int, total: int) -> "tqdm[NoReturn]":
    """A progress bar of the steps of an epoch; only the first rank shows one, and only on a terminal."""
    hidden = None if ranks.first() else True
    return tqdm(total=total, initial=done, desc=title, unit="step", disable=hidden, leave=False)


def event_writer(folder: Path, first_step: int) -> "AbstractContextManager[SummaryWriter | None]":
    """A writer of TensorBoard events on the first rank, None on the others.

    Events from ``first_step`` on are purged: a killed process may have written them without saving its state.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import: a command with nothing to train ends at once

    return SummaryWriter(folder, purge_step=first_step) if ranks.first() else nullcontext()


def write_events(writer: "SummaryWriter | None", epoch: Epoch, step: int) -> None:
    """Write the values of an epoch to TensorBoard."""
    if writer is None:
        return
    for name in ("loss", "lr", "dice", "iou", "images_per_second"):
        value = getattr(epoch, name)
        if value is not None:
            writer.add_scalar(name, value, step)
    writer.flush()


def epoch_line(fold: int, epoch: Epoch, epochs: int) -> str:
    """The line that is printed after an epoch: loss, scores if validated, speed and time left."""
    left = int(epoch.seconds * (epochs - epoch.epoch))
    scores = "" if epoch.dice is None else f"  Dice {epoch.dice:.5f}  IoU {epoch.iou:.5f}"
    return (
        f"fold {fold}  epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.4f}{scores}  "
        f"{epoch.images_per_second:.1f} images/s  {left // 60}:{left % 60:02d} left"
    )
