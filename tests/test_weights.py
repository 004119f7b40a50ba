"""Runs that answer together with weights, which the out-of-fold predictions choose."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trained_run import Trained

from competition.command import Failure
from competition.mask_table import read_rows
from competition.run.folder import RunFolder
from competition.settings.resolve import load_yaml, resolve
from competition.settings.schema import Input
from folds.checkpoint import load_weights, save_weights
from inference.predict import main as predict
from inference.pseudo import main as pseudo
from inference.score import main as score
from inference.weights import chosen_shares


def variant(trained: Trained, name: str, biases: Mapping[int, float], size: tuple[int, int] = (64, 96)) -> RunFolder:
    """A run with the same split; some folds' networks say more or less car than those they come from, and all may see
    another size."""
    run = RunFolder(trained.run.root.parent / name)
    for path in (trained.run.settings, trained.run.environment, trained.run.folds):
        run.root.mkdir(exist_ok=True)
        (run.root / path.name).write_bytes(path.read_bytes())
    for fold in (0, 1):
        network, settings, provenance = load_weights(trained.run.best(fold))
        with torch.no_grad():
            network.get_submodule("head").get_parameter("bias").add_(biases.get(fold, 0.0))
        made = settings.model_copy(update={"input": Input(height=size[0], width=size[1])})
        run.fold(fold).mkdir()
        save_weights(run.best(fold), network.state_dict(), made, provenance)
        run.history(fold).write_bytes(trained.run.history(fold).read_bytes())
    return run


def together(*runs: RunFolder) -> RunFolder:
    return RunFolder(runs[0].root.parent / "+".join(run.name for run in runs))


def of(*runs: RunFolder) -> list[str]:
    return ["--runs", *(str(run.root) for run in runs)]


def cv_of(run: RunFolder) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run.cv.read_text())
    return content


def codes(path: Path) -> dict[str, str]:
    return {row.img: row.rle for row in read_rows(path)}


def gains_of(run: RunFolder) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in cv_of(run)["gains"]}


def test_a_bad_run_is_left_out(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """The result is then that of the good run alone, to the last pixel; the other's networks are not asked."""
    bad = variant(trained, "bad", {0: 4.0, 1: 4.0})
    both = together(trained.run, bad)
    score(of(trained.run, bad))
    assert "when chosen on the other folds; predicting again" in capsys.readouterr().out
    cv = cv_of(both)
    weights = {str(trained.run.root): 1.0, str(bad.root): 0.0}
    assert cv["member_weights"] == weights
    assert [fold["member_weights"] for fold in cv["folds"]] == [weights] * 2
    row = gains_of(both)["best weights 1, 0"]
    assert (row["note"], row["over"], row["folds"]) == ("chosen on the other folds, used", "equal weights", 2)
    assert row["gain"] > 0.01
    score(trained.arguments)
    assert codes(both.oof) == codes(trained.run.oof)
    assert cv["dice"] == cv_of(trained.run)["dice"]

    predict(of(trained.run, bad))
    assert "2 networks, tta identity, hflip, threshold" in capsys.readouterr().out
    record = json.loads((both.root / "submission.json").read_text())
    assert record["member_weights"] == {str(trained.run.root): 1.0}
    predict(trained.arguments)
    assert both.submission.read_bytes() == trained.run.submission.read_bytes()


