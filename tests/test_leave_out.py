"""``data.leave_out`` removes photos from the training of every fold, never from the score."""

from pathlib import Path

import pytest
import torch

from competition.command import Failure
from competition.data_folder import DataFolder, photo_at
from competition.run.folder import RunFolder
from competition.settings.resolve import resolve
from folds.begin import ensure_split
from folds.leave_out import require_known, without
from folds.train import make_trainer

PHOTOS = [photo_at(Path(f"{car}_{view:02d}.jpg")) for car in ("aaaaaaaaaaaa", "bbbbbbbbbbbb") for view in (1, 2)]


@pytest.mark.parametrize(
    ("names", "remaining"),
    [
        ([], [0, 1, 2, 3]),
        (["aaaaaaaaaaaa_02.jpg"], [0, 2, 3]),
        (["bbbbbbbbbbbb"], [0, 1]),
        (["bbbbbbbbbbbb", "aaaaaaaaaaaa_01.jpg", "bbbbbbbbbbbb_01.jpg"], [1]),
    ],
)
def test_images_and_cars_are_left_out(names: list[str], remaining: list[int]) -> None:
    assert without(PHOTOS, names) == [PHOTOS[index] for index in remaining]


def test_leaving_out_everything_is_rejected() -> None:
    with pytest.raises(Failure, match=r"data.leave_out=\['aaaaaaaaaaaa', 'bbbbbbbbbbbb'\] leaves no photo to learn"):
        without(PHOTOS, ["aaaaaaaaaaaa", "bbbbbbbbbbbb"])


@pytest.mark.parametrize(
    ("name", "near"),
    [("aaaaaaaaaaaa_03.jpg", "aaaaaaaaaaaa_0"), ("bbbbbbbbbbb", "bbbbbbbbbbbb"), ("zzz", "")],
)
def test_an_unknown_name_is_rejected_with_the_closest(name: str, near: str) -> None:
    with pytest.raises(Failure, match=rf"data.leave_out names {name}, which is no image or car .* mean {near}.*\?$"):
        require_known(PHOTOS, [PHOTOS[0].car, PHOTOS[0].img, name])


def test_no_fold_learns_from_it_and_its_own_fold_is_scored_on_it(tiny_data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data, run = DataFolder(tiny_data), RunFolder(tmp_path / "run")
    left_out = data.train[0]
    settings = resolve(
        {
            "split": {"folds": 2},
            "data": {"leave_out": [left_out.img]},
            "input": {"height": 32, "width": 64},
            "network": {"width": 4, "depth": 1},
            "train": {"workers": 0},
        }
    )
    by_fold = ensure_split(run, settings, data)
    scored = []
    for fold in by_fold:
        trainer = make_trainer(run, settings, data, by_fold, fold)
        learned: list[object] = trainer.loader.dataset.photos  # type: ignore[attr-defined]
        assert left_out not in learned
        assert len(learned) == len(data.train) - len(by_fold[fold]) - (left_out not in by_fold[fold])
        scored += trainer.validation.photos
    assert sorted(scored, key=lambda photo: photo.img) == data.train


def test_names_are_left_out_whatever_their_unicode_form() -> None:
    photos = [*PHOTOS, photo_at(Path("Ka\u0308fer_01.jpg"))]
    for name in ("K\xe4fer", "Ka\u0308fer", "K\xe4fer_01.jpg", "Ka\u0308fer_01.jpg"):
        require_known(photos, [name])
        assert without(photos, [name]) == PHOTOS
