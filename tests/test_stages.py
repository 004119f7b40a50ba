"""A fold that is trained in two stages: resume, leaks, refusals and messages."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import assert_same_end

from competition.command import Failure, Terminated
from competition.run.contents import of_networks, of_state
from competition.run.folder import RunFolder
from competition.run.records import Epoch
from competition.settings.resolve import load_settings, parse_assignments, resolve
from folds.begin import main as begin
from folds.checkpoint import load_provenance, load_weights
from folds.samples import Samples
from folds.stages import first_stage_named
from folds.train import first_network, fit
from folds.train import main as train
from folds.validation import Validation

SMALL = [
    *("split.folds=5", "input={height: 32, width: 64}", "network={width: 8, depth: 2, stem: 2}"),
    "train={epochs: 2, batch_size: 4, lr: 0.01, ema: 0.9, workers: 0, validate_every: 2, save_seconds: 1000}",
    "first_stage={epochs: 2, batch_size: 2, lr: 0.02, crop: [16, 32]}",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def arguments_of(run: RunFolder, data: Path, *settings: str) -> list[str]:
    return ["--run", str(run.root), "--data", str(data), "--preset", "demo", "--set", *SMALL, *settings]


def test_both_stages_resume_exactly(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signals arrive in the second epoch of each stage, and while the last epoch of the first stage is validated."""
    reference, run = RunFolder(tmp_path / "reference"), RunFolder(tmp_path / "run")
    train([*arguments_of(reference, tiny_data), "--fold", "0"])
    printed = [line for line in capsys.readouterr().out.splitlines() if "  epoch " not in line]
    assert [line.partition(",")[0] for line in printed] == [
        *("fold 0: first stage", "fold 0 begins: 8 images", "fold 0: first stage is trained"),
        *("fold 0 begins: 8 images", "fold 0 is trained: Dice " + printed[4].split()[5][:-1]),
        f"next: make cv RUN={reference.root}",
    ]
    assert ["crops of 32 x 16 of 64 x 32" in line for line in printed[1:4:2]] == [True, False]
    prepare, score = Samples.__getitem__, Validation.score
    prepared: list[object] = []
    scored: list[object] = []

    def signalled(samples: Samples, key: Any) -> Any:
        prepared.append(key)
        if len(prepared) in (8 + 3, 3 * 8 + 1):
            signal.raise_signal(signal.SIGTERM)
        return prepare(samples, key)

    def signalled_score(*arguments: Any) -> Any:
        scored.append(arguments)
        if len(scored) == 1:
            signal.raise_signal(signal.SIGTERM)
        return score(*arguments)

    monkeypatch.setattr(Samples, "__getitem__", signalled)
    monkeypatch.setattr(Validation, "score", signalled_score)
    stopped = []
    for _ in range(3):
        with pytest.raises(Terminated) as stop:
            train([*arguments_of(run, tiny_data), "--fold", "0"])
        stopped.append((str(stop.value).partition(";")[0], run.last(0).is_file()))
    train([*arguments_of(run, tiny_data), "--fold", "0"])
    assert stopped == [
        ("stopped by SIGTERM in epoch 2 at step 2 of 4", False),
        ("stopped by SIGTERM after the last epoch of fold 0", False),
        ("stopped by SIGTERM in epoch 2 at step 1 of 2", True),
    ]
    assert len(prepared) == 4 * 8, "no sample is prepared twice"
    for ours, expected in ((run, reference), (run.first_stage, reference.first_stage)):
        assert_same_end(ours, expected, epochs=2)


