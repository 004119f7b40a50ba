"""The offline CV."""

import csv
import json
import re
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from trained_run import Trained, exchange_networks

from competition import metrics, rle
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.files import sha256
from competition.images import read_mask
from competition.mask_table import read_rows
from folds.split import read_folds
from inference.engine.ensemble import Ensemble, load_ensembles
from inference.score import main as score
from submissions import submission_file


def rows_of(trained: Trained) -> dict[str, str]:
    return {row.img: row.rle for row in read_rows(trained.run.oof)}


def test_the_cv_is_the_score_of_the_written_masks(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    score(trained.arguments)
    cv = json.loads(trained.run.cv.read_text())
    data = DataFolder(trained.data)
    codes = rows_of(trained)
    assert codes.keys() == {photo.img for photo in data.train}
    # Against the mask files, decoded, pixel by pixel: none of the code that made the CV.
    dice = {}
    for photo in data.train:
        file = data.mask_file(photo)
        assert file is not None
        truth = read_mask(file)
        dice[photo.img] = metrics.dice(rle.decode(codes[photo.img], truth.shape), truth)  # type: ignore[arg-type]
    assert cv["dice"] == pytest.approx(np.mean(list(dice.values())), abs=1e-9)
    assert cv["dice"] > 0.9, "the small network has learned"
    fold_of = read_folds(trained.run.folds)
    for fold in cv["folds"]:
        own = [dice[img] for img, number in fold_of.items() if number == fold["fold"]]
        assert fold["images"] == len(own)
        assert fold["dice"] == pytest.approx(np.mean(own), abs=1e-9)
    assert cv["spread"] == pytest.approx(np.std([fold["dice"] for fold in cv["folds"]], ddof=1))
    screen = capsys.readouterr().out
    assert f"{cv['dice']:.5f}" in screen
    assert f"{cv['iou']:.5f}" in screen
    assert all(f"{fold['dice']:.5f}" in screen for fold in cv["folds"])


def test_dice_and_iou_of_each_image_belong_to_one_mask(trained: Trained) -> None:
    score(trained.arguments)
    scores = pd.read_csv(trained.run.oof_scores)
    assert list(scores.columns) == ["img", "car", "view", "fold", "dice", "iou"]
    assert np.allclose(scores["iou"], scores["dice"] / (2 - scores["dice"]), atol=2e-6)


def test_a_fold_is_predicted_by_the_network_that_did_not_see_it(trained: Trained) -> None:
    """With the folds' weights exchanged, every image is predicted by a network that has seen it: other masks."""
    score(trained.arguments)
    honest = rows_of(trained)
    exchange_networks(trained.run)
    score(trained.arguments)
    leaked = rows_of(trained)
    assert sum(honest[img] != leaked[img] for img in honest) > len(honest) * 0.9


def test_scoring_twice_writes_the_same_bytes(trained: Trained) -> None:
    score(trained.arguments)
    before = [path.read_bytes() for path in (trained.run.oof, trained.run.oof_scores, trained.run.cv)]
    score(trained.arguments)
    assert before == [path.read_bytes() for path in (trained.run.oof, trained.run.oof_scores, trained.run.cv)]


def test_a_fixed_threshold_is_used_as_it_is(trained: Trained) -> None:
    score([*trained.arguments, "--set", "inference.threshold=0.9"])
    cv = json.loads(trained.run.cv.read_text())
    assert cv["threshold"] == pytest.approx(0.9, abs=0.003)
    assert not cv["tuning"]["used"]
    curve = dict(zip(cv["curve"]["thresholds"], cv["curve"]["dice"], strict=True))
    assert cv["dice"] == pytest.approx(curve[cv["threshold"]], abs=1e-9)
    assert list(cv["checkpoints"].values()) == [sha256(Path(path)) for path in cv["checkpoints"]]
    assert len(cv["checkpoints"]) == len(cv["folds"])


def test_a_tuned_threshold_is_that_of_the_other_folds(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.cv.tuning.SMALLEST_GAIN", -1.0)  # use it whatever it gains
    score(trained.arguments)
    cv = json.loads(trained.run.cv.read_text())
    assert cv["tuning"]["used"]
    assert cv["dice"] == pytest.approx(cv["tuning"]["dice"], abs=1e-9)
    assert cv["threshold"] == cv["tuning"]["threshold"]


def test_views_are_measured_one_by_one(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    half = [*trained.arguments, "--set", "inference.threshold=0.5"]
    alone = {}
    for view in ("identity", "hflip"):
        score([*half, f"inference.tta=[{view}]"])
        alone[view] = json.loads(trained.run.cv.read_text())
        assert [row["what"][:14] for row in alone[view]["gains"]] == ["best threshold"], (
            "one view has nothing to tell"
        )
    capsys.readouterr()
    score(half)
    cv = json.loads(trained.run.cv.read_text())
    identity, hflip, both, threshold = cv["gains"]
    for row, view in ((identity, "identity"), (hflip, "hflip")):
        assert row["what"] == view
        assert row["dice"] == pytest.approx(alone[view]["dice"], abs=1e-12)
    assert identity["gain"] is None
    gains = [alone["hflip"]["folds"][fold]["dice"] - alone["identity"]["folds"][fold]["dice"] for fold in (0, 1)]
    assert hflip["over"] == both["over"] == "identity"
    assert hflip["gain"] == pytest.approx(np.mean(gains), abs=1e-12)
    assert hflip["spread"] == pytest.approx(np.std(gains, ddof=1), abs=1e-12)
    assert hflip["folds"] == sum(gain > 0 for gain in gains)
    assert both["what"] == "identity + hflip"
    assert both["dice"] == pytest.approx(cv["dice"], abs=1e-4), "components are rounded before they are mixed"
    assert threshold["note"] == "chosen on the other folds, not used"
    assert threshold["gain"] == cv["tuning"]["gain"]
    screen = capsys.readouterr().out
    for row in (hflip, both, threshold):
        line = f"{row['dice']:.5f}  {row['gain']:+.5f}  {row['spread']:.5f}  {row['folds']} of 2, over {row['over']}"
        assert re.search(rf"^{re.escape(row['what'])} +{re.escape(line)}", screen, re.MULTILINE)


def test_a_score_that_was_killed_goes_on(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    score(trained.arguments)
    undisturbed = trained.run.cv.read_bytes()
    trained.run.cv.unlink()
    written: list[Path] = []

    def write(path: Path, rows: list[tuple[str, str]]) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        submission_file.write_shard(path, rows)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("inference.shards.submission_file", SimpleNamespace(write_shard=write))
        score(trained.arguments)
    times = [path.stat().st_mtime_ns for path in written]
    monkeypatch.setattr("inference.score.remove_parts", lambda _folder: None)
    score(trained.arguments)
    assert trained.run.cv.read_bytes() == undisturbed
    assert [path.stat().st_mtime_ns for path in written] == times, "they are taken up, with their numbers"


def test_numbers_against_a_mask_that_was_repaired_are_not_taken_up(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(trained.data, tmp_path / "data"))
    call = [*trained.arguments, "--data", str(data), "--set", "inference.threshold=0.5"]
    monkeypatch.setattr("inference.score.remove_parts", lambda _folder: None)  # as if it had been killed
    right = (data / "train_masks.csv").read_text()
    img, code = right.splitlines()[1].split(",")
    (data / "train_masks.csv").write_text(right.replace(code, "1 5"))
    score(call)
    (data / "train_masks.csv").write_text(right)
    score(call)
    cv = json.loads(trained.run.cv.read_text())
    assert cv["tuning"]["dice_at_half"] == pytest.approx(cv["dice"], abs=1e-9), f"{img} is as it was scored first"


@pytest.mark.parametrize("command", ["score", "predict", "pseudo"])
def test_weights_that_a_training_replaces_meanwhile_are_refused(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """They would be kept under the name of those that were there when the command began."""
    module = import_module(f"inference.{command}")
    best = trained.run.best(1)

    def load(paths: Sequence[Path], *arguments: object, **named: object) -> list[Ensemble]:
        if best in paths:
            best.write_bytes(trained.run.best(0).read_bytes())
        return load_ensembles(paths, *arguments, **named)  # type: ignore[arg-type]

    loads = import_module("inference.cv.out_of_fold") if command == "score" else module
    monkeypatch.setattr(loads, "load_ensembles", load)
    with pytest.raises(
        Failure, match=r"fold1/best\.safetensors changed while it was read \(is it still training\?\)"
    ):
        module.main(trained.arguments)
    made = [file for file in trained.run.root.rglob("*-of-*.csv.gz") if "fold0" not in str(file)]
    assert len(made) == (0 if command != "pseudo" else 2), "of fold 1 nothing is kept"


def test_a_missing_checkpoint_is_named_and_the_old_cv_stays(trained: Trained) -> None:
    score(trained.arguments)
    before = trained.run.cv.read_bytes()
    trained.run.best(1).unlink()
    with pytest.raises(Failure, match=r"fold 1 is not trained.*make train FOLD=1"):
        score(trained.arguments)
    assert trained.run.cv.read_bytes() == before


def test_other_data_are_refused(trained: Trained, tiny_data: object) -> None:
    with pytest.raises(Failure, match="not those that run"):
        score([*trained.arguments, "--data", str(tiny_data)])


def test_a_doubled_or_missing_image_is_fatal(trained: Trained) -> None:
    from folds.split import photos_by_fold
    from inference.score import score_file

    data = DataFolder(trained.data)
    by_fold = photos_by_fold(trained.run.folds, data.train)
    rows = [(photo.img, "1 1") for photo in data.train]
    path = trained.run.root / "masks.csv"
    submission_file.write(path, [*rows, rows[0]])
    with pytest.raises(Failure, match=f"{rows[0][0]} occurs a second time"):
        score_file(path, data, by_fold)
    submission_file.write(path, rows[1:])
    with pytest.raises(Failure, match=f"no row for 1 of {len(rows)} images, such as {rows[0][0]}"):
        score_file(path, data, by_fold)
    with path.open("a", newline="") as file:
        csv.writer(file).writerow((rows[0][0], "1 x"))
    with pytest.raises(Failure, match=f"line {len(rows) + 1}, {rows[0][0]}: token 2, 'x'"):
        score_file(path, data, by_fold)
