"""The split of the training cars into folds, and ``folds.csv``, the file that stores it.

All views of a car are in one fold. A network that has seen a car from one side recognizes it from another side, so
a split by image would give a CV that is too high.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from competition import csv_file
from competition.command import Failure
from competition.hint import hint
from competition.photo import Photo
from competition.plural import counted
from competition.run.folder import RunFolder

COLUMNS = ["img", "car", "fold"]
FOLD = re.compile("-?[0-9]{1,9}")


def split_by_car(photos: Sequence[Photo], areas: Sequence[float], folds: int, seed: int) -> list[int]:
    """The fold of each photo, in [0, folds): all photos of a car in one fold, and similar mask areas in all folds.

    Args:
        photos: the training photos.
        areas: the fraction of each photo's pixels that are car.
        folds: the number of folds.
        seed: seed of the shuffle.
    """
    # These take seconds to import, and only a new run needs them.
    import pandas as pd
    from sklearn.model_selection import StratifiedGroupKFold

    cars = pd.Series([photo.car for photo in photos])
    count = cars.nunique()
    if count == 1:
        raise Failure(
            f"{counted(len(photos), 'training photo')} of one car, {cars[0]}; each fold needs cars of its own; "
            "if they show several cars, set data.cars, for example to photo (docs/your-photos.md)"
        )
    if count < folds:
        raise Failure(
            f"{counted(count, 'car')} cannot be divided into {folds} folds; SET=split.folds={count} or fewer"
        )
    # Strata: classes of cars by mean area, at most 5, so few that every fold gets a car of each class. Quantiles of
    # ranks, because ranks are distinct and no class can be empty. Each car is repeated equally often, so that its
    # number of photos does not matter.
    rank = pd.Series(areas).groupby(cars).mean().rank(method="first").repeat(len(photos) // count)
    classes = pd.qcut(rank, q=max(1, min(5, count // folds)), labels=False).groupby(level=0).first()
    strata = cars.map(classes)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    fold_of = np.full(len(photos), -1)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(photos)), strata, groups=cars)):
        fold_of[held_out] = fold
    assert (fold_of >= 0).all()
    assert not pd.Series(fold_of).groupby(cars).nunique().gt(1).any(), "a car in two folds"
    return [int(fold) for fold in fold_of]


def folds_text(photos: Sequence[Photo], fold_of: Sequence[int]) -> str:
    """The content of folds.csv."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows((photo.img, photo.car, fold) for photo, fold in zip(photos, fold_of, strict=True))
    return text.getvalue()


def read_folds(path: Path) -> dict[str, int]:
    """The fold of each image name in folds.csv."""
    return {img: row.fold for img, row in _read(path).items()}


class Row(NamedTuple):
    """The car and the fold of an image."""

    car: str
    fold: int


def _read(path: Path) -> dict[str, Row]:
    """The rows of folds.csv by image name."""
    if not path.is_file():
        raise Failure(f"no split {path}; write it with `{hint('folds', RUN=RunFolder(path.parent).called)}`")
    advice = "restore the split that the run was trained with"
    rows: dict[str, Row] = {}
    fold_of_car: dict[str, int] = {}
    for line, (img, car, text) in csv_file.read(path, COLUMNS, advice).rows:
        if not FOLD.fullmatch(text):
            raise Failure(f"{path} line {line}: the fold is {text[:40]!r}, not a whole number; {advice}")
        fold = int(text)
        if img in rows:
            raise Failure(f"{path} line {line} names {img} twice; {advice}")
        rows[img] = Row(car, fold)
        if fold_of_car.setdefault(car, fold) != fold:
            folds = f"folds {fold_of_car[car]} and {fold}"
            raise Failure(f"{path} line {line} has car {car} in {folds}; all views of a car must be in one fold")
    numbers = sorted({row.fold for row in rows.values()})
    if len(numbers) < 2 or numbers != list(range(len(numbers))):
        folds = ", ".join(map(str, numbers)) or "of no photo"
        raise Failure(f"{path} has the folds {folds}; they must be 0, 1 and so on, without a gap")
    return rows


def photos_by_fold(path: Path, photos: Sequence[Photo]) -> dict[int, list[Photo]]:
    """The photos of each fold; folds.csv must name exactly these photos, and their cars."""
    rows = _read(path)
    different = sorted(rows.keys() ^ {photo.img for photo in photos})
    if different:
        raise Failure(
            f"{path} and the data folder differ in {counted(len(different), 'photo')}, such as {different[0]}; "
            "name the data folder of the run: DATA=..."
        )
    by_fold: dict[int, list[Photo]] = {fold: [] for fold in sorted({row.fold for row in rows.values()})}
    fold_of_car: dict[str, int] = {}
    for photo in photos:
        fold = rows[photo.img].fold
        # The car is taken from the photo's name, because the column `car` may have been edited.
        if fold_of_car.setdefault(photo.car, fold) != fold:
            raise Failure(
                f"{path} has photos of car {photo.car} in folds {fold_of_car[photo.car]} and {fold}, such as "
                f"{photo.img}; all views of a car must be in one fold"
            )
        by_fold[fold].append(photo)
    for photo in photos:
        if rows[photo.img].car != photo.car:
            raise Failure(
                f"{path} groups photos otherwise than data.cars: {photo.img} is of car {rows[photo.img].car} there, "
                f"and of car {photo.car} here; use another RUN, or the data.cars that the split was made with"
            )
    return by_fold
