"""Data for benchmarks: a data folder, many names for few photos, settings."""

import os
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from competition.data_folder import DataFolder
from competition.mask_table import read_rows
from competition.photo import Photo
from competition.settings.resolve import Tree, load_preset, merge, resolve
from competition.settings.schema import Settings
from competition.studio.data_set import Order, make

GENERATED = Path("data/bench")
ORDER = Order(cars=4, test_cars=2, seed=1)


def data_folder(folder: Path | None) -> DataFolder:
    """The data in a folder; without one, generated cars, which are created once."""
    if folder is None:
        make(GENERATED, ORDER, os.cpu_count() or 1)
    return DataFolder(folder or GENERATED)


def first(photos: Sequence[Photo], count: int) -> list[Photo]:
    """Some photos, spread over all; repeated if there are too few."""
    if count > len(photos):
        return [photo for photo, _ in zip(cycle(photos), range(count), strict=False)]
    return [photos[number * len(photos) // count] for number in range(count)]


def full_names(data: DataFolder, count: int) -> list[str]:
    """Names of test images: those of sample_submission_full.csv if it exists, else invented."""
    full = data.root / "sample_submission_full.csv"
    if full.is_file():
        return [row.img for row in read_rows(full)][:count]
    return made_up_names(count)


def made_up_names(count: int) -> list[str]:
    """Invented names in Carvana's format, 16 views for each car."""
    return [f"{number // 16:012x}_{number % 16 + 1:02d}.jpg" for number in range(count)]


def link(source: Path, name: Path) -> None:
    """Give a file another name by a hard link, or by a symbolic link if that fails."""
    try:
        name.hardlink_to(source)
    except OSError:
        name.symlink_to(source.resolve())


def link_photos(names: Sequence[str], photos: Sequence[Photo], folder: Path) -> None:
    """Link photos under many names in a folder; photos are reused."""
    folder.mkdir(parents=True)
    for name, photo in zip(names, cycle(photos), strict=False):
        link(photo.path, folder / name)


def settings_of(preset: str, *over: Tree) -> Settings:
    """The settings of a preset, with changes."""
    return resolve(merge(load_preset(preset), *over))


def codes_of(data: DataFolder, most: int = 1000) -> list[str]:
    """RLEs of training masks, spread over all."""
    codes = [row.rle for row in read_rows(data.masks_csv)]
    step = max(1, len(codes) // most)
    return codes[::step][:most]


def rows(names: Sequence[str], codes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Rows of a submission; RLEs are reused."""
    return zip(names, cycle(codes), strict=False)
