"""The zip files of the competition, and what is wrong with their content."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.mask_table import read_rows
from competition.orientation import CARVANA
from competition.plural import counted

# Number of images, by the table that names them.
ROWS = {"train_masks.csv": 5_088, "sample_submission.csv": 100_064}


@dataclass(frozen=True)
class Archive:
    """A zip file of the competition.

    Attributes:
        name: of the zip file.
        target: the table, or the folder of images, that it holds.
        suffix: of the files that it holds.
    """

    name: str
    target: str
    suffix: str

    @property
    def table(self) -> str:
        """The table that names the images of the archive."""
        return "sample_submission.csv" if self.target.startswith("test") else "train_masks.csv"

    @property
    def ending(self) -> str:
        """What follows the stem of a photo in the names of the files."""
        return "_mask.gif" if self.suffix == ".gif" else self.suffix

    def names(self, file: str) -> bool:
        """Whether a file of images has a name as Kaggle's have, such as ``0cdf5b5d0ce1_01_mask.gif``."""
        return file.endswith(self.ending) and CARVANA.fullmatch(file.removesuffix(self.ending)) is not None


def archives(hq: bool, only_train: bool = False) -> list[Archive]:
    """The archives of a data folder; tables first, because the images are compared with them.

    Args:
        hq: train_hq and test_hq instead of train and test.
        only_train: without the test photos, and without sample_submission.csv, which names them.
    """
    kind = "_hq" if hq else ""
    test = [
        Archive("sample_submission.csv.zip", "sample_submission.csv", ".csv"),
        Archive(f"test{kind}.zip", f"test{kind}", ".jpg"),
    ]
    train = [
        Archive("train_masks.csv.zip", "train_masks.csv", ".csv"),
        Archive("metadata.csv.zip", "metadata.csv", ".csv"),
        Archive("train_masks.zip", "train_masks", ".gif"),
        Archive(f"train{kind}.zip", f"train{kind}", ".jpg"),
    ]
    return train if only_train else [test[0], *train, test[1]]


def find_problem(archive: Archive, content: Path, root: Path, whole: bool) -> str | None:
    """What is wrong with the content of an archive, or None.

    Args:
        archive: the archive.
        content: the table, or the folder with the table or the images.
        root: the data folder, with the table that names the images.
        whole: the tables must have all of Kaggle's rows. Otherwise a part of the data is enough, and a table may be
            missing: training photos are then compared with the masks.
    """
    if archive.suffix == ".csv":
        return _table_problem(content / archive.target if content.is_dir() else content, whole)
    names = set(image_names(archive, content))
    table, masks = root / archive.table, root / "train_masks"
    if table.is_file():
        return _difference(names, {f"{Path(row.img).stem}{archive.ending}" for row in read_rows(table)}, table.name)
    if whole:
        return f"there is no {table.name} to compare it with"
    if archive.target.startswith("train") and archive.suffix == ".jpg":
        stems = (path.stem.removesuffix("_mask") for path in masks.iterdir()) if masks.is_dir() else ()
        return _difference(names, {f"{stem}{archive.ending}" for stem in stems}, masks.name)
    return None if names else f"it has no {archive.suffix} files"


def image_names(archive: Archive, folder: Path) -> Iterator[str]:
    """The images of an archive that are in a folder. Hidden files, and links that lead nowhere, are none."""
    with os.scandir(folder) as entries:  # unlike Path.is_file, its is_file makes no call for each of 100,064 photos
        for entry in entries:
            if entry.name.endswith(archive.suffix) and not entry.name.startswith(".") and entry.is_file():
                yield entry.name


def _difference(names: set[str], expected: set[str], source: str) -> str | None:
    if names == expected:
        return None
    example = min(names ^ expected)
    state = "missing" if example in expected else f"not in {'the table' if source.endswith('.csv') else source}"
    return f"it has {counted(len(names), 'file')}, and {source} names {len(expected):,}; {example} is {state}"


def _table_problem(table: Path, whole: bool) -> str | None:
    if not table.is_file():
        return f"there is no {table.name} in it"
    try:
        if table.name == "metadata.csv":
            return None if len(DataFolder(table.parent).metadata) else f"{table.name} has no rows"
        rows = sum(1 for _ in read_rows(table))
    except Failure as error:
        return str(error)
    if not rows:
        return f"{table.name} has no rows"
    if whole and rows != ROWS[table.name]:
        return f"{table.name} has {counted(rows, 'row')}, not {ROWS[table.name]:,}"
    return None
