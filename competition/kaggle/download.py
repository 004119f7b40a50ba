"""Carvana's data from Kaggle, in Kaggle's layout: ``make data``.

Each archive is downloaded, unpacked beside what is there, compared with the full list of names, and swapped in. While
it is unpacked it is cut shorter, so that the disk holds the data once and not twice. A kill at any instant costs
nothing: the same command goes on, and what is there and good is left alone.
"""

import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from competition import files
from competition.command import Failure, os_reason, parser, run_command
from competition.data_folder import DataFolder
from competition.files import read_json
from competition.kaggle.client import Kaggle, add_patience_arguments, patience
from competition.mask_table import read_rows
from competition.run.folder import DEFAULT_DATA

# How many images there are, by the table that names them.
ROWS = {"train_masks.csv": 5_088, "sample_submission.csv": 100_064}
GROWTH = {".csv": 4.0, ".jpg": 1.05, ".gif": 1.05}  # size unpacked by size packed, at most
LOCAL_HEADER = struct.Struct("<4s22xHH")


@dataclass(frozen=True)
class Archive:
    """A file of the competition, and what it holds: a table, or a folder of images."""

    name: str
    target: str
    suffix: str


@dataclass(frozen=True)
class Member:
    """A file within an archive: where it starts, how it is packed, and what it must be when unpacked."""

    name: str
    offset: int
    packed: int
    method: int
    bytes: int
    crc: int


class Download:
    """One data folder on its way.

    Args:
        root: the data folder.
        sizes: the competition's files, name to bytes.
    """

    def __init__(self, root: Path, sizes: dict[str, int]) -> None:
        self.root = root
        self.sizes = sizes
        self.work = root / ".download"
        self.record = root / "downloaded.json"

    def packed(self, archive: Archive) -> Path:
        """Where the archive is while it is needed."""
        return self.work / archive.name

    def plan(self, archive: Archive) -> Path:
        """The archive's table of contents, which exists from when the archive is complete."""
        return self.work / f"{archive.name}.json"

    def fresh(self, archive: Archive) -> Path:
        """The folder into which the archive is unpacked."""
        return self.work / f"{archive.target}.new"

    def old(self, archive: Archive) -> Path:
        """What the archive's content is about to take the place of."""
        return self.work / f"{archive.target}.old"

    def records(self) -> dict[str, Any]:
        """What was swapped in by earlier commands: archive to its bytes, and those of its content."""
        return read_json(self.record) if self.record.is_file() else {}

    def is_good(self, archive: Archive) -> bool:
        """Whether the archive's content is there, by name and, where this program put it there, by size."""
        target = self.root / archive.target
        if not target.exists() or complaint(archive, target, self.root):
            return False
        known = self.records().get(archive.name)
        # What else lies among the images does not count.
        unpacked = _bytes_in(target, archive.suffix)
        return known is None or known == {"bytes": self.sizes[archive.name], "unpacked": unpacked}

    def missing_bytes(self, archive: Archive) -> int:
        """About how much the disk must still take for an archive."""
        packed, fresh = self.packed(archive), self.fresh(archive)
        there = sum(_bytes_in(path) for path in (packed, fresh) if path.exists())
        return max(0, round(self.sizes[archive.name] * GROWTH[archive.suffix]) - there)

    def fetch(self, archive: Archive, kaggle: Kaggle) -> None:
        """Download, unpack, compare, swap in; goes on where it was interrupted.

        Raises:
            Failure: it did not work; what is damaged has been removed, what is good has been kept.
        """
        packed, plan, size = self.packed(archive), self.plan(archive), self.sizes[archive.name]
        self.work.mkdir(parents=True, exist_ok=True)
        try:
            if not plan.is_file():
                kaggle.download(archive.name, size, packed)
                if packed.stat().st_size != size:
                    raise Damaged(f"is {packed.stat().st_size:,} bytes long, where Kaggle lists {size:,}")
                files.write_json(plan, {"members": [vars(member) for member in contents(packed, archive.suffix)]})
            members = [Member(**member) for member in read_json(plan)["members"]]
            unpack(packed, members, self.fresh(archive))
            wrong = complaint(archive, self.fresh(archive), self.root)
            if wrong:
                raise Damaged(wrong)
        except (Damaged, zipfile.BadZipFile, EOFError, zlib.error) as error:
            self.forget(archive)
            raise Failure(
                f"{archive.name} from Kaggle is damaged: {error}; it has been removed, try again"
            ) from error
        records = self.records()
        records.pop(archive.name, None)
        files.write_json(self.record, records)  # what it says of the old content must not be held against the new
        self.swap_in(archive)
        records[archive.name] = {"bytes": size, "unpacked": _bytes_in(self.root / archive.target, archive.suffix)}
        files.write_json(self.record, records)
        self.forget(archive)

    def swap_in(self, archive: Archive) -> None:
        """Put what was unpacked in the place of what is there, and remove that."""
        target, old = self.root / archive.target, self.old(archive)
        fresh = self.fresh(archive)
        if archive.suffix == ".csv":
            (fresh / archive.target).replace(target)
            return
        if target.exists():
            _remove(old)
            target.rename(old)
        fresh.rename(target)
        _remove(old)

    def forget(self, archive: Archive) -> None:
        """Remove everything that is there for the sake of an archive."""
        packed = self.packed(archive)
        # The plan first: without it what is left of the archive is the beginning of a download.
        for path in (self.plan(archive), packed, packed.with_name(f"{packed.name}.etag"), self.fresh(archive)):
            _remove(path)

    def tidy(self, wanted: Sequence[Archive]) -> None:
        """Remove what is left of archives that are good; those of the other kind may be on their way."""
        for archive in wanted:
            self.forget(archive)
            _remove(self.old(archive))
        if self.work.is_dir() and not any(self.work.iterdir()):
            self.work.rmdir()


