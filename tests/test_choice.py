"""The threshold and the member weights of a prediction, from the settings or from the CV."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sample_records import make_cv
from trained_run import Trained, variant

from competition.command import Failure
from competition.mask_table import read_rows
from competition.run.folder import RunFolder
from competition.run.records import CV, FoldScore, Gain, SubmissionRecord
from competition.settings.schema import Inference
from inference.choice import choose
from inference.predict import main as predict
from inference.pseudo import main as pseudo
from inference.score import main as score

A, B, C = (RunFolder(Path("runs") / name) for name in "abc")


def combined(*runs: RunFolder) -> RunFolder:
    return RunFolder(runs[0].root.parent / "+".join(run.name for run in runs))


def of(*runs: RunFolder) -> list[str]:
    return ["--runs", *(str(run.root) for run in runs)]


def codes(path: Path) -> dict[str, str]:
    return {row.img: row.rle for row in read_rows(path)}


def gains_of(run: RunFolder) -> dict[str, Gain]:
    return {row.what: row for row in CV.read(run.cv).gains}


FOLD = FoldScore(
    fold=1, cars=2, images=32, dice=0.9, iou=0.8, threshold=0.7, member_weights={"runs/a": 1.0, "runs/b": 0.0}
)
SCORED = make_cv(threshold=0.3, member_weights={"runs/b": 0.75, "runs/a": 0.25}, folds=[FOLD])


@pytest.mark.parametrize(
    ("how", "members", "cv", "fold", "expected"),
    [
        ({}, [A, B], None, None, (0.5, (0.5, 0.5))),
        ({}, [A, B], SCORED, None, (0.3, (0.25, 0.75))),
        ({}, [A, B], SCORED, 1, (0.7, (1.0, 0.0))),
        ({}, [A, B], SCORED, 0, (0.5, (0.5, 0.5))),  # the CV has no such fold
        ({}, [A, C], SCORED, None, (0.3, (0.5, 0.5))),  # its weights are of other runs
        ({}, [A], make_cv(threshold=0.3), None, (0.3, (1.0,))),
        ({"member_weights": "equal"}, [A, B], SCORED, None, (0.3, (0.5, 0.5))),
        ({"member_weights": [3, 1]}, [A, B], SCORED, None, (0.3, (0.75, 0.25))),
        ({"threshold": 0.4}, [A, B], SCORED, 1, (0.4, (1.0, 0.0))),
    ],
)
def test_settings_override_the_cv_which_overrides_the_defaults(
    how: dict[str, object], members: Sequence[RunFolder], cv: CV | None, fold: int | None, expected: object
) -> None:
    assert choose(Inference.model_validate(how), members, cv, fold) == expected


def test_other_weights_are_predicted_again_and_a_list_of_the_wrong_length_is_rejected(trained: Trained) -> None:
    other = variant(trained, "other", {0: 2.0, 1: 2.0})
    written = set()
    for weights in ("equal", "[1, 3]"):
        predict([*of(trained.run, other), "--set", f"inference.member_weights={weights}", "inference.tta=[identity]"])
        written.add(combined(trained.run, other).submission.read_bytes())
    assert len(written) == 2
    for stage in (score, predict, pseudo):
        with pytest.raises(
            Failure, match=r"weights=\[1\.0, 2\.0, 3\.0\] has 3 weights for 2 runs \(small, other\); give"
        ):
            stage([*of(trained.run, other), "--set", "inference.member_weights=[1, 2, 3]"])


def test_a_bad_run_gets_weight_0(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """The masks then equal those of the good run, and the networks of the bad run are not loaded."""
    bad = variant(trained, "bad", {0: 4.0, 1: 4.0})
    both = combined(trained.run, bad)
    score(of(trained.run, bad))
    assert "if chosen on the other folds\n" in capsys.readouterr().out
    cv = CV.read(both.cv)
    weights = {str(trained.run.root): 1.0, str(bad.root): 0.0}
    assert cv.member_weights == weights
    assert [fold.member_weights for fold in cv.folds] == [weights] * 2
    row = gains_of(both)["tuned weights"]
    assert (row.note, row.over, row.folds) == (
        "chosen on the other folds, used; on all folds weights 1, 0",
        "equal weights",
        2,
    )
    assert row.gain is not None
    assert row.gain > 0.01
    score(trained.arguments)
    assert codes(both.oof) == codes(trained.run.oof)
    assert cv.dice == CV.read(trained.run.cv).dice

    predict(of(trained.run, bad))
    assert "2 networks, tta identity, hflip, threshold" in capsys.readouterr().out
    assert SubmissionRecord.read(both.submission_record).member_weights == {str(trained.run.root): 1.0}
    predict(trained.arguments)
    assert both.submission.read_bytes() == trained.run.submission.read_bytes()


def test_weights_that_gain_nothing_are_not_used(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    twin = variant(trained, "twin", {})
    score([*of(trained.run, twin), "--set", "inference.tta=[identity]"])
    both = combined(trained.run, twin)
    assert set((CV.read(both.cv).member_weights or {}).values()) == {0.5}
    row = gains_of(both)["tuned weights"]
    assert (row.gain, row.note) == (0.0, "chosen on the other folds, not used; on all folds weights 0.5, 0.5")
    assert "predicting again" not in capsys.readouterr().out


def test_a_fold_has_the_weights_that_are_best_on_the_others(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is bad in one fold, and gets weight 1 there: a fold's own images do not influence its weights."""
    monkeypatch.setattr("inference.cv.tuning.SMALLEST_GAIN", -1.0)  # use the choice even if it gains nothing
    first, second = variant(trained, "first", {0: 4.0}), variant(trained, "second", {1: 4.0})
    tta = ["--set", "inference.tta=[identity]"]
    score([*of(first, second), *tta])
    both = combined(first, second)
    cv = CV.read(both.cv)
    chosen = [fold.member_weights for fold in cv.folds]
    assert chosen == [{str(first.root): 1, str(second.root): 0}, {str(first.root): 0, str(second.root): 1}]

    # The masks have these weights, and so have the pseudo-labels of each fold.
    single = {}
    for fold, run in enumerate((first, second)):
        call = [*of(run), *tta, f"inference.threshold={cv.folds[fold].threshold}", "inference.pseudo=1"]
        score(call)
        pseudo(call)
        single[fold] = codes(run.oof)
    pseudo([*of(first, second), *tta, "inference.pseudo=1"])
    fold_of = {row.split(",")[0]: int(row.split(",")[2]) for row in both.folds.read_text().splitlines()[1:]}
    assert all(code == single[fold_of[img]][img] for img, code in codes(both.oof).items())
    assert both.pseudo(0).read_bytes() == first.pseudo(0).read_bytes()
    assert both.pseudo(1).read_bytes() == second.pseudo(1).read_bytes()


