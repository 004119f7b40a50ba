"""The names that adopted photos get in the data folder, and the table that tells which file became which."""

import csv
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from competition.adopt.pairing import folder_of
from competition.command import printable
from competition.grouping import UNKNOWN_VIEW, car_and_view
from competition.names import LONGEST, mask_key, suffix

# Characters besides letters and digits that names keep. Others stand for something in CSV files, shells or URLs. They
# become `-`, not `_`, so that no name becomes <car>_<view>. `x (1)` becomes `x 1`: it would pass for a second copy.
KEPT = " ._-+=@#~"
REMOVED = "()[]{}"


@dataclass(frozen=True)
class Adopted:
    """A photo of the data folder.

    Attributes:
        folder: train or test.
        img: its name in that folder.
        photo: the file that it is linked to.
        mask: the file that its mask is made from.
        upright: whether its EXIF orientation is applied to it and to its mask.
    """

    folder: str
    img: str
    photo: Path
    mask: Path | None
    upright: bool

    @property
    def mask_name(self) -> str:
        """The name of its mask in the folder train_masks."""
        return f"{self.img.removesuffix(PurePosixPath(self.img).suffix)}_mask.png"


def cars_rule(photos: Sequence[Path]) -> str:
    """The value of ``data.cars`` for training photos, given by their paths within their folder.

    If they lie in several folders, each folder is a car, unless all names are ``<car>_<view>``.
    """
    folders = {folder_of(path) for path in photos}
    views = [car_and_view(path.name)[1] for path in photos]
    named_by_car = UNKNOWN_VIEW not in views and len({path.stem for path in photos}) == len(photos)
    return "folder" if len(folders) > 1 and not named_by_car else "auto"


def names_of(photos: Sequence[Path], *, by_folder: bool) -> list[str]:
    """The names in the data folder of photos that are given by their paths within their folder.

    Args:
        photos: the paths.
        by_folder: keep the folder: ``red/1.jpg``. Otherwise it is added to names that would be alike: ``red-1.jpg``.
    """
    folders = ["-".join(map(_safe, folder_of(path))) for path in photos]
    stems = [_safe(path.stem) for path in photos]
    if not by_folder:
        often = Counter(map(mask_key, stems))
        alike = [often[mask_key(stem)] > 1 for stem in stems]
        stems = [
            f"{folder}-{stem}" if folder and is_alike else stem
            for folder, stem, is_alike in zip(folders, stems, alike, strict=True)
        ]
        folders = [""] * len(photos)
    names: list[str] = []
    taken: set[str] = set()
    for path, folder, stem in zip(photos, folders, stems, strict=True):
        name, number = stem, 1
        while mask_key(f"{folder}/{name}") in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(mask_key(f"{folder}/{name}"))
        names.append(f"{folder}/{name}{suffix(path.name)}".removeprefix("/"))
    return names


def table_of(adopted: Iterable[Adopted]) -> str:
    """The content of adopted.csv."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["folder", "img", "photo", "mask", "orientation"])
    for row in adopted:
        files = (printable(str(path)) if path else "" for path in (row.photo, row.mask))
        rows.writerow([row.folder, row.img, *files, "displayed" if row.upright else "stored"])
    return text.getvalue()


def _safe(name: str) -> str:
    """A name without characters that the project refuses or that mislead."""
    try:
        text = os.fsencode(name).decode()
    except UnicodeDecodeError:  # probably of an old Windows or Unix, in Latin-1
        text = os.fsencode(name).decode("latin-1")
    text = unicodedata.normalize("NFC", text)
    text = "".join(c if c.isalnum() or c in KEPT else "-" for c in text if c not in REMOVED)
    text = text.strip(" .-") or "photo"
    return text.encode()[: LONGEST // 2].decode(errors="ignore")
