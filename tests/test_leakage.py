"""Weights that have seen the cars of a fold never answer for it."""

import re
import shutil

import pytest
from trained_run import Trained, exchange

from competition.command import Failure
from competition.run.folder import RunFolder
from folds.leakage import held_out_key, require_held_out
from folds.train import main as train
from inference.evaluate import evaluate
from inference.predict import main as predict
from inference.pseudo import main as pseudo
from inference.score import main as score


def exchange_cars(run: RunFolder) -> None:
    """Edit the split after the training: a car of each fold goes to the other."""
    rows = run.folds.read_text().splitlines()
    fold_of = {row.split(",")[1]: row[-1] for row in rows[1:]}
    moved = [next(car for car, fold in fold_of.items() if fold == number) for number in "01"]
    swapped = [f"{row[:-1]}{1 - int(row[-1])}" if row.split(",")[1] in moved else row for row in rows[1:]]
    run.folds.write_text("\n".join([rows[0], *swapped]) + "\n")


def test_the_order_of_the_names_does_not_matter() -> None:
    assert held_out_key(["b", "a"]) == held_out_key(["a", "b"]) != held_out_key(["ab"])


def test_own_weights_are_taken(trained: Trained) -> None:
    for fold in (0, 1):
        require_held_out(trained.run, fold)


@pytest.mark.parametrize("stage", [score, predict, pseudo])
def test_weights_of_another_fold_are_refused(trained: Trained, stage: object) -> None:
    exchange(trained.run.best(0), trained.run.best(1))
    reason = (
        f"{trained.run.best(0)} holds the weights of fold 1, which have seen the cars that fold 0 is validated on; "
    )
    with pytest.raises(
        Failure, match=re.escape(f"{reason}remove {trained.run.fold(0)} and train it: make train FOLD=0")
    ):
        stage(trained.arguments)  # type: ignore[operator]


@pytest.mark.parametrize("stage", [score, predict, pseudo])
def test_a_split_that_was_edited_after_the_training_is_refused(trained: Trained, stage: object) -> None:
    exchange_cars(trained.run)
    reason = f"{trained.run.best(0)} was not trained with the split {trained.run.folds}"
    with pytest.raises(Failure, match=re.escape(reason)):
        stage(trained.arguments)  # type: ignore[operator]
    with pytest.raises(Failure, match=re.escape(reason)):
        evaluate(trained.run.best(0), trained.data, None, 0.5)


def test_a_copied_fold_is_not_trained(trained: Trained) -> None:
    shutil.rmtree(trained.run.fold(1))
    shutil.copytree(trained.run.fold(0), trained.run.fold(1))
    ask = ["--fold", "1", *trained.arguments]
    with pytest.raises(Failure, match=r"fold1/best\.safetensors holds the weights of fold 0"):
        train(ask)
    trained.run.history(1).unlink()
    with pytest.raises(
        Failure, match=r"fold1/last.pt is not the state of this training \(it is that of fold 0\); remove"
    ):
        train(ask)


def test_a_state_of_another_split_does_not_go_on(trained: Trained) -> None:
    exchange_cars(trained.run)
    trained.run.history(0).unlink()
    with pytest.raises(
        Failure, match=r"fold0/last.pt is not the state .* \(it began with another split\); remove it"
    ):
        train(["--fold", "0", *trained.arguments])
