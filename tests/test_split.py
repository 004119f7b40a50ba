"""The split keeps cars whole, is balanced and reproducible; a damaged folds.csv is rejected."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from competition.command import Failure
from competition.data_folder import photo_at
from competition.photo import Photo
from folds.split import folds_text, photos_by_fold, read_folds, split_by_car


def cars(count: int, views: int = 16) -> tuple[list[Photo], list[float]]:
    """Photos of cars that cover 10 % to 40 % of the picture, in random order of size."""
    rng = np.random.default_rng(5)
    photos, areas = [], []
    for car in range(count):
        size = rng.uniform(0.1, 0.4)
        for view in range(1, views + 1):
            photos.append(photo_at(Path(f"{car:012x}_{view:02d}.jpg")))
            areas.append(size * rng.uniform(0.9, 1.1))
    return photos, areas


@pytest.mark.parametrize(("count", "folds"), [(318, 5), (50, 7), (11, 5), (5, 5), (2, 2)])
def test_cars_stay_whole_and_folds_have_similar_sizes(count: int, folds: int) -> None:
    photos, areas = cars(count)
    fold_of = split_by_car(photos, areas, folds, seed=1)
    assert len(fold_of) == len(photos)
    assert len({(photo.car, fold) for photo, fold in zip(photos, fold_of, strict=True)}) == count
    sizes = Counter(fold_of)
    assert sorted(sizes) == list(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 16 * max(1, count // 40)


def test_cars_may_have_different_numbers_of_photos() -> None:
    photos, areas = cars(29, views=4)
    photos += [replace(photo_at(Path(f"many_{view:03d}.jpg")), car="many") for view in range(1, 101)]
    fold_of = split_by_car(photos, [*areas, *[0.25] * 100], 5, seed=1)
    assert len({(photo.car, fold) for photo, fold in zip(photos, fold_of, strict=True)}) == 30
    assert sorted(set(fold_of)) == list(range(5))


def test_cars_may_have_equal_areas() -> None:
    photos, areas = cars(12, views=2)
    assert sorted(Counter(split_by_car(photos, [0.2] * len(areas), 3, seed=1)).values()) == [8, 8, 8]


def test_the_split_of_carvana_does_not_change() -> None:
    """With 318 cars of 16 views, as Carvana has."""
    photos, areas = cars(318)
    fold_of = split_by_car(photos, areas, folds=5, seed=1)
    assert hashlib.sha256(bytes(fold_of)).hexdigest()[:16] == "310e32d9ec665a0f"
    means = [
        np.mean([area for area, other in zip(areas, fold_of, strict=True) if other == fold]) for fold in range(5)
    ]
    assert max(means) - min(means) < 0.01
    assert fold_of != split_by_car(photos, areas, folds=5, seed=2)


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        (1, r"3 training photos of one car, 000000000000; .* set data.cars, for example to photo"),
        (4, r"4 cars cannot be divided into 5 folds; SET=split.folds=4"),
    ],
)
def test_too_few_cars_are_rejected(count: int, reason: str) -> None:
    with pytest.raises(Failure, match=reason):
        split_by_car(*cars(count, views=3), folds=5, seed=1)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    photos, areas = cars(6, views=3)
    fold_of = split_by_car(photos, areas, 3, seed=1)
    file = tmp_path / "folds.csv"
    file.write_text(folds_text(photos, fold_of))
    assert read_folds(file) == {photo.img: fold for photo, fold in zip(photos, fold_of, strict=True)}
    for fold, members in photos_by_fold(file, photos).items():
        assert members == [photo for photo, other in zip(photos, fold_of, strict=True) if other == fold]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("a_01.jpg,a,0\na_02.jpg,a,1\nb_01.jpg,b,1\n", "line 3 has car a in folds 0 and 1; all views"),
        ("a_01.jpg,a_01,0\na_02.jpg,a_02,1\nb_01.jpg,b,1\n", "car a in folds 0 and 1, such as a_02.jpg; all views"),
        (
            "a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,c,1\n",
            "data.cars: b_01.jpg is of car c there, and of car b here",
        ),
        ("a_01.jpg,a,0\na_01.jpg,a,0\nb_01.jpg,b,1\n", "line 3 names a_01.jpg twice"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nc_01.jpg,c,1\n", "differ in 2 photos, such as b_01.jpg"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,1\nb_02.jpg,b,1\n", "differ in 1 photo, such as b_02.jpg"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,zero\n", "line 4: the fold is 'zero', not a whole number; restore"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,1.0\n", "line 4: the fold is '1.0', not a whole number; restore"),
        ("a_01.jpg,a,0\na_02.jpg,a\n", "line 3: 2 fields, not the 3 of img,car,fold; restore"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,2\n", "folds 0, 2"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,-1\n", "folds -1, 0"),
        ("a_01.jpg,a,0\na_02.jpg,a,0\nb_01.jpg,b,0\n", "folds 0; they must"),
    ],
)
def test_a_damaged_split_is_rejected(tmp_path: Path, rows: str, reason: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(f"img,car,fold\n{rows}")
    photos = [photo_at(Path(name)) for name in ("a_01.jpg", "a_02.jpg", "b_01.jpg")]
    with pytest.raises(Failure, match=reason):
        photos_by_fold(path, photos)


def test_a_split_that_a_spreadsheet_program_has_saved(tmp_path: Path) -> None:
    """With a byte order mark and Windows line ends it is read; with semicolons the error says so."""
    path = tmp_path / "folds.csv"
    path.write_bytes(b"\xef\xbb\xbfimg,car,fold\r\na_01.jpg,a,0\r\nb_01.jpg,b,1\r\n\r\n")
    assert read_folds(path) == {"a_01.jpg": 0, "b_01.jpg": 1}
    path.write_text("img;car;fold\na_01.jpg;a;0\n")
    with pytest.raises(Failure, match=r"line 1: the header is 'img;car;fold', .*; save the file with commas"):
        read_folds(path)


def test_a_line_separator_in_a_name_is_no_end_of_a_line(tmp_path: Path) -> None:
    photos = [photo_at(Path(name)) for name in ("a\u2028_01.jpg", "b\n_01.jpg", 'c"\x85,_01.jpg', "d\u2029.jpg")]
    file = tmp_path / "folds.csv"
    file.write_bytes(folds_text(photos, [0, 1, 0, 1]).encode())
    assert list(read_folds(file).values()) == [0, 1, 0, 1]
    assert [len(members) for members in photos_by_fold(file, photos).values()] == [2, 2]


def test_another_header_and_a_missing_file_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=f"make folds RUN={tmp_path}"):
        read_folds(tmp_path / "folds.csv")
    (tmp_path / "folds.csv").write_text("image,car,fold\na_01.jpg,a,0\n")
    with pytest.raises(Failure, match="line 1: the header is 'image,car,fold', not 'img,car,fold'"):
        read_folds(tmp_path / "folds.csv")


def test_names_match_whatever_their_unicode_form(tmp_path: Path) -> None:
    (tmp_path / "folds.csv").write_text("img,car,fold\nKa\u0308fer.jpg,Ka\u0308fer,0\nb.jpg,b,1\n", encoding="utf-8")
    photos = [photo_at(Path("K\xe4fer.jpg")), photo_at(Path("b.jpg"))]
    assert photos_by_fold(tmp_path / "folds.csv", photos) == {0: [photos[0]], 1: [photos[1]]}
