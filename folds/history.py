"""The history of a fold: its best epoch, and whether its training is finished."""

from collections.abc import Sequence

from competition.run.folder import RunFolder
from competition.run.records import Epoch, read_history
from competition.settings.schema import Settings
from folds.leakage import require_held_out


def best_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The validated epoch with the highest Dice, the first of equals; None if no epoch was validated."""
    validated = [epoch for epoch in history if epoch.dice is not None]
    return max(validated, key=lambda epoch: epoch.dice or 0.0, default=None)


def best_of_finished(run: RunFolder, settings: Settings, fold: int) -> Epoch | None:
    """The best epoch of a finished fold; None if epochs or the best weights are missing."""
    if not run.best(fold).is_file():
        return None
    history = read_history(run.history(fold))
    if len(history) < settings.train.epochs:
        return None
    require_held_out(run, fold)
    return best_epoch(history)
