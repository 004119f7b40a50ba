"""The image files of a folder. Everything else in it is named, so that no photo is missing without a word."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from competition.command import Failure, os_reason, printable
from competition.images import PHOTO_TYPES, UNREADABLE_TYPES
from competition.names import canonical, mask_key, suffix, why_unusable, without_suffix

IMAGE_TYPES = {*PHOTO_TYPES, *UNREADABLE_TYPES}
# System files of Windows and macOS that are not shown to users; names that begin with a dot are hidden too.
SYSTEM = {"thumbs.db", "desktop.ini", "__macosx"}
# Windows, macOS, GNOME and browsers name a second copy of `x` so: `x (1)`, `x - Copy`, `x copy 2`, `x (copy)`.
COPY = re.compile(r"(?P<first>.+?)(?: ?\(\d+\)| - (?:Copy|Kopie)(?: \(\d+\))?| copy(?: \d+)?| \((?:copy|Kopie)\))")
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        files: path by name, sorted by name. Names are in form NFC; those in a subfolder are ``subfolder/name``.
        problems: one line for each kind of entry that may be an image but is not read. They stop every command.
        others: visible files and folders that are no images.
    """

    files: dict[str, Path]
    problems: list[str]
    others: list[Path]

    def require_clean(self, check: str) -> None:
        """Fail at the first problem; ``check`` is the command that lists all of them."""
        if self.problems:
            more = len(self.problems) - 1
            raise Failure(self.problems[0] + (f" (`{check}` lists {more} more of this folder)" if more else ""))


def list_images(folder: Path, types: Sequence[str], subfolders: bool = False) -> Listing:
    """List the images of a folder that exists.

    Args:
        folder: the folder.
        types: suffixes of the files that can be read, in lower case.
        subfolders: read the folders inside this one as well, but none inside those.
    """
    found = _Found(folder, types, subfolders)
    for entry in visible(folder):
        if subfolders and _is_folder(entry):
            for inner in visible(folder / entry.name):
                found.add(inner, f"{entry.name}/{inner.name}")
        else:
            found.add(entry, entry.name)
    return found.listing()


def visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder that are not hidden."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not is_hidden(entry.name))
    except OSError as error:
        raise Failure(f"cannot list {folder}: {os_reason(error)}") from error


def is_hidden(name: str) -> bool:
    """Whether people do not see a file, such as the ``._name.jpg`` that macOS adds to a zip."""
    return name[0] == "." or name.lower() in SYSTEM


def first_images(folder: Path) -> Path | None:
    """The first folder with an image in it, from a folder downwards."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        if any(suffix(name) in IMAGE_TYPES and not is_hidden(name) for name in files):
            return Path(path)
    return None


def few(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return printable(", ".join(names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


class _Found:
    """The entries of a folder by kind."""

    def __init__(self, folder: Path, types: Sequence[str], subfolders: bool) -> None:
        self.folder = folder
        self.types = types
        self.names: list[str] = []
        self.others: list[str] = []
        self.folders: list[str] = []  # that hold images
        self.wrong: dict[tuple[str, str], list[str]] = {}  # names by what they are and what to do
        self.deeper_advice = (
            "move them up"
            if subfolders
            else "if each of these folders shows one car, set data.cars=folder, otherwise move the images up"
        )

    def add(self, entry: os.DirEntry[str], name: str) -> None:
        kind = suffix(name)
        if kind in self.types and _is_file(entry):
            self.names.append(name)
        elif kind in self.types or kind in IMAGE_TYPES:
            self._add_unreadable(entry, name)
        elif _is_folder(entry) and first_images(Path(entry.path)):
            self.folders.append(name)
        else:
            self.others.append(name)

    def listing(self) -> Listing:
        """The result. Only names that can be used are compared, so that each is in one problem."""
        usable = []
        for name in self.names:
            if reason := why_unusable(name):
                self._wrong(f"files with a name that {reason}", "rename them", name)
            else:
                usable.append((canonical(name), name))
        usable.sort()
        for first, second in _doubled(usable):
            what = "files that differ only in suffix, capitals, Unicode form or _mask"
            self._wrong(what, "keep one of each, or rename it", f"{first} and {second}")
        for copy, first in _copies([img for img, _ in usable]):
            self._wrong("files that look like second copies", "remove or rename them", f"{copy} beside {first}")
        problems = [self._line(*kind, sorted(names)) for kind, names in self.wrong.items()]
        if self.folders:
            problems.append(self._deeper(sorted(self.folders)))
        files = {img: self.folder / name for img, name in usable}
        return Listing(files, problems, [self.folder / name for name in sorted(self.others)])

    def _add_unreadable(self, entry: os.DirEntry[str], name: str) -> None:
        if _is_file(entry):
            readable = ", ".join(sorted(self.types))
            self._wrong(
                "images of a kind that is not read here", f"convert or remove them ({readable} are read)", name
            )
        elif _is_folder(entry):
            self._wrong("folders that are named like an image", "rename them", name)
        elif entry.is_symlink():
            self._wrong("links that lead to no file", "repair or remove them", name)
        else:
            self._wrong("pipes, sockets or devices that are named like an image", "remove them", name)

    def _wrong(self, what: str, advice: str, name: str) -> None:
        self.wrong.setdefault((what, advice), []).append(name)

    def _line(self, what: str, advice: str, names: Sequence[str]) -> str:
        return f"{self.folder} has {what} ({len(names):,}): {few(names)}; {advice}"

    def _deeper(self, folders: list[str]) -> str:
        """Images in folders that are not read."""
        if self.names or len(folders) > 1:
            return self._line("images in folders inside it", self.deeper_advice, folders)
        inner = first_images(self.folder / folders[0]) or self.folder / folders[0]
        move = f"mv {shlex.quote(str(inner))}/* {shlex.quote(str(self.folder))}/"
        return f"the images of {self.folder} are in a folder inside it, {printable(str(inner))}; move them up: {move}"


def _doubled(files: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Pairs of files whose masks would have the same name."""
    known: dict[str, str] = {}
    for img, name in files:
        first = known.setdefault(mask_key(img), name)
        if first is not name:
            yield first, name


def _copies(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Files whose names are those of second copies, each with the first one if that exists too."""
    suspects = [name for name in names if " " in name or "(" in name]
    name_of = {without_suffix(name): name for name in names} if suspects else {}
    for name in suspects:
        match = COPY.fullmatch(without_suffix(name))
        if match and match["first"] in name_of:
            yield name, name_of[match["first"]]


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link to one; a stat is needed for links only."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself, for example
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
