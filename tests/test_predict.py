"""Predicting the test set into a submission. That kills and several processes leave its bytes unchanged is in
``test_ranks.py``."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sample_records import make_cv
from trained_run import Trained, exchange

from competition import rle
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.mask_file import read_mask
from competition.mask_table import read_rows
from competition.run.records import SubmissionRecord
from folds.checkpoint import load_weights
from folds.frame import Frame
from inference.engine.host_masks import threshold_at
from inference.predict import main as predict
from inference.predict import print_left_out
from submissions.grade import grade
from submissions.masks import main as masks
from submissions.validate import main as validate


@pytest.fixture
def data(trained: Trained, tmp_path: Path) -> Path:
    """A data folder that the test may change."""
    return Path(shutil.copytree(trained.data, tmp_path / "data"))


def codes(trained: Trained) -> dict[str, str]:
    return {row.img: row.rle for row in read_rows(trained.run.submission)}


def interrupt(*_arguments: object, **_named: object) -> None:
    raise KeyboardInterrupt


def test_masks_are_the_mean_of_all_folds_and_tta(trained: Trained) -> None:
    """Compared with the simplest implementation: a loop over networks and flips, one image at a time."""
    predict([*trained.arguments, "--set", "inference.precision=fp32"])
    rows = codes(trained)
    assert list(rows) == [row.img for row in read_rows(trained.data / "sample_submission.csv")]
    certainty = pd.read_csv(trained.run.certainty, index_col="img")["expected_dice"]
    assert list(certainty.index) == list(rows)
    assert grade(trained.run.submission, trained.data / "solution.csv").dice > 0.88
    networks = [load_weights(trained.run.best(fold))[0] for fold in (0, 1)]
    frame = Frame(64, 96, "resize")
    for photo in DataFolder(trained.data).test[::5]:
        pixels = torch.from_numpy(frame.read(photo)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            each = [network(pixels).sigmoid() for network in networks]
            each += [network(pixels.flip(3)).sigmoid().flip(3) for network in networks]
        mean = torch.stack(each).mean(0)[0, 0].numpy()
        full = frame.full_size(np.rint(mean * 255).astype(np.uint8), (160, 240))
        difference = (full >= 128) != rle.decode(rows[photo.img], (160, 240)).astype(bool)
        # The order of a sum of floats may change a level by one, and so a pixel or two of the outline.
        assert difference.sum() <= 5
        assert certainty[photo.img] == pytest.approx(threshold_at(full, 128).expected_dice, abs=1e-4)


def test_the_same_call_again_does_nothing_and_other_settings_predict_again(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(trained.arguments)
    both, written = trained.run.submission.read_bytes(), trained.run.submission.stat().st_mtime_ns
    assert "is complete" not in capsys.readouterr().out
    predict(trained.arguments)
    assert trained.run.submission.stat().st_mtime_ns == written
    assert "is complete: 32 images, 2 networks; nothing to do" in capsys.readouterr().out
    predict([*trained.arguments, "--set", "inference.tta=[identity]"])
    assert trained.run.submission.read_bytes() != both
    record = SubmissionRecord.read(trained.run.submission_record)
    assert (record.tta, record.networks) == (["identity"], 2)


def test_the_photos_are_those_that_the_sample_names(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(next((data / "test").iterdir()), data / "test" / "mine.jpg")
    print_left_out(DataFolder(data))
    assert "mine.jpg" not in {photo.img for photo in DataFolder(data).submission_photos}
    assert capsys.readouterr().out.startswith("note: 1 photo of the test folder not in sample_submission.csv")
    missing = sorted((data / "test").iterdir())[3]
    missing.unlink()
    with pytest.raises(Failure, match=missing.name):
        print_left_out(DataFolder(data))


def test_other_photos_of_the_same_names_are_predicted_again(trained: Trained, data: Path) -> None:
    call = [*trained.arguments, "--data", str(data)]
    predict(call)
    before = codes(trained)
    one, two = sorted((data / "test").iterdir())[:2]
    exchange(one, two)
    predict(call)
    after = codes(trained)
    assert (after[one.name], after[two.name]) == (before[two.name], before[one.name])
    assert before[one.name] != before[two.name]


def test_data_that_has_moved_is_not_predicted_again(
    trained: Trained, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [*trained.arguments, "--data", str(data)]
    predict(call)
    written = trained.run.submission.stat().st_mtime_ns
    moved = data.rename(data.with_name("moved"))
    predict([*trained.arguments, "--data", str(moved)])
    assert "is complete: 32 images, 2 networks; nothing to do" in capsys.readouterr().out
    assert trained.run.submission.stat().st_mtime_ns == written
    validate(trained.arguments)  # finds the folder in the record


def test_shards_of_another_batch_size_are_kept_until_a_submission_is_done(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as after running out of memory with a larger batch."""
    call = [*trained.arguments, "--set", "inference.shard=8"]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("inference.predict.submission_file.join", interrupt)
        predict(call)
    finished = list(trained.run.root.glob("shards/*/*.csv.gz"))
    assert len(finished) == 4
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("inference.shards.load_ensembles", interrupt)
        predict([*call, "inference.batch_size=4"])
    assert all(file.is_file() for file in finished)
    assert "note: images finished with another batch_size are not reused" in capsys.readouterr().out
    monkeypatch.setattr("inference.predict.predict_to", interrupt)
    predict(call)
    assert not list(trained.run.root.glob("shards/*")), "all are removed in the end"


