"""Several processes train, score and predict together over gloo."""

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
import torch
from rank_processes import (
    command,
    command_of_rank,
    launch_module,
    predict_and_kill,
    run_ranks,
    train_and_describe,
    train_and_kill,
    train_until,
    train_with_nan,
)
from trained_run import Trained

from competition.run.folder import RunFolder
from competition.settings.resolve import load_yaml, merge
from folds import launch, ranks
from folds.checkpoint import load_state

ROOT = Path(__file__).parent.parent
SMALL: dict[str, Any] = {
    "split": {"folds": 5},
    "input": {"height": 32, "width": 64},
    "network": {"width": 8, "depth": 2, "stem": 2},
    "train": {"batch_size": 4, "workers": 0, "cache": True, "clip": 0.5},
}
TRAIN = [
    *("--preset", "demo", "--set", "split.folds=5", "input={height: 32, width: 64}"),
    *("network={width: 8, depth: 1, stem: 4}", "train={epochs: 3, batch_size: 2, lr: 0.01, ema: 0.9}"),
    "train.save_seconds=0",
]


def contents(*paths: Path) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def training(run: RunFolder, data: Path) -> list[str]:
    return ["--fold", "0", "--run", str(run.root), "--data", str(data), *TRAIN]


def one_error_line(ended: list[tuple[int, str, str]]) -> str:
    """The line that one of the ranks printed; all of them failed."""
    assert {status for status, _, _ in ended} == {1}
    # torch may add lines of its own on a closed connection.
    [line] = [line for _, _, err in ended for line in err.splitlines() if line.startswith("error")]
    return line


# Prediction and score.


def test_predictions_do_not_depend_on_the_number_of_ranks_or_on_kills(trained: Trained, tmp_path: Path) -> None:
    call = [*trained.arguments, "--set", "inference.shard=2"]
    [(status, _, err)] = run_ranks(1, command, "inference.predict", call, folder=tmp_path / "one")
    assert status == 0, err
    written = trained.run.submission, trained.run.submission_record
    one = contents(*written)
    for path in written:
        path.unlink()

    ended = run_ranks(2, predict_and_kill, call, [4, 1], folder=tmp_path / "killed")
    assert [status for status, _, _ in ended] == [-signal.SIGKILL, -signal.SIGKILL]
    assert len(list(trained.run.root.glob("shards/*/*.csv.gz"))) == 3, "finished shards are kept"
    assert not trained.run.submission.exists()

    ended = run_ranks(3, command, "inference.predict", call, folder=tmp_path / "three")
    assert [(status, err) for status, _, err in ended] == [(0, "")] * 3
    assert "next: make validate" in ended[0][1]
    assert ended[1][1] == ended[2][1] == "", "only the first rank prints"
    assert contents(*written) == one
    assert not list(trained.run.root.glob("shards/*"))


def test_other_ranks_predict_the_shard_of_a_killed_rank(trained: Trained, tmp_path: Path) -> None:
    call = [*trained.arguments, "--set", "inference.shard=4"]
    (first, _, err), (second, _, _) = run_ranks(2, predict_and_kill, call, [99, 1], folder=tmp_path / "killed")
    assert (first, second) == (1, -signal.SIGKILL)
    assert err == "", "the launcher reports the killed rank"
    assert len(list(trained.run.root.glob("shards/*/*.csv.gz"))) == 8


def test_two_ranks_score_as_one(trained: Trained, tmp_path: Path) -> None:
    results = []
    for world, module in ((1, "inference.score"), (2, "inference.cv.__main__")):
        ended = run_ranks(world, command, module, trained.arguments, folder=tmp_path / str(world))
        assert [(status, err) for status, _, err in ended] == [(0, "")] * world
        results.append(contents(trained.run.oof, trained.run.oof_scores, trained.run.cv))
        assert not (trained.run.root / "oof").exists()
        trained.run.cv.unlink()  # otherwise there is nothing to do
    assert results[0] == results[1]