class Damaged(Exception):
    """What was downloaded is not what it should be; the message goes on after the archive's name."""


def archives(hq: bool) -> list[Archive]:
    """The archives that make a data folder; the tables come first, because the images are compared with them."""
    kind = "_hq" if hq else ""
    return [
        Archive("sample_submission.csv.zip", "sample_submission.csv", ".csv"),
        Archive("train_masks.csv.zip", "train_masks.csv", ".csv"),
        Archive("metadata.csv.zip", "metadata.csv", ".csv"),
        Archive("train_masks.zip", "train_masks", ".gif"),
        Archive(f"train{kind}.zip", f"train{kind}", ".jpg"),
        Archive(f"test{kind}.zip", f"test{kind}", ".jpg"),
    ]


def contents(packed: Path, suffix: str) -> list[Member]:
    """The members of an archive with that suffix, the last one first."""
    with zipfile.ZipFile(packed) as opened:
        members = [
            Member(
                Path(info.filename).name,
                info.header_offset,
                info.compress_size,
                info.compress_type,
                info.file_size,
                info.CRC,
            )
            for info in opened.infolist()
            if info.filename.endswith(suffix) and not info.filename.startswith("__MACOSX")
        ]
    return sorted(members, key=lambda member: member.offset, reverse=True)


def unpack(packed: Path, members: Sequence[Member], into: Path) -> None:
    """Unpack members, the last one first, and cut each from the archive once it is out.

    Raises:
        Damaged: a member is not what the table of contents says, or one that was unpacked earlier is gone.
        zipfile.BadZipFile, zlib.error, EOFError: a member is damaged.
    """
    into.mkdir(parents=True, exist_ok=True)
    packed.touch()
    with packed.open("rb+") as file:
        left = packed.stat().st_size
        waiting = [member for member in members if member.offset < left]
        for member in tqdm(waiting, desc=packed.name, unit="file", disable=None, leave=False):
            with _opened(file, member) as source, _writable(into / member.name) as out:
                shutil.copyfileobj(source, out, 1 << 20)
            file.truncate(member.offset)
    for member in members:
        path = into / member.name
        if not path.is_file() or path.stat().st_size != member.bytes:
            raise Damaged(f"{member.name} has not the {member.bytes:,} bytes that it should have")


