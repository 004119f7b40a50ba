"""Weights that have seen the cars of a fold are never used to score it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from trained_run import Trained, exchange

from competition.command import Failure
from competition.data_folder import photo_at
from competition.run.folder import RunFolder
from folds.leakage import held_out_key, require_held_out, require_same_split, require_unseen
from folds.train import main as train
from inference.evaluate import evaluate
from inference.predict import main as predict
from inference.pseudo import main as pseudo
from inference.score import main as score


def exchange_cars(run: RunFolder) -> None:
    """Edit the split after the training: one car of each fold goes to the other fold."""
    rows = run.folds.read_text().splitlines()
    fold_of = {row.split(",")[1]: row[-1] for row in rows[1:]}
    moved = [next(car for car, fold in fold_of.items() if fold == number) for number in "01"]
    swapped = [f"{row[:-1]}{1 - int(row[-1])}" if row.split(",")[1] in moved else row for row in rows[1:]]
    run.folds.write_text("\n".join([rows[0], *swapped]) + "\n")


def test_the_order_of_the_names_does_not_matter() -> None:
    assert held_out_key(["b", "a"]) == held_out_key(["a", "b"]) != held_out_key(["ab"])


def test_weights_of_another_fold_are_rejected(trained: Trained) -> None:
    run = trained.run
    for fold in (0, 1):
        require_held_out(run, fold)
    exchange(run.best(0), run.best(1))
    reason = (
        f"{run.best(0)} holds the weights of fold 1, which have seen the cars that fold 0 is validated on; "
        f"remove {run.fold(0)} and train it: make train FOLD=0"
    )
    with pytest.raises(Failure, match=re.escape(reason)):
        require_held_out(run, 0)
    require_held_out(run, 0, weights=run.best(1))


@pytest.mark.parametrize("stage", [score, predict, pseudo])
def test_every_stage_rejects_a_split_that_was_edited_after_the_training(
    trained: Trained, stage: Callable[[list[str]], None]
) -> None:
    exchange_cars(trained.run)
    reason = f"{trained.run.best(0)} was not trained with the split {trained.run.folds}"
    with pytest.raises(Failure, match=re.escape(reason)):
        stage(trained.arguments)
    with pytest.raises(Failure, match=re.escape(reason)):
        evaluate(trained.run.best(0), trained.data, None, 0.5)


def test_a_copied_fold_is_not_trained(trained: Trained) -> None:
    shutil.rmtree(trained.run.fold(1))
    shutil.copytree(trained.run.fold(0), trained.run.fold(1))
    command = ["--fold", "1", *trained.arguments]
    with pytest.raises(Failure, match=r"fold1/best\.safetensors holds the weights of fold 0"):
        train(command)
    trained.run.history(1).unlink()
    with pytest.raises(Failure, match=r"fold1/last.pt .*fold 0.*remove"):
        train(command)


def test_a_state_of_another_split_does_not_resume(trained: Trained) -> None:
    exchange_cars(trained.run)
    trained.run.history(0).unlink()
    with pytest.raises(Failure, match=r"fold0/last.pt .*another split.*remove it"):
        train(["--fold", "0", *trained.arguments])


def test_a_source_needs_the_same_split_to_the_byte(tmp_path: Path) -> None:
    run, source = (RunFolder(tmp_path / name) for name in ("large", "small"))
    for each in (run, source):
        each.root.mkdir()
        each.folds.write_text("img,car,fold\na_01.jpg,a,0\nb_01.jpg,b,1\n")
    require_same_split(run, source, "data.pseudo")
    run.folds.write_text(f"{run.folds.read_text()}\n")
    with pytest.raises(Failure, match=r"large/folds.csv is not the split of .*small/folds.csv: .*, which is a leak"):
        require_same_split(run, source, "data.pseudo")
    with pytest.raises(Failure, match=f"data.pseudo names {source.root}, the run itself"):
        require_same_split(source, source, "data.pseudo")


def test_pseudo_labels_of_a_held_out_car_are_rejected() -> None:
    labelled = [photo_at(Path(name)) for name in ("a_01.jpg", "b_01.jpg")]
    require_unseen(labelled, [photo_at(Path("c_02.jpg"))], Path("pseudo.csv.gz"))
    with pytest.raises(Failure, match=r"pseudo\.csv\.gz labels b_01\.jpg, and car b is held out .* is a leak"):
        require_unseen(labelled, [photo_at(Path("b_02.jpg"))], Path("pseudo.csv.gz"))