def test_weights_that_gain_nothing_are_not_used(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    twin = variant(trained, "twin", {})
    score(of(trained.run, twin))
    both = together(trained.run, twin)
    assert set(cv_of(both)["member_weights"].values()) == {0.5}
    row = gains_of(both)["best weights 0.5, 0.5"]
    assert (row["gain"], row["note"]) == (0.0, "chosen on the other folds, not used")
    assert "weights:" not in capsys.readouterr().out


def test_a_fold_has_the_weights_that_are_best_on_the_others(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is bad in the fold whose weights then rest on it alone: nothing of a fold's own images is known."""
    first, second = variant(trained, "first", {0: 4.0}), variant(trained, "second", {1: 4.0})
    score(of(first, second))
    both = together(first, second)
    row = next(row for name, row in gains_of(both).items() if name.startswith("best weights"))
    assert row["gain"] < -0.01
    assert "not used" in row["note"]
    assert set(cv_of(both)["member_weights"].values()) == {0.5}

    monkeypatch.setattr("inference.cv.tuning.SMALLEST_GAIN", -1.0)  # use it whatever it gains
    score(of(first, second))
    cv = cv_of(both)
    chosen = [fold["member_weights"] for fold in cv["folds"]]
    assert chosen == [{str(first.root): 1, str(second.root): 0}, {str(first.root): 0, str(second.root): 1}]

    # The masks are by these weights, and so are each fold's pseudo-labels.
    alone = {}
    for fold, run in enumerate((first, second)):
        level = [*of(run), "--set", f"inference.threshold={cv['folds'][fold]['threshold']}", "inference.pseudo=1"]
        score(level)
        pseudo(level)
        alone[fold] = codes(run.oof)
    pseudo([*of(first, second), "--set", "inference.pseudo=1"])
    fold_of = {row.split(",")[0]: int(row.split(",")[2]) for row in both.folds.read_text().splitlines()[1:]}
    assert all(code == alone[fold_of[img]][img] for img, code in codes(both.oof).items())
    assert both.pseudo(0).read_bytes() == first.pseudo(0).read_bytes()
    assert both.pseudo(1).read_bytes() == second.pseudo(1).read_bytes()


def test_the_table_is_that_of_the_scores_by_themselves(trained: Trained) -> None:
    """Two runs that see another size: each row against a score of its own that does not know the others."""
    small, large = trained.run, variant(trained, "large", {0: -0.5}, size=(96, 128))
    half = ["--set", "inference.threshold=0.5", "inference.member_weights=equal"]
    score([*of(small, large), *half, "inference.tta=[identity]"])
    rows = gains_of(together(small, large))
    assert [*rows][:3] == ["run small", "run large", "equal weights"], "one view has nothing to tell"
    for run in (small, large):
        score(["--run", str(run.root), *half, "inference.tta=[identity]"])
        assert rows[f"run {run.name}"]["dice"] == pytest.approx(cv_of(run)["dice"], abs=1e-12)
    cv = cv_of(together(small, large))
    equal = rows["equal weights"]
    assert equal["dice"] == pytest.approx(cv["dice"], abs=1e-12)
    folds = [fold["dice"] for fold in cv["folds"]]
    better = max((small, large), key=lambda run: float(cv_of(run)["dice"]))
    assert equal["over"] == f"run {better.name}"
    of_folds = np.array(folds) - [fold["dice"] for fold in cv_of(better)["folds"]]
    assert equal["gain"] == pytest.approx(of_folds.mean(), abs=1e-12)  # the folds have as many images
    assert equal["spread"] == pytest.approx(np.std(of_folds, ddof=1), abs=1e-12)
    assert equal["folds"] == (of_folds > 0).sum()


def test_given_weights_are_used_as_they_are(trained: Trained) -> None:
    other = variant(trained, "other", {0: 0.5, 1: 0.5})
    both, half = together(trained.run, other), "inference.threshold=0.5"
    score([*of(trained.run, other), "--set", half, "inference.member_weights=[3, 1]"])
    assert list(cv_of(both)["member_weights"].values()) == [0.75, 0.25]
    row = gains_of(both)["weights 0.75, 0.25"]
    assert row["note"] == "as set"
    assert row["dice"] == pytest.approx(cv_of(both)["dice"], abs=2e-4), "components are rounded before they are mixed"
    score([*of(trained.run, other), "--set", half, "inference.member_weights=[0, 1]"])
    assert list(cv_of(both)["member_weights"].values()) == [0.0, 1.0]
    score(["--run", str(other.root), "--set", half])
    assert codes(both.oof) == codes(other.oof)


def test_a_list_of_the_wrong_length_is_refused(trained: Trained) -> None:
    other = variant(trained, "other", {})
    for stage in (score, predict, pseudo):
        with pytest.raises(
            Failure, match=r"weights=\[1\.0, 2\.0, 3\.0\] has 3 weights for 2 runs \(small, other\); give"
        ):
            stage([*of(trained.run, other), "--set", "inference.member_weights=[1, 2, 3]"])


def test_what_the_cv_chose_counts_only_for_its_own_runs(trained: Trained) -> None:
    runs = [RunFolder(Path("runs/a")), RunFolder(Path("runs/b"))]
    settings = resolve(load_yaml(trained.run.settings))
    assert chosen_shares(trained.run, settings, runs) == (0.5, 0.5), "there is no CV"
    own = {"fold": 1, "weights": {"runs/a": 1.0, "runs/b": 0.0}}
    trained.run.cv.write_text(json.dumps({"weights": {"runs/b": 0.75, "runs/a": 0.25}, "folds": [own]}))
    assert chosen_shares(trained.run, settings, runs) == (0.25, 0.75)
    assert chosen_shares(trained.run, settings, runs, 1) == (1.0, 0.0)
    assert chosen_shares(trained.run, settings, runs, 0) == (0.5, 0.5), "the CV knows no such fold"
    assert chosen_shares(trained.run, settings, [runs[0], RunFolder(Path("runs/c"))]) == (0.5, 0.5)
    said = settings.model_copy(update={"inference": settings.inference.model_copy(update={"weights": "equal"})})
    assert chosen_shares(trained.run, said, runs) == (0.5, 0.5)


def test_other_weights_are_predicted_anew(trained: Trained) -> None:
    other = variant(trained, "other", {0: 2.0, 1: 2.0})
    written = []
    for weights in ("equal", "[1, 3]", "[3, 1]"):
        predict([*of(trained.run, other), "--set", f"inference.member_weights={weights}"])
        written.append(codes(together(trained.run, other).submission))
    assert len({json.dumps(each) for each in written}) == 3
