"""The split of the training cars into folds, and the file that is the truth about it.

All views of a car lie in one fold: a network that has seen a car from one side knows it from the other, and a
split by image reports a CV that is too good.
"""

import csv
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from competition import files, rle
from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder, Photo
from competition.files import held
from competition.images import shape_of
from competition.run.folder import RunFolder
from competition.run.open import add_run_arguments, open_run, split_source
from competition.run.records import record_run, require_same_data
from competition.settings.schema import Settings
from folds import ranks
from folds.device import default_preset, describe_device
from folds.leave_out import require_known

COLUMNS = ["img", "car", "fold"]


def split_by_car(photos: Sequence[Photo], areas: Sequence[float], folds: int, seed: int) -> list[int]:
    """Give every photo a fold, whole cars at a time, with alike mask areas in each fold.

    Args:
        photos: the training photos.
        areas: the part of each photo that is car, in [0, 1].
        folds: the number of folds.
        seed: of the shuffling.

    Returns:
        The fold of each photo, in [0, folds).

    Raises:
        Failure: there is only one car, or there are fewer cars than folds.
    """
    # scikit-learn takes seconds to import, and only a new run needs it.
    from sklearn.model_selection import StratifiedGroupKFold

    cars = pd.Series([photo.car for photo in photos])
    count = cars.nunique()
    if count == 1:
        raise Failure(
            f"all {len(photos)} training photos are of one car, {cars[0]}, and folds are made of whole cars; "
            "names are <car>_<view>.jpg, so name the photos of other cars after them"
        )
    if count < folds:
        raise Failure(f"{count} cars cannot be divided into {folds} folds; SET=split.folds={count} or fewer")
    # A car's stratum is how large it is, in as many classes as leave every fold a car of each. Every car counts alike
    # in the quantiles, however many photos it has, and no two have the same rank: classes cannot be empty.
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
    """The fold of each image name, by folds.csv.

    Raises:
        Failure: the file is missing or malformed, a car lies in two folds, or a fold is empty.
    """
    if not path.is_file():
        raise Failure(f"no split {path}; write it with `make folds RUN={RunFolder(path.parent).called}`")
    try:
        table = pd.read_csv(path, dtype={"img": str, "car": str, "fold": int}, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise Failure(f"cannot read {path}: {error}; put back the split that the run was trained with") from error
    if list(table.columns) != COLUMNS:
        raise Failure(f"{path} line 1: the header is {','.join(table.columns)}, not {','.join(COLUMNS)}")
    fold_of = dict(zip(table["img"], table["fold"], strict=True))
    if len(fold_of) < len(table):
        raise Failure(f"{path} names {table['img'][table['img'].duplicated()].iloc[0]} twice")
    torn = table.groupby("car")["fold"].nunique().loc[lambda folds: folds > 1]
    if len(torn):
        raise Failure(f"{path} has car {torn.index[0]} in {torn.iloc[0]} folds; all views of a car belong to one")
    numbers = sorted(set(fold_of.values()))
    if len(numbers) < 2 or numbers != list(range(len(numbers))):
        raise Failure(
            f"{path} has the folds {', '.join(map(str, numbers))}; they must be 0, 1 and so on, without a gap"
        )
    return fold_of


def photos_by_fold(path: Path, photos: Sequence[Photo]) -> dict[int, list[Photo]]:
    """The photos of each fold, by folds.csv.

    Raises:
        Failure: ``read_folds`` refuses the file, the photos in the data folder are not those of the file, or
            those of one car lie in two folds.
    """
    fold_of = read_folds(path)
    different = sorted(fold_of.keys() ^ {photo.img for photo in photos})
    if different:
        raise Failure(f"{path} and the data folder differ in {len(different)} photos, such as {different[0]}")
    by_fold: dict[int, list[Photo]] = {fold: [] for fold in range(max(fold_of.values()) + 1)}
    fold_of_car: dict[str, int] = {}
    for photo in photos:
        fold = fold_of[photo.img]
        # By the photos' own names: the file's column of cars may say that each image is one.
        if fold_of_car.setdefault(photo.car, fold) != fold:
            raise Failure(
                f"{path} has photos of car {photo.car} in folds {fold_of_car[photo.car]} and {fold}, such as "
                f"{photo.img}; all views of a car belong to one"
            )
        by_fold[fold].append(photo)
    return by_fold


def ensure_split(run: RunFolder, settings: Settings, data: DataFolder) -> dict[int, list[Photo]]:
    """The run's split: the one in its folder, written now if there is none yet.

    A run that learns from another, from its weights or its pseudo-labels, takes that one's split. In a run that
    begins here ``train.batch_size=auto`` becomes the number that its settings.yaml then has, and ``split.folds`` that
    of the split it takes.

    Raises:
        Failure: a photo has no mask or one of a wrong size, ``data.leave_out`` names one that is not there, the
            data are not the run's, or ``read_folds``, ``split_by_car`` or ``automatic_batch_size`` refuses.
    """
    data.require_masks(data.train)
    require_known(data.train, settings.data.leave_out)
    if run.settings.is_file():
        require_same_data(run, data)
    elif settings.train.batch_size == "auto":
        # It brings the trainer, which takes seconds to import: other stages read splits too.
        from folds.batch_size import automatic_batch_size

        settings = settings.with_batch_size(automatic_batch_size(settings, len(data.train)))
    ranks.barrier()  # all have seen whether there is a run before there is one
    if ranks.first():
        begin_run(run, settings, data)
    ranks.barrier()
    return photos_by_fold(run.folds, data.train)


def begin_run(run: RunFolder, settings: Settings, data: DataFolder) -> None:
    """Write what is missing of a run's settings and split."""
    split = None if run.folds.is_file() else first_split(settings, data)
    if split is not None:  # that of another run may have more folds, or fewer, than were asked for
        settings = settings.with_folds(len({row.rpartition(",")[2] for row in split.splitlines()[1:]}))
    # Only now: the settings of a run are never changed, so a split that was refused must not leave a run behind.
    with held(run.root / ".lock"):  # folds that begin at the same time on several GPUs share one split
        record_run(run, settings, data, describe_device())
        if split is not None and not run.folds.is_file():
            files.write_text(run.folds, split)


def first_split(settings: Settings, data: DataFolder) -> str:
    """The content of a new run's folds.csv: that of the run it learns from, else a split made now."""
    source = split_source(settings)
    if source is None:
        return folds_text(data.train, make_split(settings, data))
    photos_by_fold(source.folds, data.train)
    return source.folds.read_bytes().decode()


def require_same_split(run: RunFolder, source: RunFolder, setting: str) -> None:
    """Raise a Failure if a run has a split already, and not to the byte that of the run which a setting names."""
    if run.root.resolve() == source.root.resolve():
        raise Failure(f"{setting} names {run.root}, the run itself; name another one, or none")
    if run.folds.is_file() and run.folds.read_bytes() != source.folds.read_bytes():
        raise Failure(
            f"{run.folds} is not the split of {source.folds}: what comes from there may have seen the cars that "
            f"validate it here, which is a leak; name another RUN, which will take the split of {source.name}"
        )


def make_split(settings: Settings, data: DataFolder) -> list[int]:
    """The fold of each training photo, by ``split_by_car``."""
    with ThreadPoolExecutor() as pool:
        areas = list(pool.map(lambda photo: mask_area(data, photo), data.train))
    return split_by_car(data.train, areas, settings.split.folds, settings.seed)


def mask_area(data: DataFolder, photo: Photo) -> float:
    """The part of a training photo that is car, in [0, 1]."""
    height, width = shape_of(photo.path)
    return rle.area(data.truth_spans(photo)) / (height * width)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the split of a run and show it."""
    arguments = parser("Divide the training cars into folds.")
    add_run_arguments(arguments)
    run, settings, data = open_run(arguments.parse_args(argv), default_preset())
    if not run.settings.is_file():
        # It brings the trainer, which takes seconds to import: other stages read splits too.
        from folds.train import require_trainable

        require_trainable(settings, data)
    by_fold = ensure_split(run, settings, data)
    for fold, photos in by_fold.items():
        area = np.mean([mask_area(data, photo) for photo in photos])
        cars = len({photo.car for photo in photos})
        print(f"fold {fold}: {cars} cars, {len(photos)} images, mean car area {area:.1%}")
    print(f"{run.folds}  next: make train FOLD=0 RUN={run.called}")


if __name__ == "__main__":
    run_command(main)
