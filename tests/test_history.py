"""The best epoch of a fold, and whether a fold is finished."""

import pytest
from trained_run import Trained

from competition.run.records import Epoch, read_history, write_history
from competition.settings.resolve import load_yaml, resolve
from folds.history import best_epoch, best_of_finished


def epochs(*dice: float | None) -> list[Epoch]:
    return [
        Epoch(epoch=number, lr=0.1, loss=1.0, seconds=1.0, images_per_second=1.0, dice=value, iou=value)
        for number, value in enumerate(dice, start=1)
    ]


@pytest.mark.parametrize(
    ("dice", "best"),
    [([], None), ([None, None], None), ([None, 0.0, None], 2), ([0.5, 0.9, 0.9, 0.8], 2), ([0.1, None, 0.7], 3)],
)
def test_the_best_epoch_is_the_first_with_the_highest_dice(dice: list[float | None], best: int | None) -> None:
    found = best_epoch(epochs(*dice))
    assert (found.epoch if found else None) == best


def test_a_fold_is_finished_with_all_epochs_and_its_weights(trained: Trained) -> None:
    run, settings = trained.run, resolve(load_yaml(trained.run.settings))
    history = read_history(run.history(0))
    assert best_of_finished(run, settings, 0) == best_epoch(history)
    write_history(run.history(0), history[:-1])
    assert best_of_finished(run, settings, 0) is None
    write_history(run.history(0), history)
    run.best(0).unlink()
    assert best_of_finished(run, settings, 0) is None
