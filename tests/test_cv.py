"""``make cv``: training and score in one process."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from competition.run.folder import RunFolder
from competition.run.records import CV
from folds.train import main as train
from inference.cv.__main__ import main as cv
from inference.score import main as score

SMALL = [
    *("split.folds=2", "input={height: 32, width: 64}", "network={width: 4, depth: 1, stem: 2}"),
    *("train={epochs: 2, batch_size: 2, workers: 0, save_seconds: 1000}", "inference.shard=4"),
]


def test_one_process_makes_what_two_commands_make(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    run = RunFolder(tmp_path / "runs" / "mine")
    made = [*("--run", str(run.root), "--data", str(tiny_data)), "--preset", "demo", "--set", *SMALL]

    def results() -> tuple[list[bytes], CV, list[dict[str, torch.Tensor]]]:
        files = [path.read_bytes() for path in (run.oof, run.oof_scores, run.folds)]
        # The order of the metadata in a file of weights is random, and with it the hash of the file.
        scores = CV.read(run.cv).model_copy(update={"checkpoints": {}, "key": ""})
        return files, scores, [load_file(run.best(fold)) for fold in (0, 1)]

    cv(made)
    *together, weights = results()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "next: " in line] == [lines[-1]]
    assert lines[-1].startswith(f"{run.cv}  next: make predict RUN=")

    changed = run.cv.stat().st_mtime_ns
    cv(["--run", str(run.root)])
    out = capsys.readouterr().out
    assert out.startswith("fold 0 is trained: ")
    assert "nothing to do" in out
    assert run.cv.stat().st_mtime_ns == changed

    shutil.rmtree(run.root)
    train(["--all", *made])
    score(["--run", str(run.root)])
    *apart, others = results()
    assert apart == together
    for ours, theirs in zip(weights, others, strict=True):
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
