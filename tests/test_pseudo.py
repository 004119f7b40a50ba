"""Pseudo-labels: made by each fold's own networks, learned from by the same fold, never a way around the split."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CARS
from sample_records import make_cv
from trained_run import SMALL, Trained, exchange

from competition import metrics, rle
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.mask_table import read_rows
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.run.records import FoldScore
from competition.settings.resolve import load_yaml, resolve
from folds.split import photos_by_fold
from folds.train import main as train
from folds.train import make_trainer
from inference.engine.ensemble import load_ensembles
from inference.engine.host_masks import Prediction, full_size, threshold_at
from inference.engine.stream import predict_photos
from inference.predict import predict_to
from inference.pseudo import main as pseudo
from submissions import submission_file

KEEP = ["--set", "inference.pseudo=0.25"]


def codes(path: Path) -> dict[str, str]:
    return {row.img: row.rle for row in read_rows(path)}


def certainty(photo: Photo, predictions: Sequence[Prediction]) -> tuple[float, str]:
    return threshold_at(full_size(predictions, photo.shape), 128).expected_dice, photo.img


@pytest.fixture
def labelled(trained: Trained) -> Trained:
    """A run with pseudo-labels."""
    pseudo([*trained.arguments, *KEEP])
    return trained


def test_each_fold_labels_its_most_certain_photos_with_its_own_networks(labelled: Trained, tmp_path: Path) -> None:
    run = labelled.run
    data, settings = DataFolder(labelled.data), resolve(load_yaml(run.settings))
    found = [codes(run.pseudo(fold)) for fold in (0, 1)]
    for fold in (0, 1):
        ensembles = load_ensembles([run.best(fold)], settings.inference, device=torch.device("cpu"))
        predict_to(tmp_path / "own.csv.gz", data.test, ensembles, threshold=0.5, settings=settings.inference)
        own = dict(submission_file.read_shard(tmp_path / "own.csv.gz"))
        assert len(found[fold]) == 8, "a quarter of 32"
        assert found[fold].items() <= own.items()
        certain = [certainty(*each) for each in predict_photos(data.test, ensembles, settings.inference)]
        assert found[fold].keys() == {img for _, img in sorted(certain)[-8:]}
    assert found[0] != found[1]
    assert not list((run.root / "pseudo").glob("shards/*")), "all shards are removed"
    truth = codes(labelled.data / "solution.csv")
    assert np.mean([metrics.dice_rle(code, truth[img]) for img, code in found[0].items()]) > 0.9

    before = [run.pseudo(fold).read_bytes() for fold in (0, 1)]
    pseudo([*labelled.arguments, *KEEP])
    assert [run.pseudo(fold).read_bytes() for fold in (0, 1)] == before


def test_other_photos_of_the_same_names_are_labelled_again(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(trained.data, tmp_path / "data"))
    call = [*trained.arguments, "--data", str(data), "--set", "inference.pseudo=1", "inference.tta=[identity]"]
    monkeypatch.setattr("inference.shards.ShardedJob.remove", lambda _job: None)  # as if it had been killed
    pseudo(call)
    before = codes(trained.run.pseudo(0))
    one, two = sorted((data / "test").iterdir())[:2]
    exchange(one, two)
    pseudo(call)
    after = codes(trained.run.pseudo(0))
    assert (after[one.name], after[two.name]) == (before[two.name], before[one.name])
    assert before[one.name] != before[two.name]


def learner(trained: Trained, tmp_path: Path, *more: str) -> list[str]:
    """The command line of a run that learns from the pseudo-labels."""
    named = ["--run", str(tmp_path / "runs" / "learner"), "--data", str(trained.data), "--preset", "demo"]
    return [*named, "--set", *SMALL, "train.epochs=1", f"data.pseudo={trained.run.root}", *more]


def test_a_fold_learns_from_the_masks_and_from_its_own_pseudo_labels(labelled: Trained, tmp_path: Path) -> None:
    trained = labelled
    run = RunFolder(tmp_path / "runs" / "learner")
    train(["--fold", "1", *learner(trained, tmp_path)])
    assert run.folds.read_bytes() == trained.run.folds.read_bytes()
    data, settings = DataFolder(trained.data), resolve(load_yaml(run.settings))
    by_fold = photos_by_fold(run.folds, data.train)
    shutil.rmtree(trained.run.root)  # the run has its own copy of the labels
    samples = make_trainer(run, settings, data, by_fold, 1).loader.dataset
    labels = codes(run.learned_pseudo(1))
    learned = [photo.img for photo in samples.photos]
    assert sorted(learned) == sorted([*(photo.img for photo in by_fold[0]), *labels])
    assert len(labels) == 8
    for img, code in labels.items():
        expected = samples.frame.target(rle.decode(code, (160, 240)))
        assert np.array_equal(samples.read(learned.index(img)).target, expected)


def test_another_split_is_a_leak(trained: Trained, tmp_path: Path) -> None:
    command = learner(trained, tmp_path)
    run = RunFolder(tmp_path / "runs" / "learner")
    run.root.mkdir(parents=True)
    rows = trained.run.folds.read_text().splitlines()
    run.folds.write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    with pytest.raises(Failure, match="may have seen cars that are held out here, which is a leak"):
        train(["--fold", "0", *command])


def test_missing_labels_and_those_of_unknown_photos_are_rejected(trained: Trained, tmp_path: Path) -> None:
    command = ["--fold", "0", *learner(trained, tmp_path)]
    reason = r"no pseudo-labels .*fold0\.csv\.gz; make them first: make pseudo RUN=.*/small"
    with pytest.raises(Failure, match=reason):
        train(command)
    assert not (tmp_path / "runs" / "learner" / "settings.yaml").exists()
    submission_file.write(trained.run.pseudo(0), [(f"{CARS[0]}_01.jpg", "1 5")])
    with pytest.raises(Failure, match=rf"labels {CARS[0]}_01\.jpg, which is not a test photo"):
        train(command)


def test_a_label_of_a_held_out_car_is_a_leak(trained: Trained, tmp_path: Path) -> None:
    data = Path(shutil.copytree(trained.data, tmp_path / "data"))
    folds = photos_by_fold(trained.run.folds, DataFolder(data).train)
    held_out = folds[0][0]
    shutil.copy(held_out.path, data / "test" / held_out.img)
    submission_file.write(trained.run.pseudo(0), [(held_out.img, "1 5")])
    reason = rf"pseudo\.csv\.gz labels {held_out.img}, and car {held_out.car} is held out .*; name a new RUN"
    with pytest.raises(Failure, match=reason):
        train(["--fold", "0", *learner(trained, tmp_path), "--data", str(data)])


def test_the_threshold_is_the_one_chosen_on_the_other_folds(trained: Trained) -> None:
    """The threshold for the test set was chosen on the images of this fold, too."""
    folds = [
        FoldScore(fold=fold, cars=2, images=32, dice=0.9, iou=0.8, threshold=threshold)
        for fold, threshold in enumerate((0.9, 0.5))
    ]
    make_cv(threshold=0.1, folds=folds).write(trained.run.cv)
    call = [*trained.arguments, "--set", "inference.tta=[identity]", "inference.pseudo=1"]
    pseudo(call)
    chosen = [codes(trained.run.pseudo(fold)) for fold in (0, 1)]
    pseudo([*call, "inference.threshold=0.5"])
    half = [codes(trained.run.pseudo(fold)) for fold in (0, 1)]
    assert all(rle.area(rle.parse(chosen[0][img])) < rle.area(rle.parse(half[0][img])) for img in half[0])
    assert chosen[1] == half[1]
