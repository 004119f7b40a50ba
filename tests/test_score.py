"""The CV score."""

import re
import shutil
from collections.abc import Callable, Sequence
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
from competition.mask_file import read_mask
from competition.mask_table import read_rows
from competition.run.folder import RunFolder
from competition.run.records import CV
from folds.split import read_folds
from inference.engine.ensemble import Ensemble, load_ensembles
from inference.score import main as score
from submissions import submission_file


@pytest.fixture(scope="module")
def scored(trained_once: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run, scored with its own settings; treat it as read-only."""
    run = RunFolder(tmp_path_factory.mktemp("scored") / "small")
    shutil.copytree(trained_once.run.root, run.root)
    scored = Trained(trained_once.data, run)
    score(scored.arguments)
    return scored


def codes(run: RunFolder) -> dict[str, str]:
    return {row.img: row.rle for row in read_rows(run.oof)}


def results(run: RunFolder) -> list[bytes]:
    """Everything that a score writes, except the paths in cv.json, and what depends on them."""
    cv = CV.read(run.cv).model_copy(update={"checkpoints": {}, "key": None}).model_dump_json()
    return [run.oof.read_bytes(), run.oof_scores.read_bytes(), cv.encode()]


def keep_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the command were killed after its results are written."""
    monkeypatch.setattr("inference.shards.ShardedJob.remove", lambda _job: None)


def test_the_cv_is_the_score_of_the_written_masks(scored: Trained) -> None:
    """Compared with the mask files, decoded, pixel by pixel, without the code that computes the CV."""
    cv, rows, data = CV.read(scored.run.cv), codes(scored.run), DataFolder(scored.data)
    assert rows.keys() == {photo.img for photo in data.train}
    dice = {}
    for photo in data.train:
        file = data.mask_file(photo)
        assert file is not None
        truth = read_mask(file).labels
        dice[photo.img] = metrics.dice(rle.decode(rows[photo.img], (160, 240)), truth)
    assert cv.dice == pytest.approx(np.mean(list(dice.values())), abs=1e-9)
    assert cv.dice > 0.9, "the small network has learned"
    fold_of = read_folds(scored.run.folds)
    for fold in cv.folds:
        own = [dice[img] for img, number in fold_of.items() if number == fold.fold]
        assert fold.images == len(own)
        assert fold.dice == pytest.approx(np.mean(own), abs=1e-9)
    assert cv.spread == pytest.approx(np.std([fold.dice for fold in cv.folds], ddof=1))
    scores = pd.read_csv(scored.run.oof_scores)
    assert list(scores.columns) == ["img", "car", "view", "fold", "dice", "iou"]
    assert np.allclose(scores["dice"], [dice[img] for img in scores["img"]], atol=1e-6)
    assert np.allclose(scores["iou"], scores["dice"] / (2 - scores["dice"]), atol=2e-6)


def test_a_fold_is_predicted_by_the_network_that_did_not_see_it(scored: Trained, trained: Trained) -> None:
    """With the weights of the folds exchanged, every image is predicted by a network that has seen it."""
    honest = codes(scored.run)
    exchange_networks(trained.run)
    score(trained.arguments)
    leaked = codes(trained.run)
    assert sum(honest[img] != leaked[img] for img in honest) > len(honest) * 0.9


def test_a_killed_score_resumes_to_the_same_bytes(
    scored: Trained, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    keep_shards(monkeypatch)
    score(trained.arguments)
    assert results(trained.run) == results(scored.run)
    assert [path.stat().st_mtime_ns for path in written] == times, "finished shards are reused, with their numbers"


def test_a_given_and_a_tuned_threshold(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    score([*trained.arguments, "--set", "inference.threshold=0.9"])
    cv = CV.read(trained.run.cv)
    assert cv.threshold == pytest.approx(0.9, abs=0.003)
    assert not cv.tuning.used
    curve = dict(zip(cv.curve.thresholds, cv.curve.dice, strict=True))
    assert cv.dice == pytest.approx(curve[cv.threshold], abs=1e-9)
    assert list(cv.checkpoints.values()) == [sha256(Path(path)) for path in cv.checkpoints]
    assert len(cv.checkpoints) == len(cv.folds)

    monkeypatch.setattr("inference.cv.tuning.SMALLEST_GAIN", -1.0)  # use the choice even if it gains nothing
    score(trained.arguments)
    cv = CV.read(trained.run.cv)
    assert cv.tuning.used
    assert cv.dice == pytest.approx(cv.tuning.dice, abs=1e-9)
    assert cv.threshold == cv.tuning.threshold


def test_gains_of_tta_equal_the_differences_of_separate_scores(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    half = [*trained.arguments, "--set", "inference.threshold=0.5"]
    single = {}
    for tta in ("identity", "hflip"):
        score([*half, f"inference.tta=[{tta}]"])
        single[tta] = CV.read(trained.run.cv)
        assert [row.what for row in single[tta].gains] == ["tuned threshold"], "a single TTA has no rows"
    capsys.readouterr()
    score(half)
    screen, cv = capsys.readouterr().out, CV.read(trained.run.cv)
    identity, hflip, both, threshold = cv.gains
    for row, tta in ((identity, "identity"), (hflip, "hflip")):
        assert row.what == tta
        assert row.dice == pytest.approx(single[tta].dice, abs=1e-12)
    assert identity.gain is None
    gains = [single["hflip"].folds[fold].dice - single["identity"].folds[fold].dice for fold in (0, 1)]
    assert hflip.over == both.over == "identity"
    assert hflip.gain == pytest.approx(np.mean(gains), abs=1e-12)
    assert hflip.spread == pytest.approx(np.std(gains, ddof=1), abs=1e-12)
    assert hflip.folds == sum(gain > 0 for gain in gains)
    assert both.what == "identity + hflip"
    assert both.dice == pytest.approx(cv.dice, abs=1e-4), "components are rounded before they are mixed"
    assert threshold.note == f"chosen on the other folds, not used; on all folds {cv.tuning.threshold:g}"
    assert threshold.gain == cv.tuning.gain
    for row in (hflip, both, threshold):
        line = f"{row.dice:.5f}  {row.gain:+.5f}  {row.spread:.5f}  {row.folds} of 2, over {row.over}"
        assert re.search(rf"^{re.escape(row.what)} +{re.escape(line)}", screen, re.MULTILINE)
    for dice, iou in ((cv.dice, cv.iou), *((fold.dice, fold.iou) for fold in cv.folds)):
        assert f"{dice:.5f}  {iou:.5f}" in screen


def test_scores_against_a_mask_that_changed_are_not_reused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(trained.data, tmp_path / "data"))
    call = [*trained.arguments, "--data", str(data), "--set", "inference.threshold=0.5", "inference.tta=[identity]"]
    call.append("data.min_area=0")
    keep_shards(monkeypatch)
    right = (data / "train_masks.csv").read_text()
    img, code = right.splitlines()[1].split(",")
    (data / "train_masks.csv").write_text(right.replace(code, "1 5"))
    score(call)
    (data / "train_masks.csv").write_text(right)
    score(call)
    cv = CV.read(trained.run.cv)
    assert cv.tuning.dice_at_half == pytest.approx(cv.dice, abs=1e-9), f"{img} has the number of the first call"


def test_the_same_call_again_does_nothing_and_prints_the_cv(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run is scored again if anything changes that its scores depend on."""
    call = [*trained.arguments, "--set", "inference.threshold=0.5"]
    score(call)
    before, screen = results(trained.run), capsys.readouterr().out

    def score_again(*_: object) -> None:
        raise ScoredAgain

    monkeypatch.setattr("inference.score.OutOfFoldJob.predict", score_again)
    monkeypatch.setattr("competition.mask_area.mask_areas", score_again)
    score(call)
    again = capsys.readouterr().out
    assert screen[screen.index("\nfold  cars") : screen.index(str(trained.run.cv))] in again
    assert f"{trained.run.cv} is complete: 64 images, 2 networks; nothing to do\n" in again
    assert results(trained.run) == before

    kept = {path: path.read_bytes() for path in trained.run.root.rglob("*") if path.is_file()}
    for spoil in SPOILED:
        more = spoil(trained.run)
        with pytest.raises(ScoredAgain):
            score([*call, *more] if isinstance(more, list) else call)
        for path, content in kept.items():
            path.write_bytes(content)
    score(call)


class ScoredAgain(Exception):
    """Instead of a prediction."""


SPOILED: list[Callable[[RunFolder], object]] = [
    lambda run: run.oof.unlink(),
    lambda run: run.oof_scores.write_bytes(run.oof_scores.read_bytes()[:-1]),
    lambda run: run.cv.write_text("{}"),
    lambda run: run.cv.unlink(),
    exchange_networks,
    lambda _: ["inference.threshold=0.6"],
    lambda _: ["inference.tta=[identity]"],
    lambda _: ["inference.member_weights=equal"],
    lambda _: ["data.min_area=0"],
]


@pytest.mark.parametrize("command", ["score", "predict", "pseudo"])
def test_weights_that_change_during_a_command_are_rejected(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Otherwise predictions of the new weights would be stored under the hash of the old ones."""
    best = trained.run.best(1)

    def load(paths: Sequence[Path], *arguments: object, **named: object) -> list[Ensemble]:
        if best in paths:
            best.write_bytes(trained.run.best(0).read_bytes())
        return load_ensembles(paths, *arguments, **named)

    monkeypatch.setattr("inference.shards.load_ensembles", load)
    with pytest.raises(
        Failure, match=r"fold1/best\.safetensors changed while it was read \(is it still training\?\)"
    ):
        import_module(f"inference.{command}").main(trained.arguments)
    made = [file for file in trained.run.root.rglob("*-of-*.csv.gz") if "fold0" not in str(file)]
    assert not made, "nothing of fold 1 is kept"


def test_other_data_are_rejected(trained: Trained, tiny_data: Path) -> None:
    with pytest.raises(Failure, match="not those that run"):
        score([*trained.arguments, "--data", str(tiny_data)])
