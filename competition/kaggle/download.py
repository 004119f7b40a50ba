"""Download Carvana's data from Kaggle, in Kaggle's layout: ``make data``.

Each archive is downloaded, unpacked, compared with the list of names in its table, and moved into place. The command
can be killed at any time; run it again and it resumes. Data that is there and complete is not downloaded again.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from competition.command import Failure, parser, run_command
from competition.data_folder import DataFolder
from competition.files import held, read_json, write_json
from competition.kaggle.client import Kaggle, add_retry_arguments, retry_policy
from competition.kaggle.unpack import Damaged, Member, list_members, unpack
from competition.mask_table import read_rows
from competition.run.folder import DEFAULT_DATA

# Number of images, by the table that names them.
ROWS = {"train_masks.csv": 5_088, "sample_submission.csv": 100_064}
GROWTH = {".csv": 4.0, ".jpg": 1.05, ".gif": 1.05}  # unpacked size / archive size, at most


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


class Download:
    """The download into one data folder.

    Args:
        root: the data folder.
        sizes: the competition's files, name to bytes.
    """

    def __init__(self, root: Path, sizes: dict[str, int]) -> None:
        self.root = root
        self.sizes = sizes
        self.work = root / ".download"
        self.record = root / "downloaded.json"
        # Archive name to its bytes and those of its content, for each archive that was moved into place.
        self.downloaded = read_json(self.record) if self.record.is_file() else {}

    def is_complete(self, archive: Archive) -> bool:
        """Whether the content of an archive is there: its names, and its size if this command downloaded it."""
        target = self.root / archive.target
        if not target.exists() or find_problem(archive, target, self.root):
            return False
        known = self.downloaded.get(archive.name)
        return known is None or known == self._sizes_of(archive)

    def missing_bytes(self, archive: Archive) -> int:
        """About how many bytes an archive still needs on the disk."""
        present = sum(_bytes_in(path) for path in (self._zip(archive), self._unpacked(archive)) if path.exists())
        return max(0, round(self.sizes[archive.name] * GROWTH[archive.suffix]) - present)

    def fetch(self, archive: Archive, kaggle: Kaggle) -> None:
        """Download an archive, unpack it, check its content, and move that into place; resumes."""
        self.work.mkdir(parents=True, exist_ok=True)
        unpacked = self._unpacked(archive)
        try:
            unpack(self._zip(archive), self._members(archive, kaggle), unpacked)
            if problem := find_problem(archive, unpacked, self.root):
                raise Damaged(problem)
        except Damaged as error:
            self._remove_zip(archive)
            raise Failure(
                f"{archive.name} from Kaggle is damaged: {error}; it was removed, run the same command again"
            ) from error
        # The sizes of the old content must not be compared with the new content, so they are removed first.
        self.downloaded.pop(archive.name, None)
        write_json(self.record, self.downloaded)
        self._move_into_place(archive)
        self.downloaded[archive.name] = self._sizes_of(archive)
        write_json(self.record, self.downloaded)
        self._remove_zip(archive)

    def remove_leftovers(self, archives: Sequence[Archive]) -> None:
        """Remove the temporary files of complete archives; other archives may be partly downloaded."""
        for archive in archives:
            self._remove_zip(archive)
            _remove(self._replaced(archive))
        if self.work.is_dir() and not any(self.work.iterdir()):
            self.work.rmdir()

    def _zip(self, archive: Archive) -> Path:
        return self.work / archive.name

    def _member_list(self, archive: Archive) -> Path:
        """The list of an archive's members; exists once the archive is complete."""
        return self.work / f"{archive.name}.json"

    def _unpacked(self, archive: Archive) -> Path:
        return self.work / f"{archive.target}.new"

    def _replaced(self, archive: Archive) -> Path:
        """Where the old content is while the new one is moved into place."""
        return self.work / f"{archive.target}.old"

    def _members(self, archive: Archive, kaggle: Kaggle) -> list[Member]:
        """Download an archive unless it is complete; returns its members."""
        path, member_list, size = self._zip(archive), self._member_list(archive), self.sizes[archive.name]
        if member_list.is_file():
            return [Member(**member) for member in read_json(member_list)["members"]]
        kaggle.download(archive.name, size, path)
        if path.stat().st_size != size:
            raise Damaged(f"it has {path.stat().st_size:,} bytes, and Kaggle lists {size:,}")
        members = list_members(path, archive.suffix)
        write_json(member_list, {"members": [asdict(member) for member in members]})
        return members

    def _move_into_place(self, archive: Archive) -> None:
        target, replaced, unpacked = self.root / archive.target, self._replaced(archive), self._unpacked(archive)
        if archive.suffix == ".csv":
            (unpacked / archive.target).replace(target)
            return
        if target.exists():
            _remove(replaced)
            target.rename(replaced)
        unpacked.rename(target)
        _remove(replaced)

    def _sizes_of(self, archive: Archive) -> dict[str, int]:
        """What downloaded.json holds for an archive; other files in the folder do not count."""
        unpacked = _bytes_in(self.root / archive.target, archive.suffix)
        return {"bytes": self.sizes[archive.name], "unpacked": unpacked}

    def _remove_zip(self, archive: Archive) -> None:
        path = self._zip(archive)
        # The list of members first: without it, the rest of an archive counts as a partial download.
        for each in (self._member_list(archive), path, path.with_name(f"{path.name}.etag"), self._unpacked(archive)):
            _remove(each)