def test_a_damaged_photo_is_named_and_finished_shards_are_kept(trained: Trained, data: Path) -> None:
    """After the repair the photos count as other photos. The threshold is that of the CV."""
    damaged = sorted((data / "test").iterdir())[20]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:1000])
    call = [*trained.arguments, "--data", str(data)]
    with pytest.raises(Failure, match=damaged.name):
        predict(call)
    assert len(list(trained.run.root.glob("shards/*/*.csv.gz"))) == 1, "the first shard of 16 is finished"
    assert not trained.run.submission.exists()
    damaged.write_bytes(content)
    make_cv(threshold=0.25).write(trained.run.cv)
    predict(call)
    assert SubmissionRecord.read(trained.run.submission_record).threshold == 0.25


def test_masks_of_other_data_leave_the_submission_alone(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other folder has only test photos, of another size; it is interrupted and then goes on."""
    run = trained.run
    predict(trained.arguments)
    before = {path: path.read_bytes() for path in (run.submission, run.submission_record)}
    other = tmp_path / "vans"
    (other / "test").mkdir(parents=True)
    for number, path in enumerate(sorted((trained.data / "test").iterdir())[:3]):
        with Image.open(path) as photo:
            photo.resize((120, 80)).save(other / "test" / f"van {number}.png")
    call = [*trained.arguments, "--data", str(other), "--set", "inference.shard=1"]
    place = run.root / "predictions" / "vans"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("inference.predict.submission_file.join", interrupt)
        predict(call)
    assert len(list(place.glob("shards/*/*.csv.gz"))) == 3
    monkeypatch.setattr("inference.predict.predict_to", interrupt)
    capsys.readouterr()
    predict(call)
    variables = f"RUN={run.root} DATA={other}"
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"note: {other} is not the data of run small; its masks go to {place}"
    assert out[-1] == f"next: make validate {variables}"
    predict(call)
    assert "predictions/vans/submission.csv.gz is complete: 3 images" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    assert not (run.root / "shards").exists()

    named = [*trained.arguments, "--data", str(other)]
    validate(named)
    masks(named)
    masks([*named, "--format", "coco"])
    assert read_mask(place / "masks" / "van 2_mask.png").labels.shape == (80, 120)
    assert [image["file_name"] for image in json.loads((place / "masks.json").read_text())["images"]] == [
        "van 0.png",
        "van 1.png",
        "van 2.png",
    ]
    capsys.readouterr()
    validate(trained.arguments)
    assert capsys.readouterr().out == f"{run.submission} is a valid submission: 32 rows, every mask plausible\n"


def test_data_without_photos_reserves_no_place(trained: Trained, data: Path) -> None:
    shutil.rmtree(data / "test")
    (data / "sample_submission.csv").unlink()
    (data / "train" / "mine.jpg").touch()
    with pytest.raises(Failure, match="no folder test"):
        predict([*trained.arguments, "--data", str(data)])
    assert not trained.run.predictions.exists()
