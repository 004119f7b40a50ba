"""Several processes that train, score and predict together: real ones, that speak over gloo."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rank_processes import command, compare, predict_and_die, together, train_and_die, train_and_spoil
from trained_run import Trained

from competition.command import Failure
from competition.run.folder import RunFolder
from competition.settings.resolve import load_yaml, merge
from folds import launch, ranks
from folds.checkpoint import load_state

ROOT = Path(__file__).parent.parent
SMALL: dict[str, Any] = {
    "split": {"folds": 5},
    "input": {"height": 32, "width": 64},
    "network": {"width": 8, "depth": 2, "stem": 2},
    "train": {
        "epochs": 40,
        "batch_size": 4,
        "lr": 0.02,
        "validate_every": 40,
        "ema": 0.9,
        "workers": 0,
        "cache": True,
        "clip": 0.5,
    },
}
TRAIN = [
    *("--preset", "demo", "--set", "split.folds=5", "input={height: 32, width: 64}"),
    *("network={width: 8, depth: 2, stem: 2}", "train={epochs: 6, batch_size: 2, lr: 0.01, ema: 0.9}"),
    "train.save_seconds=0",
]
TOLERANCE = 0.03


def contents(*paths: Path) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def training(run: RunFolder, data: Path) -> list[str]:
    return ["--fold", "0", "--run", str(run.root), "--data", str(data), *TRAIN]


def launched(folder: Path, module: str, *arguments: str) -> subprocess.Popen[str]:
    """Two ranks of a command, by the launcher."""
    environment = {"PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "folds.launch", "--nproc", "2", module, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Prediction and score.


def test_the_bytes_do_not_depend_on_ranks_kills_and_restarts(trained: Trained, tmp_path: Path) -> None:
    call = [*trained.arguments, "--set", "inference.shard=2"]
    [(status, _, err)] = together(1, command, "inference.predict", call, folder=tmp_path / "one")
    assert status == 0, err
    written = trained.run.submission, trained.run.submission_record
    one = contents(*written)
    for path in written:
        path.unlink()

    ended = together(2, predict_and_die, call, [4, 1], folder=tmp_path / "killed")
    assert [status for status, _, _ in ended] == [-signal.SIGKILL, -signal.SIGKILL]
    assert len(list(trained.run.root.glob("shards/*/*.csv.gz"))) == 3, "the finished parts stay"
    assert not trained.run.submission.exists()

    ended = together(3, command, "inference.predict", call, folder=tmp_path / "three")
    assert [(status, err) for status, _, err in ended] == [(0, "")] * 3
    assert "next: make validate" in ended[0][1]
    assert ended[1][1] == ended[2][1] == "", "one prints"
    assert contents(*written) == one
    assert not list(trained.run.root.glob("shards/*"))


def test_a_part_whose_rank_was_killed_is_done_by_another(trained: Trained, tmp_path: Path) -> None:
    call = [*trained.arguments, "--set", "inference.shard=2"]
    (first, _, err), (second, _, _) = together(2, predict_and_die, call, [99, 1], folder=tmp_path / "killed")
    assert (first, second) == (1, -signal.SIGKILL)
    assert err == "", "that the other is gone is for its launcher to say"
    assert len(list(trained.run.root.glob("shards/*/*.csv.gz"))) == 16, "all parts are there"


def test_two_ranks_score_as_one(trained: Trained, tmp_path: Path) -> None:
    results = []
    for world in (1, 2):
        ended = together(world, command, "inference.score", trained.arguments, folder=tmp_path / str(world))
        assert [(status, err) for status, _, err in ended] == [(0, "")] * world
        results.append(contents(trained.run.oof, trained.run.oof_scores, trained.run.cv))
        assert not (trained.run.root / "oof").exists()
    assert results[0] == results[1]


def test_a_damaged_photo_is_one_line_and_the_same_command_goes_on(trained: Trained, tmp_path: Path) -> None:
    [(status, _, err)] = together(1, command, "inference.predict", trained.arguments, folder=tmp_path / "one")
    assert status == 0, err
    one = trained.run.submission.read_bytes()
    data = Path(shutil.copytree(trained.data, tmp_path / "data"))
    damaged = sorted((data / "test").iterdir())[20]
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    call = ("inference.predict", *trained.arguments, "--data", str(data))
    process = launched(tmp_path, *call)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert re.fullmatch(rf"error: .*{damaged.name}.*\n", err), err
    damaged.write_bytes(content)
    process = launched(tmp_path, *call)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")
    assert out.count("next: make validate") == 1
    assert trained.run.submission.read_bytes() == one


# Training.


def compared(world: int, data: Path, folder: Path, *, plain: bool, **train: Any) -> dict[str, Any]:
    tree = merge(SMALL, {"train": train})
    answer = folder / f"{world}.json"
    ended = together(world, compare, folder / f"run{world}", data, tree, plain, answer, folder=folder / str(world))
    assert [(status, err) for status, _, err in ended] == [(0, "")] * world
    content: dict[str, Any] = json.loads(answer.read_text())
    return content


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (4, 2)])
def test_two_ranks_make_the_updates_of_one(tiny_data: Path, tmp_path: Path, batch_size: int, accumulate: int) -> None:
    """Without batch normalisation there is no difference but the order of sums."""
    train = {"batch_size": batch_size, "accumulate": accumulate, "optimizer": "sgd", "lr": 0.1, "precision": "fp32"}
    one, two = (compared(world, tiny_data, tmp_path, plain=True, epochs=5, **train) for world in (1, 2))
    for ours, theirs in zip(two["weights"], one["weights"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert two["loss"] == pytest.approx(one["loss"])


def test_two_ranks_have_equal_weights_and_the_score_of_one(tiny_data: Path, tmp_path: Path) -> None:
    one, two = (compared(world, tiny_data, tmp_path, plain=False) for world in (1, 2))
    assert two["hashes"][0] == two["hashes"][1], "weights, averaged weights and statistics"
    assert two["finite"] == [True, True]
    assert one["dice"] > 0.85
    assert two["dice"] == pytest.approx(one["dice"], abs=TOLERANCE)


def test_a_killed_training_goes_on_with_one_rank(tiny_data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    call = training(run, tiny_data)
    (first, out, err), (second, _, _) = together(2, train_and_die, call, 1, 7, folder=tmp_path / "two")
    assert (first, second, err) == (1, -signal.SIGKILL, "")
    assert "fold 0 begins: 8 images, 2 x CPU" in out
    state = load_state(run.last(0))
    assert (state["epoch"], state["update"]) == (1, 2), "every step is saved"
    [(status, out, err)] = together(1, command, "folds.train", call, folder=tmp_path / "one")
    assert (status, err) == (0, "")
    assert "fold 0 resumes in epoch 2" in out
    assert [json.loads(line)["epoch"] for line in run.history(0).read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_is_no_number_stops_all_with_one_line(tiny_data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    ended = together(2, train_and_spoil, training(run, tiny_data), 1, 3, folder=tmp_path / "two")
    assert [status for status, _, _ in ended] == [1, 1]
    assert re.fullmatch(
        r"error: the loss of fold 0 is not finite after update 3 of epoch 1; .*\n", ended[0][2] + ended[1][2]
    )
    assert load_state(run.last(0))["update"] == 2


def test_a_batch_that_cannot_be_shared_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    ended = together(3, command, "folds.train", training(run, tiny_data), folder=tmp_path / "three")
    assert [status for status, _, _ in ended] == [1, 1, 1]
    # torch may add a line of its own on a connection that is gone.
    assert [line for _, _, err in ended for line in err.splitlines() if line.startswith("error")] == [
        "error: train.batch_size=2 is the batch of all processes and cannot be shared evenly by 3; use NPROC=2, or "
        "train.batch_size=3 in a new RUN"
    ]
    assert not run.root.exists()


def test_auto_can_be_shared(tiny_data: Path, tmp_path: Path) -> None:
    """8 images on a CPU are 6 for three processes, which the settings then say, and the same command goes on with."""
    run = RunFolder(tmp_path / "run")
    call = [*training(run, tiny_data), "train.batch_size=auto", "train.epochs=1"]
    for name, printed in (
        ("first", [r"train.batch_size=auto is 6 on CPU, .*, 2 in each of 3 processes"]),
        ("again", []),
    ):
        ended = together(3, command, "folds.train", call, folder=tmp_path / name)
        assert [(status, err) for status, _, err in ended] == [(0, "")] * 3
        lines = [line for _, out, _ in ended for line in out.splitlines() if "=auto" in line]
        assert len(lines) == len(printed)
        assert all(map(re.fullmatch, printed, lines))
        assert load_yaml(run.settings)["train"]["batch_size"] == 6


def test_a_signal_to_the_launcher_saves(tiny_data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    process = launched(tmp_path, "folds.train", *training(run, tiny_data), "train.epochs=5000")
    deadline = time.monotonic() + 90
    while not run.last(0).is_file():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing is saved"
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 143, err
    state = load_state(run.last(0))
    place = rf"in epoch {state['epoch'] + 1} at step {state['update']} of 4"
    assert re.fullmatch(rf"stopped by SIGTERM {place}; it is saved, .*\n", err), err


def test_processes_with_other_threads_are_told_which_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "all_gather", lambda value: [value, f"another {value}"])
    with pytest.raises(Failure, match=r"differ in what they would predict; .* OMP_NUM_THREADS=16 before torchrun"):
        ranks.require_same("what they would predict", "key")


# The launcher.


def test_the_status_is_that_of_the_ranks() -> None:
    assert launch.status_of([1, -signal.SIGTERM]) == 1
    assert launch.status_of([-signal.SIGTERM]) == 143
    with pytest.raises(launch.Failure, match="killed by SIGKILL"):
        launch.status_of([1, -signal.SIGKILL])


def test_prediction_has_the_threads_of_one_process() -> None:
    assert launch.threads(2, "inference.predict") == {}
    assert int(launch.threads(10_000, "folds.train")["OMP_NUM_THREADS"]) == 1


@pytest.mark.parametrize(("more", "level"), [([], "ERROR"), (["--debug"], None)])
def test_torch_speaks_for_those_who_ask(monkeypatch: pytest.MonkeyPatch, more: list[str], level: str | None) -> None:
    seen = []

    def launched(*_: object) -> Callable[..., None]:
        return lambda *_: seen.append(os.environ.get("TORCH_CPP_LOG_LEVEL"))

    monkeypatch.setattr(os, "environ", {name: os.environ[name] for name in os.environ if "TORCH_" not in name})
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launched)
    monkeypatch.setattr("logging.disable", lambda _: None)
    launch.main(["--nproc", "1", "folds.train", *more])
    assert seen == [level]
