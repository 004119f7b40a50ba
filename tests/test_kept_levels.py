"""Levels that are kept while a score is under way: its networks run once."""

import zlib
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trained_run import Trained, variant

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.run.records import CV
from competition.settings.schema import Inference
from folds.frame import Frame
from inference.cv import kept_levels
from inference.cv.kept_levels import Predicted, with_levels
from inference.cv.mixtures import MemberWeights, grid
from inference.engine.ensemble import Ensemble, Means, load_ensembles
from inference.engine.host_masks import Prediction
from inference.engine.stream import map_in_threads, predict_photos
from inference.score import main as score

HALF = "inference.threshold=0.5"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each batch that an ensemble predicts."""
    batches: list[int] = []
    predict = Ensemble.predict

    def counting(self: Ensemble, images: Tensor, **options: Any) -> Means:
        batches.append(len(images))
        return predict(self, images, **options)

    monkeypatch.setattr(Ensemble, "predict", counting)
    return batches


@pytest.fixture
def use_every_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and thresholds are used even if they gain nothing."""
    monkeypatch.setattr("inference.cv.tuning.SMALLEST_GAIN", -1.0)


@pytest.mark.usefixtures("use_every_choice")
def test_a_score_with_tuned_weights_and_threshold_runs_the_networks_once(trained: Trained, seen: list[int]) -> None:
    other = variant(trained, "other", {0: -0.6, 1: 0.9})
    score(["--runs", str(trained.run.root), str(other.root), "--set", "inference.tta=[identity]"])
    combined = RunFolder(trained.run.root.parent / "small+other")
    cv = CV.read(combined.cv)
    assert cv.tuning.used
    assert cv.member_weights
    assert len({*cv.member_weights.values()}) == 2, "not equal weights"
    assert sum(seen) == 64
    assert not (combined.root / "oof").exists(), "the levels are removed"


def test_kept_levels_are_what_the_networks_predict_with_each_of_the_weights(trained: Trained, tmp_path: Path) -> None:
    """Three members in two frames; the weights of some are 0, so that the frames are met in another order."""
    members = [
        trained.run,
        variant(trained, "larger", {0: 0.4}, size=(96, 128)),
        variant(trained, "other", {0: -0.6}),
    ]
    networks, weightings = [member.best(0) for member in members], grid(3)
    photos, how = DataFolder(trained.data).train[:4], Inference(batch_size=3, tta=["identity", "hflip"])

    def predict(weights: MemberWeights, others: Sequence[MemberWeights] = ()) -> Generator[Predicted]:
        ensembles = load_ensembles(networks, how, device=torch.device("cpu"), member_weights=weights)
        return predict_photos(photos, ensembles, how, others=others)

    def described(predicted: Iterable[Predicted]) -> list[Any]:
        return [
            (photo.img, [(each.frame, each.weight, each.levels.tobytes()) for each in predictions])
            for photo, predictions in predicted
        ]

    file = tmp_path / "levels.zip"
    ensembles = load_ensembles(networks, how, device=torch.device("cpu"))
    measured = map_in_threads(
        with_levels(lambda photo, _: (photo.img, "", np.ones(1))), predict(weightings[0], weightings), how
    )
    rows = kept_levels.keep(file, measured, ensembles, weightings)
    assert [img for img, _, _ in rows] == [photo.img for photo in photos]
    for weights in (weightings[0], weightings[7], (0.0, 0.5, 0.5), weightings[-1]):
        kept = kept_levels.read(file, photos, weights)
        assert kept
        assert described(kept) == described(predict(weights))
    assert kept_levels.read(file, photos, (0.2, 0.4, 0.4)) is None
    file.write_bytes(file.read_bytes()[:-1])
    assert kept_levels.read(file, photos, weightings[0]) is None, "damaged"


@pytest.mark.usefixtures("use_every_choice")
def test_images_whose_levels_are_lost_are_predicted_again(
    trained: Trained, seen: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if the score had been killed before it made the masks of the threshold."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("inference.cv.out_of_fold.OutOfFoldJob.predict_again", stop)
        score(trained.arguments)
    assert sum(seen) == 64
    files = sorted(trained.run.root.glob("oof/*/levels/fold*/*.zip"))
    assert [file.name for file in files] == ["00000-of-00002.zip", "00001-of-00002.zip"] * 2
    files[1].unlink()
    score(trained.arguments)
    assert sum(seen) == 64 + 16
    assert "note: the networks run again for 16 images, whose predictions are not kept\n" in capsys.readouterr().out
    cv = CV.read(trained.run.cv)
    assert cv.tuning.used
    assert cv.dice == pytest.approx(cv.tuning.dice, abs=1e-9)


def test_a_file_of_levels_is_whole_or_is_not_there(tmp_path: Path) -> None:
    frame, file, weights = Frame(2, 3, "resize"), tmp_path / "levels.zip", (1.0,)
    photos = [Photo(name, name, 1, Path(name)) for name in "ab"]
    levels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    measure = with_levels(lambda photo, _: (photo.img, "", np.ones(1)))

    def kept() -> Generator[Any]:
        ensembles: Any = [SimpleNamespace(frame=frame, indices=[0])]
        measured = (measure(photo, [Prediction(levels, frame, 1.0)]) for photo in photos)
        return kept_levels.keep(file, measured, ensembles, [weights])

    rows = kept()
    next(rows)
    rows.close()  # as if the score had been stopped
    assert list(tmp_path.iterdir()) == []
    assert len(list(kept())) == 2
    read = kept_levels.read(file, photos, weights)
    assert read
    assert all(np.array_equal(each.levels, levels) for _, [each] in read)
    packed = zlib.compress(levels.tobytes(), kept_levels.COMPRESSION)
    file.write_bytes(file.read_bytes().replace(packed, bytes(len(packed))))
    read = kept_levels.read(file, photos, weights)
    assert read
    with pytest.raises(Failure, match=r"levels\.zip is damaged .*; remove it and run the same command again"):
        list(read)


def test_nothing_is_kept_where_nothing_is_chosen(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.shards.ShardedJob.remove", lambda _job: None)
    score([*trained.arguments, "--set", HALF])
    assert not list(trained.run.root.rglob("*.zip"))


def test_room_is_limited_by_a_number_of_bytes_and_by_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "levels"
    assert kept_levels.is_room(folder), "the folder need not exist"
    (folder / "fold0").mkdir(parents=True)
    (folder / "fold0" / "a.zip").write_bytes(bytes(1000))
    assert kept_levels.is_room(folder)
    monkeypatch.setattr(kept_levels, "MOST", 1000)
    assert not kept_levels.is_room(folder)
    monkeypatch.setattr(kept_levels, "MOST", 1001)
    monkeypatch.setattr(kept_levels, "SPARE", 10**18)  # the disk is smaller
    assert not kept_levels.is_room(folder)