def test_ranks_with_different_or_damaged_data_fail_with_one_line(trained: Trained, tmp_path: Path) -> None:
    data = Path(shutil.copytree(trained.data, tmp_path / "data"))
    damaged = sorted((data / "test").iterdir())[20]
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    call = [*trained.arguments, "--data"]
    both = [[*call, str(trained.data)], [*call, str(data)]]
    ended = run_ranks(2, command_of_rank, "inference.predict", both, folder=tmp_path / "different")
    assert "the processes differ in what they would predict" in one_error_line(ended)
    ended = run_ranks(2, command, "inference.predict", [*call, str(data)], folder=tmp_path / "damaged")
    assert damaged.name in one_error_line(ended)


# Training.


def train_ranks(world: int, data: Path, folder: Path, *, plain: bool, **train: Any) -> dict[str, Any]:
    tree, result = merge(SMALL, {"train": train}), folder / f"{world}.json"
    arguments = (folder / f"run{world}", data, tree, plain, result)
    ended = run_ranks(world, train_and_describe, *arguments, folder=folder / str(world))
    assert [(status, err) for status, _, err in ended] == [(0, "")] * world
    content: dict[str, Any] = json.loads(result.read_text())
    return content


def test_two_ranks_make_the_updates_of_one(tiny_data: Path, tmp_path: Path) -> None:
    """Without batch norm only the order of sums differs."""
    train = {"accumulate": 2, "optimizer": "sgd", "lr": 0.1, "precision": "fp32", "epochs": 3}
    one, two = (train_ranks(world, tiny_data, tmp_path, plain=True, **train) for world in (1, 2))
    for ours, theirs in zip(two["weights"], one["weights"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert two["loss"] == pytest.approx(one["loss"])


def test_two_ranks_have_equal_weights_and_the_score_of_one(tiny_data: Path, tmp_path: Path) -> None:
    train = {"lr": 0.03, "ema": 0.8, "epochs": 16, "validate_every": 16, "save_seconds": 1000}
    one, two = (train_ranks(world, tiny_data, tmp_path, plain=False, **train) for world in (1, 2))
    assert two["hashes"][0] == two["hashes"][1], "weights, averaged weights and batch norm statistics"
    assert one["dice"] > 0.85
    assert two["dice"] == pytest.approx(one["dice"], abs=0.03)


def test_one_rank_resumes_after_a_rank_was_killed(tiny_data: Path, tmp_path: Path) -> None:
    """In the second of two stages, after one epoch of the first."""
    run = RunFolder(tmp_path / "run")
    call = [*training(run, tiny_data), "first_stage={epochs: 1, batch_size: 2, crop: [16, 32]}"]
    (first, out, err), (second, _, _) = run_ranks(2, train_and_kill, call, 1, 7, folder=tmp_path / "two")
    assert (first, second, err) == (1, -signal.SIGKILL, "")
    assert "fold 0 begins: 8 images, 2 x CPU" in out
    state = load_state(run.last(0))
    assert (state["epoch"], state["update"]) == (0, 2), "every step is saved"
    assert len(run.first_stage.history(0).read_text().splitlines()) == 1
    [(status, out, err)] = run_ranks(1, command, "folds.train", call, folder=tmp_path / "one")
    assert (status, err) == (0, "")
    assert "fold 0 resumes in epoch 1" in out
    assert [json.loads(line)["epoch"] for line in run.history(0).read_text().splitlines()] == [1, 2, 3]


def test_the_deadline_of_one_rank_stops_all_at_the_same_step(tiny_data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    call = [*training(run, tiny_data), "--hours", "11"]
    ended = run_ranks(2, train_until, call, 1, 3, folder=tmp_path / "two")
    assert [status for status, _, _ in ended] == [124, 124]
    line = "stopped by HOURS=11 in epoch 1 at step 3 of 4; it is saved, and the same command resumes there\n"
    assert "".join(err for _, _, err in ended) == line
    assert load_state(run.last(0))["update"] == 3


def test_a_nan_loss_on_one_rank_stops_all_with_one_line(tiny_data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    ended = run_ranks(2, train_with_nan, training(run, tiny_data), 1, 3, folder=tmp_path / "two")
    assert one_error_line(ended).startswith("error: the loss of fold 0 is not finite after update 3 of epoch 1; ")
    assert load_state(run.last(0))["update"] == 2


def test_an_automatic_batch_size_is_shared_evenly(tiny_data: Path, tmp_path: Path) -> None:
    """The 8 images of a CPU become 6 for three ranks. A number that three ranks cannot share is an error."""
    run = RunFolder(tmp_path / "run")
    call = training(run, tiny_data)
    line = one_error_line(run_ranks(3, command, "folds.train", call, folder=tmp_path / "uneven"))
    assert line.startswith("error: train.batch_size=2 is the batch of all processes and cannot be shared")
    assert not run.root.exists()

    call += ["train.batch_size=auto", "train.epochs=1"]
    ended = run_ranks(3, command, "folds.train", call, folder=tmp_path / "auto")
    assert [(status, err) for status, _, err in ended] == [(0, "")] * 3
    [line] = [line for _, out, _ in ended for line in out.splitlines() if "=auto" in line]
    assert re.fullmatch(r"train.batch_size=auto is 6 on CPU, .*, 2 in each of 3 processes", line)
    assert load_yaml(run.settings)["train"]["batch_size"] == 6


# The launcher.


def test_a_signal_to_the_launcher_lets_each_rank_save(tmp_path: Path) -> None:
    source = (
        "import os, time; from pathlib import Path\n"
        "from competition.command import Terminated, run_command; from folds.signals import StopSignal\n"
        "def main():\n"
        "    with StopSignal() as stop:\n"
        "        Path(f'{os.environ[\"RANK\"]}.started').touch()\n"
        "        while not stop.number: time.sleep(0.01)\n"
        "        Path(f'{os.environ[\"RANK\"]}.saved').touch()\n"
        "    if os.environ['RANK'] == '0': raise Terminated('it is saved', stop.number)\n"
        "    raise SystemExit(128 + stop.number)\n"
        "run_command(main)\n"
    )
    (tmp_path / "module_to_launch.py").write_text(source)
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "folds.launch", "--nproc", "2", "module_to_launch"],
        cwd=tmp_path,
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while len(list(tmp_path.glob("*.started"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the ranks do not start"
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (143, "it is saved\n")
    assert len(list(tmp_path.glob("*.saved"))) == 2


def test_the_launcher_has_the_error_and_the_status_of_a_rank(tmp_path: Path) -> None:
    """One rank fails; the launcher stops the other one, which would run for a minute."""
    source = (
        "import os, time; from competition.command import Failure, run_command\n"
        "def main():\n"
        "    if os.environ['RANK'] == '0': time.sleep(60)\n"
        "    raise Failure('the disk is full')\n"
        "run_command(main)\n"
    )
    assert run_ranks(1, launch_module, tmp_path, source, folder=tmp_path) == [(1, "", "error: the disk is full\n")]


def test_the_status_of_several_failed_ranks() -> None:
    assert launch.status_of([1, -signal.SIGTERM]) == 1
    assert launch.status_of([-signal.SIGTERM]) == 143
    with pytest.raises(launch.Failure, match="killed by SIGKILL"):
        launch.status_of([1, -signal.SIGKILL])


@pytest.mark.parametrize(("given", "cores", "threads"), [(None, 9, 2), (None, 3, 1), ("7", 9, 5)])
def test_training_shares_the_cores_and_prediction_does_not(
    monkeypatch: pytest.MonkeyPatch, given: str | None, cores: int, threads: int
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(ranks, "world_here", lambda: 4)
    monkeypatch.setattr(ranks, "usable_cores", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    try:
        torch.set_num_threads(5)
        with ranks.shared_cores():
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("more", "level"), [([], "ERROR"), (["--debug"], None)])
def test_torch_logs_only_with_debug(monkeypatch: pytest.MonkeyPatch, more: list[str], level: str | None) -> None:
    seen = []

    def launched(*_: object) -> Callable[..., None]:
        return lambda *_: seen.append(os.environ.get("TORCH_CPP_LOG_LEVEL"))

    monkeypatch.setattr(os, "environ", {name: os.environ[name] for name in os.environ if "TORCH_" not in name})
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launched)
    monkeypatch.setattr("logging.disable", lambda _: None)
    launch.main(["--nproc", "1", "folds.train", *more])
    assert seen == [level]
