"""One checkpoint on its held-out photos."""

import pytest
from trained_run import Trained

from competition.command import Failure
from competition.run.records import CV, read_history
from inference.evaluate import evaluate, main
from inference.score import main as score


def test_the_score_equals_that_of_the_fold_in_the_cv(trained: Trained) -> None:
    score([*trained.arguments, "--set", "inference.threshold=0.5"])
    for fold in CV.read(trained.run.cv).folds:
        scores = evaluate(trained.run.best(fold.fold), None, None, 0.5)
        assert scores == (pytest.approx(fold.dice, abs=1e-9), pytest.approx(fold.iou, abs=1e-9), fold.images)


def test_without_tta_the_score_equals_that_of_the_validation(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("inference.progress.EVERY", 0.0)
    main(["--model", str(trained.run.best(0)), "--tta", "identity"])
    *progress, line = capsys.readouterr().out.splitlines()
    images = int(line.split()[-3])
    assert [each.partition(" images")[0] for each in progress] == [
        f"score fold 0: {done} of {images}" for done in range(1, images + 1)
    ]
    dice = float(line.split()[1])
    best = max(epoch.dice or 0 for epoch in read_history(trained.run.history(0)))
    # Folding batch normalization rounds differently; a few pixels of an outline may change.
    assert dice == pytest.approx(best, abs=3e-4)


def test_a_missing_checkpoint_and_a_bad_threshold_are_errors(trained: Trained) -> None:
    with pytest.raises(Failure, match=r"no checkpoint .*fold7"):
        main(["--model", str(trained.run.best(7))])
    with pytest.raises(Failure, match="--threshold"):
        main(["--model", str(trained.run.best(0)), "--threshold", "1.5"])
