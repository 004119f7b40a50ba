"""Several runs that answer together."""

import json
import re
import shutil
from argparse import ArgumentParser

import pytest
from trained_run import Trained

from competition.command import Failure
from competition.run.folder import RunFolder
from folds.checkpoint import load_weights, save_weights
from inference.members import add_member_arguments
from inference.predict import main as predict
from inference.pseudo import main as pseudo
from inference.score import main as score
from submissions.grade import grade


@pytest.fixture
def other(trained: Trained) -> RunFolder:
    """A second run with the same split; its folds' networks differ from the first's in a bias."""
    import safetensors
    import safetensors.torch

    copy = RunFolder(trained.run.root.parent / "other")
    shutil.copytree(trained.run.root, copy.root)
    for fold in (0, 1):
        with safetensors.safe_open(copy.best(fold), framework="pt") as file:
            metadata = file.metadata()
        tensors = safetensors.torch.load_file(copy.best(fold))
        tensors["head.bias"] += 0.5
        safetensors.torch.save_file(tensors, copy.best(fold), metadata=metadata)
    return copy


def test_runs_are_scored_and_predicted_together(trained: Trained, other: RunFolder) -> None:
    runs = ["--runs", str(trained.run.root), str(other.root)]
    score(runs)
    predict(runs)
    together = RunFolder(trained.run.root.parent / "small+other")
    assert json.loads(together.cv.read_text())["images"] == 64
    assert json.loads((together.root / "submission.json").read_text())["networks"] == 4
    assert grade(together.submission, trained.data / "solution.csv").dice > 0.88
    # Named as a run of its own it answers as before.
    before = together.submission.read_bytes()
    together.submission.unlink()
    predict(["--run", str(together.root)])
    assert together.submission.read_bytes() == before


def test_every_runs_counts() -> None:
    parser = ArgumentParser()
    add_member_arguments(parser)
    assert parser.parse_args(["--runs", "a", "b", "--runs", "c"]).runs == ["a", "b", "c"]
    assert parser.parse_args([]).runs == []


def test_one_run_beside_another_is_refused(trained: Trained) -> None:
    with pytest.raises(Failure, match=r"RUNS=.*small is one run, RUN=other another; name several"):
        score(["--runs", str(trained.run.root), "--run", "other"])


def test_a_run_named_twice_is_refused(trained: Trained) -> None:
    with pytest.raises(Failure, match="names a run twice"):
        score(["--runs", str(trained.run.root), f"{trained.run.root}/../{trained.run.name}"])
    assert not (trained.run.root.parent / f"{trained.run.name}+{trained.run.name}").exists()


def test_different_splits_are_refused(trained: Trained, other: RunFolder) -> None:
    other.folds.write_text(trained.run.folds.read_text() + "more.jpg,more,0\n")
    with pytest.raises(Failure, match="different splits"):
        score(["--runs", str(trained.run.root), str(other.root)])


def test_runs_of_different_photos_are_refused(trained: Trained, other: RunFolder) -> None:
    """Such as one of data.hq: its networks would be shown what the first run has learned from."""
    made = json.loads(other.environment.read_text())
    other.environment.write_text(json.dumps(made | {"fingerprint": "0" * 16}))
    with pytest.raises(Failure, match="runs small and other were made from different photos"):
        score(["--runs", str(trained.run.root), str(other.root)])
    assert not (trained.run.root.parent / "small+other").exists()


@pytest.mark.parametrize("named", ["by its members", "as a run of its own"])
def test_members_trained_anew_with_another_split_are_refused(trained: Trained, other: RunFolder, named: str) -> None:
    runs = ["--runs", str(trained.run.root), str(other.root)]
    predict(runs)
    together = RunFolder(trained.run.root.parent / "small+other")
    rows = trained.run.folds.read_text().splitlines()
    swapped = [f"{row[:-1]}{1 - int(row[-1])}" for row in rows[1:]]
    for member in (trained.run, other):
        member.folds.write_text("\n".join([rows[0], *swapped]) + "\n")
        made = [load_weights(member.best(fold)) for fold in (0, 1)]
        for fold, (network, settings, provenance) in zip((1, 0), made, strict=True):
            save_weights(
                member.best(fold), network.state_dict(), settings, provenance.model_copy(update={"fold": fold})
            )
    again = runs if named == "by its members" else ["--run", str(together.root)]
    expected = f"{trained.run.folds} is not the split that {together.root} was made with; remove the folder"
    for stage in (score, predict, pseudo):
        with pytest.raises(Failure, match=re.escape(expected)):
            stage(again)
    shutil.rmtree(together.root)
    predict(runs)
    assert together.folds.read_bytes() == other.folds.read_bytes()


def test_a_run_that_does_not_exist_is_named(trained: Trained) -> None:
    with pytest.raises(Failure, match="nowhere"):
        score(["--runs", str(trained.run.root), str(trained.run.root.parent / "nowhere")])


def test_a_fold_that_is_still_training_is_mentioned(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    predict(trained.arguments)
    assert "note:" not in capsys.readouterr().out
    lines = trained.run.history(1).read_text().splitlines(keepends=True)
    trained.run.history(1).write_text("".join(lines[:7]))
    predict(trained.arguments)
    assert "fold 1 of run small has trained 7 of 20 epochs" in capsys.readouterr().out


def test_a_run_that_is_not_trained_says_only_what_comes_first(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    for fold in (0, 1):
        shutil.rmtree(trained.run.fold(fold))
    for stage in (score, predict, pseudo):
        with pytest.raises(Failure, match=r"fold 0 is not trained, .* is missing: make train FOLD=0 RUN=.*/small$"):
            stage(trained.arguments)
        assert capsys.readouterr().out == ""


def test_a_run_of_its_own_is_not_written_over(trained: Trained, other: RunFolder) -> None:
    third = RunFolder(trained.run.root.parent / "third")
    shutil.copytree(trained.run.root, third.root)
    with pytest.raises(Failure, match="is a run of its own"):
        score(["--run", str(third.root), "--runs", str(trained.run.root), str(other.root)])