def archives(hq: bool) -> list[Archive]:
    """The archives of a data folder; tables first, because the images are compared with them."""
    kind = "_hq" if hq else ""
    return [
        Archive("sample_submission.csv.zip", "sample_submission.csv", ".csv"),
        Archive("train_masks.csv.zip", "train_masks.csv", ".csv"),
        Archive("metadata.csv.zip", "metadata.csv", ".csv"),
        Archive("train_masks.zip", "train_masks", ".gif"),
        Archive(f"train{kind}.zip", f"train{kind}", ".jpg"),
        Archive(f"test{kind}.zip", f"test{kind}", ".jpg"),
    ]


def find_problem(archive: Archive, content: Path, root: Path) -> str | None:
    """What is wrong with the content of an archive, or None.

    Args:
        archive: the archive.
        content: the table, or the folder with the table or the images.
        root: the data folder, with the table that names the images.
    """
    if archive.suffix == ".csv":
        return _table_problem(content / archive.target if content.is_dir() else content)
    table = root / ("sample_submission.csv" if archive.target.startswith("test") else "train_masks.csv")
    if not table.is_file():
        return f"there is no {table.name} to compare it with"
    ending = "_mask.gif" if archive.suffix == ".gif" else archive.suffix
    expected = {f"{Path(row.img).stem}{ending}" for row in read_rows(table)}
    names = {path.name for path in content.iterdir() if path.suffix == archive.suffix}
    if names == expected:
        return None
    example = min(names ^ expected)
    state = "missing" if example in expected else "not in the table"
    return f"it has {len(names):,} files, and {table.name} names {len(expected):,}; {example} is {state}"


def _table_problem(table: Path) -> str | None:
    if not table.is_file():
        return f"there is no {table.name} in it"
    try:
        if table.name == "metadata.csv":
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


def _size_text(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _require_space(download: Download, waiting: Sequence[Archive]) -> None:
    """Print the space that is needed and the space that is free; raise a Failure if it is too little."""
    needed = sum(download.missing_bytes(archive) for archive in waiting)
    free = shutil.disk_usage(download.root).free
    print(
        f"{len(waiting)} archives to download: about {_size_text(needed)} needed in {download.root}, "
        f"{_size_text(free)} free",
        flush=True,
    )
    if free < needed:
        raise Failure(
            f"{download.root} has {_size_text(free)} free, but about {_size_text(needed)} are needed; free some "
            "space, or name a folder on a larger disk with DATA=..."
        )


def download_all(root: Path, hq: bool, kaggle: Kaggle) -> None:
    """Download everything that is missing in a data folder."""
    download = Download(root, kaggle.files())
    wanted = archives(hq)
    unlisted = [archive.name for archive in wanted if archive.name not in download.sizes]
    if unlisted:
        raise Failure(
            f"Kaggle does not list {', '.join(unlisted)}, but {', '.join(sorted(download.sizes))}; see whether the "
            "competition's data has changed"
        )
    # Tables first: whether the images are complete is known once the tables are there.
    for suffixes in ({".csv"}, {".gif", ".jpg"}):
        waiting = [each for each in wanted if each.suffix in suffixes and not download.is_complete(each)]
        if waiting:
            _require_space(download, waiting)
        for archive in waiting:
            print(f"{archive.name} ({_size_text(download.sizes[archive.name])})", flush=True)
            download.fetch(archive, kaggle)
    download.remove_leftovers(wanted)


def main(argv: Sequence[str] | None = None) -> None:
    """Download what is missing."""
    arguments = parser("Download and verify Carvana's data from Kaggle.")
    arguments.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    arguments.add_argument("--hq", action="store_true", help="train_hq and test_hq instead of train and test")
    add_retry_arguments(arguments)
    options = arguments.parse_args(argv)
    root: Path = options.data
    busy = f"another `make data` is writing to {root}; wait for it, then run the same command again"
    with held(root / ".download.lock", busy):
        download_all(root, options.hq, Kaggle(retry_policy(options)))
    print(
        f"{root} is complete: {ROWS['train_masks.csv']:,} training photos with masks, "
        f"{ROWS['sample_submission.csv']:,} test photos"
    )


if __name__ == "__main__":
    run_command(main)
