"""The photos that ``PHOTOS`` names: files, folders with everything below them, and glob patterns."""

import glob
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from competition.command import Failure, os_reason
from competition.images import PHOTO_TYPES, UNREADABLE_TYPES
from competition.listing import is_hidden
from competition.names import suffix, why_unusable


class Named(NamedTuple):
    """A photo, and its name below the folder that it was found in, such as ``sub/car.jpg``."""

    path: Path
    name: str


@dataclass
class Found:
    """What the given paths hold.

    Attributes:
        photos: in order, each file once.
        problems: one line for each entry that looks like a photo but cannot be read.
        unread: the number of images of a kind that is not read, by suffix.
    """

    photos: list[Named] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


class Place(NamedTuple):
    """A file or folder that was given, and the name that it has among the results; a folder alone has none."""

    path: Path
    name: str


def find_photos(given: Sequence[str]) -> Found:
    """Find the photos of files, folders and glob patterns.

    A text that is no path and no pattern is split at its spaces, so that ``PHOTOS="day1 day2"`` names two folders.
    """
    found = Found()
    for place in places(given):
        if _is_folder(place.path):
            _add_folder(found, place.path, place.name, ())
        else:
            _add_file(found, place.path, place.name)
    once = {absolute(photo.path): photo for photo in reversed(found.photos)}
    found.photos = [photo for photo in found.photos if once[absolute(photo.path)] is photo]
    return found


def places(given: Sequence[str]) -> list[Place]:
    """The files and folders that are given. Several folders keep their names, so that their photos do not mix."""
    found = [place for text in given for place in _places_of(text)]
    if len(found) == 1 and _is_folder(found[0].path):
        return [Place(found[0].path, "")]
    return found


def require_outside(out: Path, given: Sequence[str]) -> None:
    """Raise a Failure if a folder for results is one that photos are taken from, or lies inside one."""
    target = out.resolve()
    for place in places(given):
        folder = place.path.resolve()
        if _is_folder(place.path) and target.is_relative_to(folder):
            where = "is" if target == folder else "lies inside"
            raise Failure(
                f"OUT={out} {where} {place.path}, whose photos are cut out; the next call would cut out the results; "
                "name another folder"
            )
        if folder.parent == target:
            raise Failure(f"OUT={out} is the folder of {place.path}, a photo to cut out; name another folder")
    for pattern in filter(glob.has_magic, given):
        whole = absolute(Path(pattern).expanduser())
        if not Path(pattern).exists() and any(fnmatch(str(each), whole) for each in (target, target / "x.png")):
            raise Failure(f"{pattern} would match the results in OUT={out}; name another folder")


def absolute(path: Path) -> str:
    """A path from the root, without ``..``; links are kept."""
    return os.path.abspath(path)  # noqa: PTH100  Path.absolute keeps ".."


def _places_of(text: str) -> Iterator[Place]:
    path = Path(text).expanduser()
    if os.path.lexists(path):
        yield Place(path, Path(absolute(path)).name)
    elif matches := _matches(str(path)):
        yield from matches
    else:
        words = _words(text)
        if len(words) < 2:
            raise Failure(f"PHOTOS={text}: there is no such file or folder, and no file matches")
        for word in words:
            yield from _places_of(word)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quotation mark in a name
        return text.split()


def _matches(pattern: str) -> list[Place]:
    """The matches of a glob pattern, named from its first part with a wildcard on; each real file once."""
    if not glob.has_magic(pattern):
        return []
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:first])
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207  Path.glob finds hidden files
    matches.sort(key=lambda match: (match.count(os.sep), match))
    real: dict[str, Path] = {}
    folders: set[Path] = set()
    for match in map(Path, matches):
        is_folder = _is_folder(match)
        if (is_folder or suffix(match.name) in PHOTO_TYPES) and folders.isdisjoint(match.parents):
            real.setdefault(os.path.realpath(match), match)
            folders |= {match} if is_folder else set()
    return [Place(match, match.relative_to(root).as_posix().removeprefix(".")) for match in sorted(real.values())]


def _add_folder(found: Found, folder: Path, name: str, above: tuple[str, ...]) -> None:
    """Add the photos in a folder and below it. A link to a folder that it lies in is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        os.stat(f"{folder}/.")  # noqa: PTH116  fails if the names can be read, but not the files
        entries = sorted(each.name for each in folder.iterdir() if not is_hidden(each.name))
    except OSError as error:
        found.problems.append(f"cannot read {folder}: {os_reason(error)}")
        return
    for entry in entries:
        path, inner = folder / entry, f"{name}/{entry}" if name else entry
        kind = suffix(entry)
        if _is_folder(path):
            _add_folder(found, path, inner, (*above, real))
        elif kind in PHOTO_TYPES:
            _add_file(found, path, inner)
        elif kind in UNREADABLE_TYPES:
            found.unread[kind] += 1


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder; Path.is_dir fails in one that may not be entered."""
    return os.path.isdir(path)  # noqa: PTH112


def _add_file(found: Found, path: Path, name: str) -> None:
    if not os.path.isfile(path):  # noqa: PTH113  as in _is_folder
        found.problems.append(
            f"{path} is no file, or a link that leads to none, or may not be read; repair or remove it"
        )
    elif reason := why_unusable(name):
        found.problems.append(f"{path} has a name that {reason}; rename it")
    else:
        found.photos.append(Named(path, name))
