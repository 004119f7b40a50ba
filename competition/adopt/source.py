"""What lies in the folders of photos and masks that are adopted."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from competition.adopt.pairing import is_mask
from competition.command import Failure, os_reason
from competition.images import PHOTO_TYPES, UNREADABLE_TYPES
from competition.listing import is_hidden
from competition.mask_file import MASK_TYPES
from competition.names import suffix


@dataclass(frozen=True)
class Source:
    """The files to adopt, as sorted paths within their folders.

    Attributes:
        images: the folder of the photos.
        masks: the folder of the masks; it may be the same.
        photo_files: the files that can be photos.
        mask_files: the files that can be masks.
        unreadable: images of a kind that is not read.
    """

    images: Path
    masks: Path
    photo_files: list[Path]
    mask_files: list[Path]
    unreadable: list[Path]


def find(images: Path, masks: Path, without: Sequence[Path] = ()) -> Source:
    """List photos and masks in two folders and the folders inside them.

    Args:
        images: the folder of the photos.
        masks: the folder of the masks; it may be the same, or one may lie in the other.
        without: folders that are not listed, such as the data folder to write.
    """
    images, masks = _folder(images), _folder(masks)
    if images == masks:
        everything = _files(images, without)
        photos = [path for path in everything if suffix(path.name) in PHOTO_TYPES]
        theirs = [path for path in everything if suffix(path.name) in MASK_TYPES and is_mask(path)]
        if not theirs:  # x.jpg beside x.png
            theirs = [path for path in photos if suffix(path.name) in (".png", ".gif")]
        return Source(
            images, masks, [path for path in photos if path not in set(theirs)], theirs, _unreadable(everything)
        )
    photos, theirs = _files(images, [*without, masks]), _files(masks, [*without, images])
    return Source(
        images,
        masks,
        [path for path in photos if suffix(path.name) in PHOTO_TYPES],
        [path for path in theirs if suffix(path.name) in MASK_TYPES],
        _unreadable(photos) + [path for path in _unreadable(theirs) if suffix(path.name) not in MASK_TYPES],
    )


def photos_in(folder: Path, without: Sequence[Path] = ()) -> list[Path]:
    """The photos in a folder and the folders inside it, as sorted paths within the folder; never empty."""
    found = [path for path in _files(_folder(folder), without) if suffix(path.name) in PHOTO_TYPES]
    if not found:
        raise Failure(f"{folder} holds no photos ({', '.join(PHOTO_TYPES)})")
    return found


def absolute(path: Path) -> Path:
    """An absolute path without ``..``. Links stay, so that photos on a disk that is mounted elsewhere stay there."""
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise Failure(f"{folder} is a file, not a folder" if folder.is_file() else f"no folder {folder}")
    return absolute(folder)


def _files(root: Path, without: Sequence[Path]) -> list[Path]:
    hidden = {absolute(folder) for folder in without} - {root}
    found: list[Path] = []
    seen: set[str] = set()  # a link may lead to a folder that holds it
    for where, folders, names in os.walk(root, onerror=_fail, followlinks=True):
        if os.path.realpath(where) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        folder = Path(where)
        folders[:] = [name for name in folders if not is_hidden(name) and folder / name not in hidden]
        found += [(folder / name).relative_to(root) for name in names if not is_hidden(name)]
    return sorted(found)


def _fail(error: OSError) -> None:
    raise Failure(f"cannot list {error.filename}: {os_reason(error)}") from error


def _unreadable(files: Sequence[Path]) -> list[Path]:
    return [path for path in files if suffix(path.name) in UNREADABLE_TYPES]
