"""The split: whole cars, every image once, balanced, reproducible; and a damaged folds.csv is refused."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from competition.command import Failure
from competition.data_folder import DataFolder, Photo, photo_at
from competition.run.folder import RunFolder
from competition.settings.resolve import resolve
from competition.settings.schema import Settings
from folds.begin import ensure_split, main, mask_area
from folds.split import folds_text, photos_by_fold, read_folds, split_by_car


def cars(count: int, views: int = 16) -> tuple[list[Photo], list[float]]:
    """Photos of cars from 10 % to 40 % of the picture, in no order of size."""
    rng = np.random.default_rng(5)
    photos, areas = [], []
    for car in range(count):
        size = rng.uniform(0.1, 0.4)
        for view in range(1, views + 1):
            photos.append(photo_at(Path(f"{car:012x}_{view:02d}.jpg")))
            areas.append(size * rng.uniform(0.9, 1.1))
    return photos, areas


@pytest.mark.parametrize(("count", "folds"), [(318, 5), (50, 7), (11, 5), (5, 5), (2, 2)])
def test_cars_stay_whole_and_folds_are_alike(count: int, folds: int) -> None:
    photos, areas = cars(count)
    fold_of = split_by_car(photos, areas, folds, seed=1)
    assert len(fold_of) == len(photos)
    assert len({(photo.car, fold) for photo, fold in zip(photos, fold_of, strict=True)}) == count
    sizes = Counter(fold_of)
    assert sorted(sizes) == list(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 16 * max(1, count // 40)


def test_cars_may_have_unequal_numbers_of_photos() -> None:
    """As many classes of size as cars allow, each with as many cars, whatever part of the photos they are."""
    photos, areas = cars(29, views=4)
    many = [photo_at(Path(f"many_{view:03d}.jpg")) for view in range(1, 101)]
    fold_of = split_by_car([*photos, *many], [*areas, *[0.25] * 100], 5, seed=1)
    assert len({(photo.car, fold) for photo, fold in zip([*photos, *many], fold_of, strict=True)}) == 30
    assert sorted(set(fold_of)) == list(range(5))


def test_cars_may_be_alike_in_size() -> None:
    photos, areas = cars(12, views=2)
    assert sorted(Counter(split_by_car(photos, [0.2] * len(areas), 3, seed=1)).values()) == [8, 8, 8]


def test_the_split_of_alike_cars_is_what_it_always_was() -> None:
    """318 cars of 16 views, as Carvana has: quantiles of the cars alone would move four of them to another class."""
    fold_of = split_by_car(*cars(318), folds=5, seed=1)
    assert hashlib.sha256(bytes(fold_of)).hexdigest()[:16] == "310e32d9ec665a0f"


def test_one_car_is_named() -> None:
    with pytest.raises(Failure, match=r"all 3 training photos are of one car, 000000000000, .*<car>_<view>.jpg"):
        split_by_car(*cars(1, views=3), folds=2, seed=1)


def test_folds_have_alike_areas() -> None:
    photos, areas = cars(318)
    fold_of = np.array(split_by_car(photos, areas, 5, seed=1))
    means = [np.asarray(areas)[fold_of == fold].mean() for fold in range(5)]
    assert max(means) - min(means) < 0.01


def test_the_seed_alone_decides() -> None:
    photos, areas = cars(40, views=2)
    assert split_by_car(photos, areas, 5, seed=1) == split_by_car(photos, areas, 5, seed=1)
    assert split_by_car(photos, areas, 5, seed=1) != split_by_car(photos, areas, 5, seed=2)


def test_more_folds_than_cars_are_refused() -> None:
    with pytest.raises(Failure, match=r"4 cars cannot be divided into 5 folds; SET=split.folds=4"):
        split_by_car(*cars(4), folds=5, seed=1)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    photos, areas = cars(6, views=3)
    fold_of = split_by_car(photos, areas, 3, seed=1)
    (tmp_path / "folds.csv").write_text(folds_text(photos, fold_of))
    assert read_folds(tmp_path / "folds.csv") == {
        photo.img: fold for photo, fold in zip(photos, fold_of, strict=True)
    }
    by_fold = photos_by_fold(tmp_path / "folds.csv", photos)
    assert sorted(photo.img for fold in by_fold.values() for photo in fold) == sorted(photo.img for photo in photos)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("a_01.jpg,a,0\na_02.jpg,a,1\nb_01.jpg,b,1\n", "car a in 2 folds"),
        ("a_01.jpg,a_01,0\na_02.jpg,a_02,1\nb_01.jpg,b,1\n", "car a in folds 0 and 1, such as a_02.jpg; all views"),
        ("a_01.jpg,a,0\na_01.jpg,a,0\nb_01.jpg,b,1\n", "a_01.jpg twice"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nc_01.jpg,c,1\n", "differ in 2 photos, such as b_01.jpg"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,1\nb_02.jpg,b,1\n", "differ in 1 photos, such as b_02.jpg"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,zero\n", "cannot read .*folds.csv"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,2\n", "folds 0, 2"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,-1\n", "folds -1, 0"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,0\n", "folds 0; they must"),
    ],
)
def test_a_damaged_split_is_refused(tmp_path: Path, rows: str, reason: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(f"img,car,fold\n{rows}")
    photos = [photo_at(Path(name)) for name in ("a_01.jpg", "a_02.jpg", "b_01.jpg")]
    with pytest.raises(Failure, match=reason):
        photos_by_fold(path, photos)


def test_another_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folds.csv").write_text("image,car,fold\na_01.jpg,a,0\n")
    with pytest.raises(Failure, match="line 1: the header is image,car,fold, not img,car,fold"):
        read_folds(tmp_path / "folds.csv")


def test_a_missing_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=f"make folds RUN={tmp_path}/mine"):
        read_folds(tmp_path / "mine" / "folds.csv")


def three_folds() -> Settings:
    return resolve({"split": {"folds": 3}})


def test_the_split_in_the_run_is_the_truth(tiny_data: Path, tmp_path: Path) -> None:
    data, run = DataFolder(tiny_data), RunFolder(tmp_path / "run")
    first = ensure_split(run, three_folds(), data)
    assert sorted(first) == [0, 1, 2]
    moved = run.folds.read_text().replace(",0\n", ",x\n").replace(",1\n", ",0\n").replace(",x\n", ",1\n")
    run.folds.write_text(moved)
    second = ensure_split(run, three_folds(), data)
    assert (second[0], second[1], second[2]) == (first[1], first[0], first[2])


def test_a_refused_split_leaves_no_run(tiny_data: Path, tmp_path: Path) -> None:
    """Else the run would hold on to the settings that were refused."""
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Failure, match="5 cars cannot be divided into 9 folds"):
        ensure_split(run, resolve({"split": {"folds": 9}}), DataFolder(tiny_data))
    assert not run.root.exists()


def test_what_cannot_be_trained_gets_no_split(tiny_data: Path, tmp_path: Path) -> None:
    over = ["split.folds=2", "input.height=96", "network.depth=5", "network.stem=2"]
    with pytest.raises(Failure, match=r"^input\.height=96 is not a multiple of 64"):
        main(["--run", str(tmp_path / "run"), "--data", str(tiny_data), "--preset", "demo", "--set", *over])
    assert not (tmp_path / "run").exists()


def test_other_data_are_refused(tiny_data: Path, own_data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    ensure_split(run, three_folds(), DataFolder(tiny_data))
    run.folds.unlink()
    next((own_data / "train").iterdir()).unlink()
    with pytest.raises(Failure, match="not those that run run was made from"):
        ensure_split(run, three_folds(), DataFolder(own_data))
    assert not run.folds.exists()


def test_the_area_is_that_of_the_mask(tiny_data: Path) -> None:
    data = DataFolder(tiny_data)
    for photo in data.train[:3]:
        assert mask_area(data, photo) == pytest.approx(data.truth(photo).mean(), abs=1e-12)