def test_a_fold_starts_from_the_best_weights_of_its_first_stage_and_no_other_split(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr("folds.train.fit", only_first_stages)
        with pytest.raises(Failure, match="the own stage"):
            train([*arguments_of(run, tiny_data, "first_stage.epochs=1"), "--fold", "0"])
    settings = load_settings(run.settings)
    (ours, start), best = first_network(run, settings, 0, []), load_weights(run.first_stage.best(0))[0]
    assert start and start.learned == load_provenance(run.first_stage.best(0)).learned
    assert all(map(torch.equal, ours.state_dict().values(), best.state_dict().values()))
    needed = {run.first_stage.best(0), run.first_stage.last(0), run.first_stage.history(0)}
    assert needed <= {*of_networks(run), *of_state(run)}, "packed, it resumes elsewhere"
    split = run.folds.read_text()
    run.folds.write_text(split.replace(",0\n", ",x\n").replace(",1\n", ",0\n").replace(",x\n", ",1\n"))
    with pytest.raises(Failure, match=r"first-stage/fold0/best.safetensors was not trained with the split"):
        train(["--fold", "0", "--run", str(run.root)])
    run.folds.write_text(split)
    train(["--fold", "0", "--run", str(run.root)])
    shutil.rmtree(run.first_stage.root)
    capsys.readouterr()
    train(["--fold", "0", "--run", str(run.root)])
    assert capsys.readouterr().out.startswith("fold 0 is trained: "), "a finished fold is finished"


def only_first_stages(run: RunFolder, *arguments: Any, **options: Any) -> Epoch:
    if run.root.name != "first-stage":
        raise Failure("the own stage")
    return fit(run, *arguments, **options)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        (
            "first_stage.crop=[64,64]",
            r"first_stage.crop=\[64, 64\] is larger than the input of height 32",
        ),
        (
            "first_stage.scale=0.75",
            "makes an input of height 24 and width 48, and both must be multiples of 32; use first_stage.scale=1, or",
        ),
        ("first_stage.scale=0.001", "makes an input of height 0 and width 0, and both must be multiples of 32"),
        ("first_stage.scale=0.5 input.fit=pad", "first_stage.scale=0.5 needs input.fit=resize"),
        ("first_stage.crop=[16,20]", "the width of first_stage.crop=20 is not a multiple of 8, .*; use 16"),
        (
            "first_stage.crop=[8,8] first_stage.batch_size=1",
            ".* cannot be trained .* 8 x 8 .*, and first_stage.batch_size",
        ),
    ],
)
def test_an_impossible_first_stage_leaves_no_run(tiny_data: Path, tmp_path: Path, setting: str, reason: str) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Failure, match=reason):
        begin(arguments_of(run, tiny_data, *setting.split(" ")))
    assert not run.root.exists()


def test_the_size_of_a_first_stage_without_epochs_is_not_checked() -> None:
    resolve(parse_assignments(["first_stage={epochs: 0, scale: 0.75}", "input={height: 32, width: 64}"]))


def test_a_first_stage_at_half_the_size(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run")
    small = ("first_stage={epochs: 1, scale: 0.5, crop: 0}", "input={height: 64, width: 128}")
    small += ("train.epochs=1", "train.accumulate=2")
    boundary = "loss={boundary: 3, boundary_width: 13}"
    train([*arguments_of(run, tiny_data, *small, boundary), "--fold", "0"])
    sizes = [line.split(", ")[-2] for line in capsys.readouterr().out.splitlines() if "begins" in line]
    assert sizes == ["64 x 32", "128 x 64"]
    _, first, _ = load_weights(run.first_stage.best(0))
    assert (first.input.height, first.input.width, first.loss.boundary_width) == (32, 64, 7)
    assert first.train.accumulate == 1, "of the first stage's own batches"
    _, own, _ = load_weights(run.best(0))
    assert (own.input.height, own.input.width, own.loss.boundary_width) == (64, 128, 13)


def test_messages_name_the_settings_of_the_first_stage() -> None:
    message = "a step with train.batch_size=8: a smaller one, or with train.batch_size=auto; a smaller train.lr"
    with pytest.raises(Failure) as renamed, first_stage_named():
        raise Failure(message)
    assert str(renamed.value) == "a step with first_stage.batch_size=8: a smaller one; a smaller first_stage.lr"
