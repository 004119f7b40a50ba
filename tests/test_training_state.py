"""last.pt: a training resumes from it, and only from its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import trainer_of

from competition.command import Failure
from folds.checkpoint import load_state, save_state

Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: {"weights": 1}, "'fold'"),
        (lambda _: [1, 2], "list indices"),
        (lambda state: state | {"network": {"head.weight": torch.zeros(3)}}, "Error.s. in loading state_dict"),
        (lambda state: state | {"history": [{"epoch": "first"}]}, "5 validation errors for Epoch"),
        (lambda state: state | {"fold": 1}, "it is the state of fold 1"),
        (lambda state: state | {"held_out": "other"}, "it was trained with another split"),
    ],
)
def test_another_state_is_an_error(tiny_data: Path, tmp_path: Path, change: Change, reason: str) -> None:
    trainer = trainer_of(tiny_data, tmp_path)
    save_state(trainer.run.last(0), change(trainer.state.state_dict()))
    with pytest.raises(Failure, match=rf"last.pt is not the state of this training \({reason}.*; remove it") as error:
        trainer_of(tiny_data, tmp_path)
    assert "\n" not in str(error.value)


def test_another_precision_resumes(tiny_data: Path, tmp_path: Path) -> None:
    """precision=auto depends on the device, so a state with or without a loss scale must load."""
    first = trainer_of(tiny_data, tmp_path)
    first.write(first.state.state_dict())
    resumed = trainer_of(tiny_data, tmp_path, precision="fp16")
    resumed.write(resumed.state.state_dict())
    trainer_of(tiny_data, tmp_path)


def test_a_resumed_state_is_what_was_saved(tiny_data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_data, tmp_path, epochs=1)
    trainer.fit()
    saved = load_state(trainer.run.last(0))
    torch.rand(3)
    resumed = trainer_of(tiny_data, tmp_path, epochs=1).state
    assert torch.equal(torch.get_rng_state(), saved["random"])
    assert (resumed.epoch, resumed.update, resumed.history) == (1, 0, trainer.state.history)
    assert resumed.best_weights is not None
    assert all(torch.equal(resumed.best_weights[name], tensor) for name, tensor in saved["best"].items())
