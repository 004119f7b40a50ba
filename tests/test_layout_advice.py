from pathlib import Path

import pytest

from competition.command import Failure
from competition.data_folder import DataFolder


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (
            ["train.zip", "test.zip"],
            "no folder train or train_hq; train.zip is there: `make data FROM=",
        ),
        (
            ["train_hq.zip"],
            "train_hq.zip is there: `make data FROM=mine DATA=mine-unpacked` unpacks Kaggle's",
        ),
        (["Train/a.jpg"], "it has Train; rename it to train"),
        (["train"], "train is a file or a broken link, not a folder"),
        (["my cars/train/a.jpg"], "the data are one folder deeper: DATA='mine/my cars'"),
        (
            ["imgs/a.jpg", "masks/a.png"],
            "it has images in imgs, masks; make a data folder of them: make ",
        ),
        (["JPEGImages/a/b.jpg", "gt/a.png"], "make adopt IMAGES=mine/JPEGImages MASKS=mine/gt DATA=data/mine"),
        (
            ["a.jpg", "a.json"],
            "it has images in itself; make a data folder of them: make adopt IMAGES=mine MASKS=...",
        ),
        (["notes.txt"], "DATA must be in Kaggle's layout (docs/your-photos.md)"),
        (
            ["train/train/a.jpg"],
            "images of mine/train are in a folder inside it, mine/train/train; move them up",
        ),
        (["train/notes.txt"], "mine/train holds no photos (.jpg, .jpeg, "),
        (["train/notes.txt"], "; it has notes.txt"),
        (["train/a (1).jpg", "train/a.jpg"], "a (1).jpg beside a.jpg"),
        (["train/a.jpg", "train/b.gif"], "images of a kind that is not read here (1): b.gif"),
    ],
)
def test_the_message_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], advice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in names:
        (Path("mine") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("mine") / name).touch()
    with pytest.raises(Failure) as failure:
        _ = DataFolder(Path("mine")).train
    assert advice in str(failure.value)


def test_the_folder_of_the_photos_is_no_data_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jpg").touch()
    with pytest.raises(Failure, match=f"name the folder that holds train: DATA={tmp_path}$"):
        _ = DataFolder(tmp_path / "train").train


def test_test_photos_are_no_photos_to_adopt(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").touch()
    with pytest.raises(Failure, match="no folder test or test_hq; DATA must be in Kaggle's layout"):
        _ = DataFolder(tmp_path).test