def test_gains_of_members_equal_the_differences_of_separate_scores(trained: Trained) -> None:
    """Two runs with different input sizes; the score of each run by itself does not know the other."""
    small, large = trained.run, variant(trained, "large", {0: -0.5}, size=(96, 128))
    how = ["--set", "inference.threshold=0.5", "inference.member_weights=equal", "inference.tta=[identity]"]
    score([*of(small, large), *how])
    rows = gains_of(combined(small, large))
    assert [*rows][:3] == ["run small", "run large", "equal weights"], "a single TTA has no rows"
    for run in (small, large):
        score(["--run", str(run.root), *how])
        assert rows[f"run {run.name}"].dice == pytest.approx(CV.read(run.cv).dice, abs=1e-12)
    cv = CV.read(combined(small, large).cv)
    equal = rows["equal weights"]
    assert equal.dice == pytest.approx(cv.dice, abs=1e-12)
    better = max((small, large), key=lambda run: CV.read(run.cv).dice)
    assert equal.over == f"run {better.name}"
    of_folds = np.array([fold.dice for fold in cv.folds]) - [fold.dice for fold in CV.read(better.cv).folds]
    assert equal.gain == pytest.approx(of_folds.mean(), abs=1e-12)  # the folds have the same number of images
    assert equal.spread == pytest.approx(np.std(of_folds, ddof=1), abs=1e-12)
    assert equal.folds == (of_folds > 0).sum()


def test_given_weights_are_used_unchanged(trained: Trained) -> None:
    other = variant(trained, "other", {0: 0.5, 1: 0.5})
    both, half = combined(trained.run, other), "inference.threshold=0.5"
    score([*of(trained.run, other), "--set", half, "inference.member_weights=[3, 1]"])
    cv = CV.read(both.cv)
    assert list((cv.member_weights or {}).values()) == [0.75, 0.25]
    row = gains_of(both)["weights 0.75, 0.25"]
    assert row.note == "as set"
    assert row.dice == pytest.approx(cv.dice, abs=2e-4), "components are rounded before they are mixed"
    score([*of(trained.run, other), "--set", half, "inference.member_weights=[0, 1]"])
    assert list((CV.read(both.cv).member_weights or {}).values()) == [0.0, 1.0]
    score(["--run", str(other.root), "--set", half])
    assert codes(both.oof) == codes(other.oof)
