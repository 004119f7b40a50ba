"""Prepare the content of archives in a data folder, check it, and move it into place.

Nothing incomplete is ever in the data folder itself. A process may be killed at any time; the next one continues with
what is there.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from competition.command import Failure, printable
from competition.files import read_json, write_json
from competition.kaggle.archives import Archive, find_problem
from competition.kaggle.unpack import Damaged
from competition.listing import visible
from competition.plural import counted

WORK_FOLDERS = DOWNLOAD, UNPACK = (
    ".download",
    ".unpack",
)  # in the data folder: of downloads, and of archives elsewhere


class Staging:
    """The temporary files of one data folder.

    Args:
        root: the data folder.
        work: the folder in it with the temporary files.
        whole: only all of Kaggle's data is complete, not a part of it.
    """

    def __init__(self, root: Path, work: str, whole: bool) -> None:
        self.root = root
        self.work = root / work
        self.whole = whole
        self.record = root / "downloaded.json"
        # Archive name to its bytes and those of its content, for each archive that was moved into place.
        self.recorded = read_json(self.record) if self.record.is_file() else {}

    def zip_file(self, archive: Archive) -> Path:
        """Where an archive is while it is downloaded and unpacked."""
        return self.work / archive.name

    def member_list(self, archive: Archive) -> Path:
        """The list of an archive's members; exists once the archive is complete."""
        return self.work / f"{archive.name}.json"

    def unpacked(self, archive: Archive) -> Path:
        """The folder into which an archive is unpacked."""
        return self.work / f"{archive.target}.new"

    def is_complete(self, archive: Archive, archive_bytes: int | None = None) -> bool:
        """Whether the content of an archive is in place: its names, and its size if it is recorded.

        Args:
            archive: the archive.
            archive_bytes: its size, which must be the recorded one; None if any archive will do.
        """
        target = self.root / archive.target
        there = target.is_file() if archive.suffix == ".csv" else target.is_dir()
        if not there or find_problem(archive, target, self.root, self.whole):
            return False
        known = self.recorded.get(archive.name)
        if known is None:
            return True
        packed = known["bytes"] if archive_bytes is None else archive_bytes
        return bool(known == {"bytes": packed, "unpacked": bytes_in(target, archive.suffix)})

    def put_in_place(self, archive: Archive, archive_bytes: int | None) -> None:
        """Check what is unpacked, replace the content of the data folder by it, and remove the temporary files.

        Args:
            archive: the archive.
            archive_bytes: its size, to record it; None for links, whose files may change.

        Raises:
            Damaged: the content is not what the tables say.
        """
        if problem := find_problem(archive, self.unpacked(archive), self.root, self.whole):
            raise Damaged(problem)
        # The sizes of the old content must not be compared with the new content, so they are removed first.
        if self.recorded.pop(archive.name, None):
            write_json(self.record, self.recorded)
        self._move_into_place(archive)
        if archive_bytes is not None:
            # Other files in the folder do not count.
            unpacked = bytes_in(self.root / archive.target, archive.suffix)
            self.recorded[archive.name] = {"bytes": archive_bytes, "unpacked": unpacked}
            write_json(self.record, self.recorded)
        self.discard(archive)

    def discard(self, archive: Archive) -> None:
        """Remove the temporary files of an archive."""
        self._discard(archive, self.work)

    def remove_leftovers(self, archives: Sequence[Archive]) -> None:
        """Remove every temporary file of complete archives; other archives may be partly there."""
        for work in (self.root / name for name in WORK_FOLDERS):
            for archive in archives:
                self._discard(archive, work)
                _remove(work / f"{archive.target}.old")
            if work.is_dir() and not any(work.iterdir()):
                work.rmdir()

    def _discard(self, archive: Archive, work: Path) -> None:
        # The list of members first: without it, the rest of an archive counts as a partial download.
        for name in (f"{archive.name}.json", archive.name, f"{archive.name}.etag", f"{archive.target}.new"):
            _remove(work / name)

    def _move_into_place(self, archive: Archive) -> None:
        target, unpacked = self.root / archive.target, self.unpacked(archive)
        if archive.suffix == ".csv":
            (unpacked / archive.target).replace(target)
            return
        replaced = self.work / f"{archive.target}.old"
        if target.exists() or target.is_symlink():
            _remove(replaced)
            target.rename(replaced)
        unpacked.rename(target)
        _remove(replaced)


class Source(Protocol):
    """Where archives come from."""

    staging: Staging
    verb: str  # what is done with an archive, for messages

    def is_complete(self, archive: Archive) -> bool:
        """Whether the content of an archive is in the data folder."""

    def missing_bytes(self, archive: Archive) -> int:
        """About how many bytes an archive still needs on the disk."""

    def fetch(self, archive: Archive) -> None:
        """Put the content of an archive into the data folder; resumes."""


def complete(source: Source, wanted: Sequence[Archive]) -> None:
    """Put everything that is missing into the data folder of a source."""
    # Tables first: whether the images are complete is known once the tables are there.
    for suffixes in ({".csv"}, {".gif"}, {".jpg"}):
        waiting = [each for each in wanted if each.suffix in suffixes and not source.is_complete(each)]
        for archive in waiting:
            _require_kaggles(source.staging.root / archive.target, archive)
        _require_space(source, waiting)
        for archive in waiting:
            source.fetch(archive)
    source.staging.remove_leftovers(wanted)


def _require_kaggles(target: Path, archive: Archive) -> None:
    """Fail if a folder that would be replaced holds files that are not Kaggle's: they would be lost."""
    if archive.suffix == ".csv" or target.is_symlink() or not target.is_dir():
        return
    others = sorted(entry.name for entry in visible(target) if not archive.names(entry.name))
    if others:
        raise Failure(
            f"{target} holds {counted(len(others), 'file')} not of Kaggle's data, such as {printable(others[0])}; "
            "name another folder with DATA=..., or move them away"
        )


def bytes_in(target: Path, suffix: str = "") -> int:
    """The size of a file, or of the files with that suffix in a folder."""
    paths: Iterator[Path] = target.glob(f"*{suffix}") if target.is_dir() else iter([target])
    return sum(path.stat().st_size for path in paths)


def size_text(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _require_space(source: Source, waiting: Sequence[Archive]) -> None:
    """Print the space that is needed and the space that is free; raise a Failure if it is too little."""
    sizes = {archive: count for archive in waiting if (count := source.missing_bytes(archive))}
    if not sizes:
        return
    root, needed = source.staging.root, sum(sizes.values())
    free = shutil.disk_usage(root).free
    print(
        f"{counted(len(sizes), 'archive')} to {source.verb}: about {size_text(needed)} needed in {root}, "
        f"{size_text(free)} free",
        flush=True,
    )
    if free >= needed:
        return
    test = sum(count for archive, count in sizes.items() if archive.target.startswith("test"))
    without = f", or leave out the test photos ({size_text(test)}) with ONLY=train" if test else ""
    raise Failure(
        f"{root} has {size_text(free)} free, but about {size_text(needed)} are needed; free some space, or name a "
        f"folder on a larger disk with DATA=...{without}"
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
