"""Put Carvana's data into a data folder, in Kaggle's layout: ``make data``.

Each archive is downloaded, unpacked, compared with the list of names in its table, and moved into place. ``--from``
takes the archives from a folder instead. The command can be killed at any time; run it again and it resumes. Data
that is there and complete is not downloaded again.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from competition.command import Failure, parser, run_command
from competition.files import held, read_json, write_json
from competition.kaggle.archives import ROWS, Archive, archives, image_names
from competition.kaggle.client import Kaggle, add_retry_arguments, retry_policy
from competition.kaggle.source_folder import SourceFolder, available, require_apart
from competition.kaggle.staging import DOWNLOAD, Staging, complete, size_text
from competition.kaggle.unpack import Damaged, Member, list_members, unpack_and_shrink
from competition.plural import counted
from competition.run.folder import DEFAULT_DATA

GROWTH = {".csv": 4.0, ".jpg": 1.05, ".gif": 1.05}  # unpacked size / archive size, at most


class Download:
    """Kaggle, as the source of a data folder.

    Args:
        root: the data folder.
        kaggle: the client.
        sizes: the competition's files, name to bytes.
    """

    verb = "download"

    def __init__(self, root: Path, kaggle: Kaggle, sizes: dict[str, int]) -> None:
        self.staging = Staging(root, DOWNLOAD, whole=True)
        self.kaggle = kaggle
        self.sizes = sizes

    def is_complete(self, archive: Archive) -> bool:
        """Whether the content of an archive is there: its names, and its size if this command downloaded it."""
        return self.staging.is_complete(archive, self.sizes[archive.name])

    def missing_bytes(self, archive: Archive) -> int:
        """About how many bytes an archive still needs on the disk."""
        packed, unpacked = self.staging.zip_file(archive), self.staging.unpacked(archive)
        files = [packed, *(unpacked.iterdir() if unpacked.is_dir() else ())]
        present: int = sum(path.stat().st_size for path in files if path.is_file())
        return max(0, int(self.sizes[archive.name] * GROWTH[archive.suffix]) - present)

    def fetch(self, archive: Archive) -> None:
        """Download an archive, unpack it, check its content, and move that into place; resumes."""
        size = self.sizes[archive.name]
        print(f"{archive.name} ({size_text(size)})", flush=True)
        self.staging.work.mkdir(parents=True, exist_ok=True)
        try:
            members = self._members(archive)
            unpack_and_shrink(self.staging.zip_file(archive), members, self.staging.unpacked(archive))
            self.staging.put_in_place(archive, size)
        except Damaged as error:
            self.staging.discard(archive)
            raise Failure(
                f"{archive.name} from Kaggle is damaged: {error}; it was removed, run the same command again"
            ) from error

    def _members(self, archive: Archive) -> list[Member]:
        """Download an archive unless it is complete; returns its members."""
        path, member_list = self.staging.zip_file(archive), self.staging.member_list(archive)
        size = self.sizes[archive.name]
        if member_list.is_file():
            return [Member(**member) for member in read_json(member_list)["members"]]
        self.kaggle.download(archive.name, size, path)
        if path.stat().st_size != size:
            raise Damaged(f"it has {path.stat().st_size:,} bytes, and Kaggle lists {size:,}")
        members = list_members(path, archive.suffix)
        write_json(member_list, {"members": [asdict(member) for member in members]})
        return members


def download_all(root: Path, wanted: Sequence[Archive], kaggle: Kaggle) -> None:
    """Download everything that is missing in a data folder."""
    download = Download(root, kaggle, kaggle.files())
    unlisted = [archive.name for archive in wanted if archive.name not in download.sizes]
    if unlisted:
        raise Failure(
            f"Kaggle does not list {', '.join(unlisted)}, but {', '.join(sorted(download.sizes))}; see whether the "
            "competition's data has changed"
        )
    complete(download, wanted)


def summary(root: Path, hq: bool) -> str:
    """How many photos a data folder has now, in one line."""
    train, test = (
        sum(1 for _ in image_names(archive, root / archive.target)) if (root / archive.target).is_dir() else 0
        for archive in archives(hq)
        if archive.suffix == ".jpg"
    )
    every = ROWS["train_masks.csv"], ROWS["sample_submission.csv"]
    part = f" (Kaggle has {every[0]:,} and {every[1]:,})" if (train, test) != every else ""
    predicted = counted(test, "test photo") if test else "no test photos"
    return f"{root} is complete: {counted(train, 'training photo')} with masks, {predicted}{part}"


def main(argv: Sequence[str] | None = None) -> None:
    """Download what is missing, or take it from a folder."""
    arguments = parser("Put Carvana's data into a data folder: download it from Kaggle, or take it from a folder.")
    arguments.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    arguments.add_argument(
        "--from",
        dest="source",
        metavar="FOLDER",
        type=Path,
        help="folder with Kaggle's zip files, or with what is in them; it is only read, and nothing is downloaded",
    )
    arguments.add_argument("--only", choices=["train"], help="leave out the test photos and sample_submission.csv")
    arguments.add_argument("--hq", action="store_true", help="train_hq and test_hq instead of train and test")
    add_retry_arguments(arguments)
    options = arguments.parse_args(argv)
    root: Path = options.data
    wanted = archives(options.hq, only_train=options.only == "train")
    if options.source:
        require_apart(options.source, root)
    busy = f"another `make data` is writing to {root}; wait for it, then run the same command again"
    with held(root / ".download.lock", busy):
        if options.source:
            source = SourceFolder(options.source, root)
            complete(source, available(source, wanted))
        else:
            download_all(root, wanted, Kaggle(retry_policy(options)))
    print(summary(root, options.hq))


if __name__ == "__main__":
    run_command(main)
