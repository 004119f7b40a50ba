"""One checkpoint on the images it did not see."""

import json

import pytest
from trained_run import Trained

from competition.command import Failure
from inference.evaluate import evaluate, main
from inference.score import main as score


def test_it_agrees_with_the_fold_of_the_cv(trained: Trained) -> None:
    score([*trained.arguments, "--set", "inference.threshold=0.5"])
    folds = json.loads(trained.run.cv.read_text())["folds"]
    for fold in folds:
        scores = evaluate(trained.run.best(fold["fold"]), None, None, 0.5)
        assert scores.dice == pytest.approx(fold["dice"], abs=1e-9)
        assert scores.iou == pytest.approx(fold["iou"], abs=1e-9)
        assert scores.images == fold["images"]


def test_without_augmentation_it_agrees_with_the_training(trained: Trained) -> None:
    last = json.loads(trained.run.history(0).read_text().splitlines()[-1])
    best = max(
        (json.loads(line) for line in trained.run.history(0).read_text().splitlines()),
        key=lambda line: line["dice"] or 0,
    )
    assert last["dice"] is not None
    scores = evaluate(trained.run.best(0), None, ["identity"], 0.5)
    # Normalisation folded into the weights is rounded elsewhere; a few pixels of an outline may change sides.
    assert scores.dice == pytest.approx(best["dice"], abs=3e-4)


def test_the_command(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", str(trained.run.best(1)), "--views", "identity"])
    assert capsys.readouterr().out.startswith("Dice 0.")


def test_a_missing_checkpoint_and_a_bad_threshold_are_refused(trained: Trained) -> None:
    with pytest.raises(Failure, match=r"no checkpoint .*fold7"):
        main(["--model", str(trained.run.best(7))])
    with pytest.raises(Failure, match="--threshold"):
        main(["--model", str(trained.run.best(0)), "--threshold", "1.5"])
