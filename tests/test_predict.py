"""The test set into a submission."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from trained_run import Trained, exchange

from competition import rle
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.mask_table import read_rows
from folds.checkpoint import load_weights
from folds.frame import Frame
from inference.predict import main as predict
from submissions.grade import grade

ROOT = Path(__file__).parent.parent


def test_the_masks_are_the_mean_of_all_folds_and_views(trained: Trained) -> None:
    """Against the plainest code that computes the same: a loop over networks and views, one image at a time."""
    predict([*trained.arguments, "--set", "inference.precision=fp32"])
    rows = {row.img: row.rle for row in read_rows(trained.run.submission)}
    networks = [load_weights(trained.run.best(fold))[0] for fold in (0, 1)]
    frame = Frame(64, 96, "resize")
    for photo in DataFolder(trained.data).test[::5]:
        pixels = torch.from_numpy(frame.read(photo.path)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            seen = [network(pixels).sigmoid() for network in networks]
            seen += [network(pixels.flip(3)).sigmoid().flip(3) for network in networks]
        mean = torch.stack(seen).mean(0)[0, 0].numpy()
        full = frame.full_size(np.rint(mean * 255).astype(np.uint8), (160, 240))
        difference = (full >= 128) != rle.decode(rows[photo.img], (160, 240)).astype(bool)
        # The order of a sum of floats may move a level by one, and so a pixel or two of the outline.
        assert difference.sum() <= 5


def test_rows_are_in_the_order_of_the_sample_submission(trained: Trained) -> None:
    predict(trained.arguments)
    names = [row.img for row in read_rows(trained.run.submission)]
    assert names == [row.img for row in read_rows(trained.data / "sample_submission.csv")]
    assert grade(trained.run.submission, trained.data / "solution.csv").dice > 0.88


def test_photos_that_the_sample_does_not_name_are_left_out_and_counted(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "more"
    shutil.copytree(trained.data, data)
    shutil.copy(next((data / "test").iterdir()), data / "test" / "mine.jpg")
    predict([*trained.arguments, "--data", str(data)])
    assert capsys.readouterr().out.startswith("note: 1 photos of the test folder are not in sample_submission.csv")
    assert "mine.jpg" not in {row.img for row in read_rows(trained.run.submission)}


def test_killed_anywhere_the_file_is_the_same_in_the_end(trained: Trained, tmp_path: Path) -> None:
    predict(trained.arguments)
    undisturbed = trained.run.submission.read_bytes()
    trained.run.submission.unlink()
    command = [sys.executable, "-m", "inference.predict", *trained.arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(trained.run.root.glob("shards/*/00000-*.csv.gz")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = list(trained.run.root.glob("shards/*/*.csv.gz"))
    assert finished
    times = {path: path.stat().st_mtime_ns for path in finished}
    assert not trained.run.submission.exists()
    mark = trained.run.root / "kept"
    shutil.copytree(finished[0].parent, mark)
    predict(trained.arguments)
    assert trained.run.submission.read_bytes() == undisturbed
    # The finished shard was taken up: its bytes begin the file, behind the header, and nothing of it is left over.
    assert (mark / finished[0].name).read_bytes() in undisturbed
    assert times
    assert not list(trained.run.root.glob("shards/*"))


def test_the_same_call_again_does_nothing(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    predict(trained.arguments)
    written = trained.run.submission.stat().st_mtime_ns
    capsys.readouterr()
    predict(trained.arguments)
    assert trained.run.submission.stat().st_mtime_ns == written
    assert "is there" in capsys.readouterr().out


def test_other_photos_of_the_same_names_are_predicted_anew(trained: Trained, tmp_path: Path) -> None:
    data = Path(shutil.copytree(trained.data, tmp_path / "data"))
    predict([*trained.arguments, "--data", str(data)])
    before = {row.img: row.rle for row in read_rows(trained.run.submission)}
    one, two = sorted((data / "test").iterdir())[:2]
    exchange(one, two)
    predict([*trained.arguments, "--data", str(data)])
    after = {row.img: row.rle for row in read_rows(trained.run.submission)}
    assert (after[one.name], after[two.name]) == (before[two.name], before[one.name])
    assert before[one.name] != before[two.name]


def test_other_views_or_weights_are_predicted_anew(trained: Trained) -> None:
    predict(trained.arguments)
    both = trained.run.submission.read_bytes()
    predict([*trained.arguments, "--set", "inference.tta=[identity]"])
    one = trained.run.submission.read_bytes()
    assert one != both
    record = json.loads((trained.run.root / "submission.json").read_text())
    assert record["tta"] == ["identity"]
    assert record["networks"] == 2


def test_what_was_finished_with_another_batch_size_is_there_until_the_end(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As who is out of memory is told to lower it."""
    call = [*trained.arguments, "--set", "inference.shard=8"]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("inference.predict.submission_file.join", interrupt)
        predict(call)
    finished = list(trained.run.root.glob("shards/*/*.csv.gz"))
    assert len(finished) == 4
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("inference.predict.load_ensembles", interrupt)
        predict([*call, "inference.batch_size=4"])
    assert all(file.is_file() for file in finished)
    assert "note: images finished with other batch_size are not taken up" in capsys.readouterr().out
    monkeypatch.setattr("inference.predict.predict_to", interrupt)
    predict(call)
    assert not list(trained.run.root.glob("shards/*")), "all are removed in the end"


def interrupt(*_arguments: object, **_named: object) -> None:
    raise KeyboardInterrupt


def test_the_threshold_is_that_of_the_cv(trained: Trained) -> None:
    trained.run.cv.write_text(json.dumps({"threshold": 0.25}))
    predict(trained.arguments)
    assert json.loads((trained.run.root / "submission.json").read_text())["threshold"] == 0.25


def test_a_missing_test_photo_is_named(trained: Trained, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    gone = sorted((data / "test").iterdir())[3]
    gone.unlink()
    with pytest.raises(Failure, match=gone.name):
        predict([*trained.arguments, "--data", str(data)])
    assert not trained.run.submission.exists()


def test_a_damaged_test_photo_is_named_and_the_rest_is_kept(trained: Trained, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    damaged = sorted((data / "test").iterdir())[20]
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(Failure, match=damaged.name):
        predict([*trained.arguments, "--data", str(data)])
    assert len(list(trained.run.root.glob("shards/*/*.csv.gz"))) == 1, "the first shard of 16 was finished"
    damaged.write_bytes(content)
    predict([*trained.arguments, "--data", str(data)])
    assert trained.run.submission.is_file()