@contextmanager
def _writable(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; raises a Failure that names it where that does not work."""
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        raise Failure(f"cannot write {path}: {os_reason(error)}") from error


def _opened(file: Any, member: Member) -> zipfile.ZipExtFile:
    """A member as a stream that checks its CRC; the archive's table of contents may be gone already."""
    file.seek(member.offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise Damaged(f"{member.name} does not begin where it should")
    _, name, extra = LOCAL_HEADER.unpack(header)
    file.seek(member.offset + LOCAL_HEADER.size + name + extra)
    info = zipfile.ZipInfo(member.name)
    info.compress_type, info.CRC = member.method, member.crc
    info.compress_size, info.file_size = member.packed, member.bytes
    return zipfile.ZipExtFile(file, "r", info)


def complaint(archive: Archive, there: Path, root: Path) -> str | None:
    """What is wrong with an archive's content: a table, or a folder of images whose names are in a table of ``root``.

    Args:
        archive: which.
        there: the table, or the folder of the images or of the freshly unpacked table.
        root: the data folder.
    """
    if archive.suffix == ".csv":
        table = there / archive.target if there.is_dir() else there
        return _table_complaint(table)
    table = root / ("sample_submission.csv" if archive.target.startswith("test") else "train_masks.csv")
    if not table.is_file():
        return f"cannot be compared with {table.name}, which is not there"
    ending = "_mask.gif" if archive.suffix == ".gif" else archive.suffix
    wanted = {f"{Path(row.img).stem}{ending}" for row in read_rows(table)}
    names = {path.name for path in there.iterdir() if path.suffix == archive.suffix}
    if names == wanted:
        return None
    example = min(names ^ wanted)
    state = "missing" if example in wanted else "one too many"
    return f"its {len(names):,} files are not the {len(wanted):,} that {table.name} names: {example} is {state}"


def _table_complaint(table: Path) -> str | None:
    """What is wrong with a table: its rows, and how many there are."""
    if not table.is_file():
        return f"holds no {table.name}"
    try:
        if table.name not in ROWS:
            return None if len(DataFolder(table.parent).metadata) else f"{table.name} has no rows"
        rows = sum(1 for _ in read_rows(table))
    except Failure as error:
        return str(error)
    return None if rows == ROWS[table.name] else f"{table.name} has {rows:,} rows, not {ROWS[table.name]:,}"


def _bytes_in(target: Path, suffix: str = "") -> int:
    paths: Iterator[Path] = target.glob(f"*{suffix}") if target.is_dir() else iter([target])
    return sum(path.stat().st_size for path in paths)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _require_space(download: Download, waiting: Sequence[Archive]) -> None:
    """Say how much is needed and how much there is; raise a Failure where that is too little."""
    needed = sum(download.missing_bytes(archive) for archive in waiting)
    free = shutil.disk_usage(download.root).free
    print(
        f"{len(waiting)} archives are needed: about {_gigabytes(needed)} in {download.root}, where "
        f"{_gigabytes(free)} are free",
        flush=True,
    )
    if free < needed:
        raise Failure(
            f"{download.root} has {_gigabytes(free)} free, and about {_gigabytes(needed)} are needed; free some, or "
            "name a folder on a larger disk with DATA=..."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Download what is missing."""
    arguments = parser("Download and verify Carvana's data from Kaggle.")
    arguments.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    arguments.add_argument("--hq", action="store_true", help="train_hq and test_hq in place of train and test")
    add_patience_arguments(arguments)
    options = arguments.parse_args(argv)
    root: Path = options.data
    kaggle = Kaggle(patience(options))
    with files.held(root / ".download.lock", f"another `make data` works on {root}; wait for it"):
        download = Download(root, kaggle.files())
        wanted = archives(options.hq)
        unknown = [archive.name for archive in wanted if archive.name not in download.sizes]
        if unknown:
            raise Failure(f"Kaggle does not list {', '.join(unknown)}; it lists {', '.join(sorted(download.sizes))}")
        # Images that are there can be told to be good once the tables that name them are.
        for kind in ({".csv"}, {".gif", ".jpg"}):
            waiting = [each for each in wanted if each.suffix in kind and not download.is_good(each)]
            if waiting:
                _require_space(download, waiting)
            for archive in waiting:
                print(f"{archive.name} ({_gigabytes(download.sizes[archive.name])})", flush=True)
                download.fetch(archive, kaggle)
        download.tidy(wanted)
    print(
        f"{root} is complete: {ROWS['train_masks.csv']:,} training photos with their masks, "
        f"{ROWS['sample_submission.csv']:,} test photos"
    )


if __name__ == "__main__":
    run_command(main)
