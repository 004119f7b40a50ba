"""``cutouts.jsonl``: the photo of each picture in a folder of cut-outs, so that a repeated call resumes.

A name is claimed in the file before the picture is written, and completed after it. So a process may be killed at any
instant: the next call knows which pictures are its own, and which of them are finished. Later lines replace earlier
ones.
"""

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

from competition.command import Failure, os_reason
from competition.files import sha256, write_text
from competition.names import without_suffix
from inference.cutouts.photos import Named, absolute

NAME = "cutouts.jsonl"


class Stamp(NamedTuple):
    """What changes if a photo is replaced: its size in bytes and the time of its last change."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """The stamp of a file that exists."""
        try:
            status = path.stat()
        except OSError as error:
            raise Failure(f"cannot read {path}: {os_reason(error)}") from error
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Entry:
    """A picture.

    Attributes:
        photo: path of the photo.
        kind: rgba, mask, ..., or a colour.
        file: the picture, relative to the folder of the manifest.
        key: hash of what made it: networks and settings; empty while it is not finished.
        size: of the photo, bytes; mtime_ns likewise.
        sha256: of the picture.
    """

    photo: str
    kind: str
    file: str
    key: str = ""
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""


class Manifest:
    """The pictures in a folder.

    Args:
        folder: of the pictures; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME
        self.entries = {(entry.photo, entry.kind): entry for entry in _read(self.path)}
        self._taken = {entry.file.casefold() for entry in self.entries.values()}

    def is_done(self, photo: Path, kind: str, key: str, stamp: Stamp) -> bool:
        """Whether a picture is finished, of this version of the photo, by these networks and settings."""
        entry = self.entries.get((absolute(photo), kind))
        return (
            entry is not None
            and (entry.key, entry.size, entry.mtime_ns) == (key, *stamp)
            and (self.folder / entry.file).is_file()
        )

    def claim(self, photo: Named, kind: str, ending: str, folders: Collection[str]) -> str:
        """Choose the name of a picture that is to be written. ``save`` makes it known.

        A picture keeps its name. A name is free if no other photo has it, and if no file has it that something else
        wrote or changed.

        Args:
            photo: the photo.
            kind: of the picture.
            ending: of its name, before the suffix.
            folders: names of folders with other pictures, in lower case.

        Returns:
            The path relative to the folder of the manifest, with slashes.
        """
        key = absolute(photo.path), kind
        before = self.entries.get(key)
        if before and self._is_ours(before):
            self.entries[key] = Entry(*key, before.file)
            return before.file
        stem = without_suffix(photo.name)
        file, number = f"{stem}{ending}.png", 1
        while not self._is_free(file, folders):
            file = f"{photo.name}{ending}{'' if number == 1 else f'-{number}'}.png"
            number += 1
        self._taken.add(file.casefold())
        self.entries[key] = Entry(*key, file)
        return file

    def save(self) -> None:
        """Write the file with one line for each picture."""
        lines = sorted(self.entries.values(), key=lambda entry: (entry.photo, entry.kind))
        write_text(self.path, "".join(_line(entry) for entry in lines))

    def complete(self, file: TextIO, entries: Iterable[Entry]) -> None:
        """Add finished pictures to the file, opened for appending."""
        for entry in entries:
            self.entries[entry.photo, entry.kind] = entry
            file.write(_line(entry))
        file.flush()

    def _is_ours(self, entry: Entry) -> bool:
        """Whether the file of an entry is missing, or one that this program wrote."""
        file = self.folder / entry.file
        return not file.is_file() or not entry.key or sha256(file) == entry.sha256

    def _is_free(self, file: str, folders: Collection[str]) -> bool:
        name = file.casefold()
        return name not in self._taken and name not in folders and not os.path.lexists(self.folder / file)


def finished(claimed: Entry, key: str, stamp: Stamp, digest: str) -> Entry:
    """The entry of a picture that is written."""
    return replace(claimed, key=key, size=stamp.size, mtime_ns=stamp.mtime_ns, sha256=digest)


def _line(entry: Entry) -> str:
    return json.dumps({name: value for name, value in asdict(entry).items() if value}) + "\n"


def _read(path: Path) -> list[Entry]:
    """The entries of a file; none if there is none. A process that was killed may leave half a line at its end."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise Failure(f"cannot read {path}: {reason}; name another folder with OUT=...") from error
    return [_entry(path, number, line) for number, line in enumerate(lines[:-1], start=1)]


def _entry(path: Path, number: int, line: str) -> Entry:
    try:
        entry = Entry(**json.loads(line))
        file = PurePosixPath(entry.file)
        if file.is_absolute() or ".." in file.parts:
            raise ValueError(f"{file} is outside of the folder")
        return entry
    except (ValueError, TypeError, RecursionError) as error:
        raise Failure(
            f"{path} line {number} does not describe a cut-out ({error}); remove it and the pictures beside it, "
            "or name another folder with OUT=..."
        ) from error
