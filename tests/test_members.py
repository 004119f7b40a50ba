"""Runs that predict together."""

import re
import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_records import make_cv
from trained_run import Trained, variant

from competition.command import Failure
from competition.run.folder import RunFolder
from competition.run.records import CV, Environment, SubmissionRecord
from folds.checkpoint import load_weights, save_weights
from inference.members import add_member_arguments, open_members
from inference.predict import main as predict
from inference.pseudo import main as pseudo
from inference.score import main as score
from submissions.grade import grade


@pytest.fixture
def other(trained: Trained) -> RunFolder:
    """A second run with the same split; its networks differ from the first's in a bias."""
    return variant(trained, "other", {0: 0.5, 1: 0.5})


def opened(*arguments: object) -> list[RunFolder]:
    """The members that a command line names."""
    parser = ArgumentParser()
    add_member_arguments(parser)
    return open_members(parser.parse_args([str(argument) for argument in arguments]))[3]


def test_runs_are_scored_and_predicted_together(trained: Trained, other: RunFolder) -> None:
    runs = ["--runs", str(trained.run.root), str(other.root)]
    score(runs)
    predict(runs)
    combined = RunFolder(trained.run.root.parent / "small+other")
    assert CV.read(combined.cv).images == 64
    assert SubmissionRecord.read(combined.submission_record).networks == 4
    assert grade(combined.submission, trained.data / "solution.csv").dice > 0.88
    # The combined run can also be named like a single run.
    before = combined.submission.read_bytes()
    combined.submission.unlink()
    predict(["--run", str(combined.root)])
    assert combined.submission.read_bytes() == before


def other_photos(other: RunFolder) -> None:
    """Such as those of data.hq: the networks would predict photos of another kind than they were trained on."""
    made = Environment.read(other.environment)
    made.model_copy(update={"fingerprint": "0" * 16}).write(other.environment)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda other: other.folds.write_text(other.folds.read_text() + "more.jpg,more,0\n"),
            "runs small and other have different splits",
        ),
        (other_photos, "runs small and other were made from different photos"),
        (lambda other: shutil.rmtree(other.root), "no run .*other; RUNS must name trained runs"),
    ],
)
def test_runs_that_do_not_fit_are_rejected(
    trained: Trained, other: RunFolder, spoil: Callable[[RunFolder], object], expected: str
) -> None:
    spoil(other)
    with pytest.raises(Failure, match=expected):
        opened("--runs", trained.run.root, "--runs", other.root)  # the option may be repeated
    assert not (trained.run.root.parent / "small+other").exists()


def test_names_that_contradict_each_other_are_rejected(trained: Trained, other: RunFolder) -> None:
    root = trained.run.root
    with pytest.raises(Failure, match=r"RUNS=.*small and RUN=other are different runs"):
        opened("--runs", root, "--run", "other")
    with pytest.raises(Failure, match="names a run twice"):
        opened("--runs", root, f"{root}/../{root.name}")
    third = Path(shutil.copytree(root, root.parent / "third"))
    with pytest.raises(Failure, match="is another run, not the combined run"):
        opened("--run", third, "--runs", root, other.root)


@pytest.mark.parametrize("named", ["by its members", "as a run of its own"])
def test_members_trained_again_with_another_split_are_rejected(
    trained: Trained, other: RunFolder, named: str
) -> None:
    runs = ["--runs", trained.run.root, other.root]
    opened(*runs)
    combined = RunFolder(trained.run.root.parent / "small+other")
    rows = trained.run.folds.read_text().splitlines()
    swapped = [f"{row[:-1]}{1 - int(row[-1])}" for row in rows[1:]]
    for member in (trained.run, other):
        member.folds.write_text("\n".join([rows[0], *swapped]) + "\n")
        made = [load_weights(member.best(fold)) for fold in (0, 1)]
        for fold, (network, settings, provenance) in zip((1, 0), made, strict=True):
            save_weights(
                member.best(fold), network.state_dict(), settings, provenance.model_copy(update={"fold": fold})
            )
    again = runs if named == "by its members" else ["--run", combined.root]
    expected = f"{trained.run.folds} is not the split that {combined.root} was made with; remove the folder"
    with pytest.raises(Failure, match=re.escape(expected)):
        opened(*again)
    shutil.rmtree(combined.root)
    opened(*runs)
    assert combined.folds.read_bytes() == other.folds.read_bytes()


def test_a_fold_whose_training_is_not_finished_is_mentioned(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(trained.arguments)
    assert "note:" not in capsys.readouterr().out
    lines = trained.run.history(1).read_text().splitlines(keepends=True)
    trained.run.history(1).write_text("".join(lines[:7]))
    predict(trained.arguments)
    assert "fold 1 of run small has trained 7 of 20 epochs" in capsys.readouterr().out


def test_a_run_that_is_not_trained_says_only_what_to_do_first(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    make_cv().write(trained.run.cv)
    before = trained.run.cv.read_bytes()
    for fold in (0, 1):
        shutil.rmtree(trained.run.fold(fold))
    for stage in (score, predict, pseudo):
        with pytest.raises(Failure, match=r"fold 0 is not trained, .* is missing: make train FOLD=0 RUN=.*/small$"):
            stage(trained.arguments)
        assert capsys.readouterr().out == ""
    assert trained.run.cv.read_bytes() == before
