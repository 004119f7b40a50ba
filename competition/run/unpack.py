"""``make unpack``: make a run of a packed run, a zip file or the folder it was unpacked to.

Nothing in the file is trusted. It may hold only the files of a run, each with its checksum. They are written to a
folder beside the run, which is renamed when all of them are there.
"""

import hashlib
import re
import shutil
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from competition.command import Failure, parser, run_command
from competition.files import held, sha256
from competition.hint import hint
from competition.run.contents import NAMES, is_packed, require_harmless
from competition.run.folder import RunFolder, run_at
from competition.run.records import Environment

LINE = re.compile(r"([0-9a-f]{64})  (.+)")
NAME = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")  # of a run: one visible folder
RATIO = 100  # of the unpacked to the packed size, at most; our own zips do not compress
SMALL = 10_000  # bytes; a smaller packed file counts as this large
SUMS = NAMES.checksums.as_posix()
LONGEST_LIST = 50_000_000  # bytes of SHA256SUMS


class Source(ABC):
    """A packed run: its name, and its files by their paths in the run.

    Attributes:
        file: as a message names it.
        name: of the run.
        sizes: bytes of each file.
    """

    file: Path
    name: str
    sizes: dict[str, int]

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a file to read it."""


class ZippedRun(Source):
    """A zip file of ``make pack``; a Failure if anything else is in it."""

    def __init__(self, file: Path, archive: zipfile.ZipFile) -> None:
        self.file, self.archive = file, archive
        packed = file.stat().st_size
        members = [member for member in archive.infolist() if not member.is_dir()]
        for member in members:
            self._require_plain(member)
        folders = {member.filename.partition("/")[0] for member in members}
        self.name = folders.pop() if len(folders) == 1 else ""
        self.members = {member.filename.partition("/")[2]: member for member in members}
        self.sizes = {name: member.file_size for name, member in self.members.items()}
        if len(self.members) < len(members):
            raise Failure(f"{file} names a file twice; {_ADVICE}")
        bomb = any(member.file_size > RATIO * max(member.compress_size, SMALL) for member in members)
        if bomb or sum(self.sizes.values()) > RATIO * packed:  # members may overlap
            raise Failure(f"{file} would become more than {RATIO} times as large when it is unpacked; {_ADVICE}")

    def open(self, name: str) -> IO[bytes]:
        """Open a member to read it; reading checks its CRC."""
        return self.archive.open(self.members[name])

    def _require_plain(self, member: zipfile.ZipInfo) -> None:
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise Failure(f"{self.file}: {name} is a link or a device, not a file; {_ADVICE}")
        if member.flag_bits & 1:
            raise Failure(f"{self.file}: {name} is encrypted; {_ADVICE}")
        if not is_packed(name.partition("/")[2]) or not NAME.fullmatch(name.partition("/")[0]):
            raise Failure(f"{self.file}: {name} is not a file of a run; {_ADVICE}")


class UnpackedRun(Source):
    """A folder that a zip file of ``make pack`` was unpacked to; files that its checksums do not list are ignored."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.root = next((path for path in (file, *sorted(file.iterdir())) if (path / SUMS).is_file()), file)
        if not (self.root / SUMS).is_file():
            raise Failure(f"{file} is not a packed run: there is no {SUMS} in it; name a zip file of make pack")
        self.name = self.root.name
        names = [name for name in read_sums(self.file, (self.root / SUMS).read_bytes()) if is_packed(name)]
        self.sizes = {name: self._path(name).stat().st_size for name in [*names, SUMS] if self._path(name).is_file()}

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read it."""
        return self._path(name).open("rb")

    def _path(self, name: str) -> Path:
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise Failure(f"{path} is a link to a file outside of {self.root}; {_ADVICE}")
        return path


_ADVICE = "it is not a file of make pack, or it was changed; nothing was unpacked"


@contextmanager
def opened(file: Path) -> Iterator[Source]:
    """The packed run in a zip file or a folder."""
    if file.is_dir():
        yield UnpackedRun(file)
        return
    if not file.is_file():
        raise Failure(f"no file {file}; FILE must name a zip file of make pack")
    try:
        with zipfile.ZipFile(file) as archive:
            yield ZippedRun(file, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError) as error:
        raise Failure(f"{file} is damaged or not a zip file ({error}); copy it again") from error


def read_sums(file: Path, content: bytes) -> dict[str, str]:
    """The checksums of a packed run: file to SHA-256."""
    sums = {}
    for line in content.decode("utf-8", errors="replace").split("\n")[:-1]:
        match = LINE.fullmatch(line)
        if match is None:
            raise Failure(f"{file}: {SUMS} has the line {line[:80]!r}; {_ADVICE}")
        sums[match[2]] = match[1]
    return sums


def unpack(source: Source, name: str | None = None) -> tuple[RunFolder, bool]:
    """Make a run of a packed run; returns it, and whether it was not there before.

    Args:
        source: the packed run.
        name: of the run to make; by default the name it was packed with.
    """
    sums = checked_sums(source)
    run = run_at(name or source.name)
    if not name and not NAME.fullmatch(source.name):
        raise Failure(f"{source.file} does not tell the name of its run; name it: RUN=...")
    parent, part = run.root.parent, run.root.with_name(f".{run.name}.part")
    with held(parent / ".unpack.lock", f"another make unpack is writing to {parent}"):
        if run.root.exists():
            require_same(run, sums, source)
            return run, False
        _require_space(parent, source)
        shutil.rmtree(part, ignore_errors=True)
        try:
            write_files(source, sums, RunFolder(part))
            with source.open(SUMS) as file:
                (part / SUMS).write_bytes(file.read())
            part.rename(run.root)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return run, True


def checked_sums(source: Source) -> dict[str, str]:
    """The checksums of a packed run, which must list exactly its files."""
    if source.sizes.get(SUMS, LONGEST_LIST) >= LONGEST_LIST:
        raise Failure(f"{source.file} is not a packed run: there is no {SUMS} in it; name a zip file of make pack")
    with source.open(SUMS) as file:
        sums = read_sums(source.file, file.read())
    different = sorted(sums.keys() ^ (source.sizes.keys() - {SUMS}))
    if different:
        state = "missing" if different[0] in sums else f"not in {SUMS}"
        raise Failure(f"{source.file}: {different[0]} is {state}; {_ADVICE}")
    for needed in (NAMES.settings, NAMES.environment, NAMES.folds):
        if needed.as_posix() not in sums:
            raise Failure(f"{source.file} is not a packed run: there is no {needed} in it; {_ADVICE}")
    return sums


def require_same(run: RunFolder, sums: dict[str, str], source: Source) -> None:
    """Raise a Failure unless a run that exists has the files of a packed run."""
    for name, digest in sums.items():
        path = run.root / name
        if name != NAMES.model_card.as_posix() and not (path.is_file() and digest in _digests(path)):
            raise Failure(
                f"run {run.root} exists, and its {name} is not that of {source.file}; unpack under another name with "
                "RUN=..., or remove that run first"
            )


def _digests(path: Path) -> set[str]:
    """The SHA-256 of a file of a run, and what it is in a packed run that may be shared."""
    if path.name != NAMES.environment.name:
        return {sha256(path)}
    return {sha256(path), hashlib.sha256(Environment.read(path).shared.text.encode()).hexdigest()}


def write_files(source: Source, sums: dict[str, str], run: RunFolder) -> None:
    """Write the files of a packed run to a folder, and check them."""
    for name, expected in sums.items():
        path = run.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with source.open(name) as file, path.open("wb") as target:
            shutil.copyfileobj(file, target, 1 << 20)
        if sha256(path) != expected:
            raise Failure(f"{source.file}: {name} does not have its checksum; copy the file again")
        if path.name == NAMES.last(0).name:
            require_harmless(path)


def _require_space(folder: Path, source: Source) -> None:
    needed, free = sum(source.sizes.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise Failure(
            f"{source.file} needs {needed / 1e9:,.1f} GB, and {folder} has {free / 1e9:,.1f} GB free; free some space"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Unpack a packed run."""
    arguments = parser("Make a run of a packed run: a zip file of make pack, or the folder it was unpacked to.")
    arguments.add_argument("--file", type=Path, required=True, help="the zip file or folder")
    arguments.add_argument("--run", help="name of the run to make; by default the one it was packed with")
    options = arguments.parse_args(argv)
    with opened(options.file) as source:
        run, new = unpack(source, options.run)
    called = run.called
    state = "resume it: " if any(run.root.glob(f"*/{NAMES.last(0).name}")) else ""
    print(
        f"{run.root} {'is unpacked' if new else 'is there already, with the same files'}; next: {state}"
        f"{hint('cv', RUN=called)}, or {hint('predict', RUN=called)}; add DATA=... if the data is in another folder "
        "now"
    )


if __name__ == "__main__":
    run_command(main)
