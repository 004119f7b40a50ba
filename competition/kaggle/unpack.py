"""Unpack a zip file of Kaggle's into one folder, and resume if that was interrupted.

An archive that was downloaded shrinks while it is unpacked, so that the disk holds the data once and not twice. Its
members are unpacked from the last to the first. After each member, the zip file is cut off where that member started.
The table of contents is at the end of a zip file, and the first cut removes it, so the list of members is read
before. An archive of someone else is only read.
"""

import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from competition.command import Failure, os_reason

LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member: signature, length of the name, length of the extra field
# Bytes of one unpacked file, at most. A photo has up to 2 MB, and Kaggle's largest table 46 MB. A zip bomb has more.
LARGEST = {".csv": 1 << 29, ".jpg": 1 << 26, ".gif": 1 << 26}
KINDS = 4  # suffixes in a message
BLOCK = 4096  # bytes; a file occupies whole blocks of a disk


class Damaged(Exception):
    """An archive is not what it should be; the message continues after the archive's name."""


@dataclass(frozen=True)
class Member:
    """A file in an archive: where it starts, how it is compressed, and its size and CRC when unpacked."""

    name: str
    offset: int
    compressed_bytes: int
    method: int
    bytes: int
    crc: int


def list_members(archive: Path, suffix: str) -> list[Member]:
    """The members of an archive with that suffix, the last one first.

    Hidden files and macOS's ``__MACOSX`` are left out.

    Raises:
        Damaged: it is not a zip file, or one that no one made from Kaggle's data.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise Damaged(str(error)) from error
    except OSError as error:
        raise Failure(f"cannot read {archive}: {os_reason(error)}") from error
    members = [_member(info, path.name) for info in infos if (path := _path(info)) and _is_data(path, suffix)]
    members.sort(key=lambda member: member.offset, reverse=True)
    _refuse_bombs(members, suffix)
    return members


def kinds_in(archive: Path) -> str:
    """The suffixes of an archive's files with their counts, such as ``.png (5,088)``; empty if it has none."""
    with zipfile.ZipFile(archive) as opened:
        paths = [path for info in opened.infolist() if not info.is_dir() and (path := _path(info))]
    counts = Counter(path.suffix or path.name for path in paths if _is_shown(path))
    return ", ".join(f"{kind} ({count:,})" for kind, count in counts.most_common(KINDS))


def missing_bytes(members: Sequence[Member], folder: Path) -> int:
    """About how many bytes the members that are not in a folder yet occupy on a disk."""
    return sum(-(-each.bytes // BLOCK) * BLOCK for each in members if not _is_unpacked(each, folder))


def unpack(archive: Path, members: Sequence[Member], folder: Path) -> None:
    """Unpack the members that are not in a folder yet; the archive is only read.

    Raises:
        Damaged: a member is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [member for member in reversed(members) if not _is_unpacked(member, folder)]
    try:
        with archive.open("rb") as file:
            for member in tqdm(waiting, desc=archive.name, unit="file", disable=None, leave=False):
                _unpack_member(file, member, folder)
    except OSError as error:
        raise Failure(f"cannot read {archive}: {os_reason(error)}") from error


def unpack_and_shrink(archive: Path, members: Sequence[Member], folder: Path) -> None:
    """Unpack the members that are still in an archive into a folder, and shrink the archive.

    Raises:
        Damaged: a member is damaged, or a member that was unpacked before is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive.touch()
    with archive.open("rb+") as file:
        size = archive.stat().st_size
        waiting = [member for member in members if member.offset < size]
        for member in tqdm(waiting, desc=archive.name, unit="file", disable=None, leave=False):
            _unpack_member(file, member, folder)
            file.truncate(member.offset)
    for member in members:
        if not _is_unpacked(member, folder):
            raise Damaged(f"{member.name} does not have {member.bytes:,} bytes")


def _path(info: zipfile.ZipInfo) -> PurePosixPath:
    """The path of a member in its archive. Only the name is used, but another path is no accident."""
    path = PurePosixPath(info.filename.replace("\\", "/"))  # some Windows programs write backslashes
    if path.is_absolute() or ".." in path.parts:
        raise Damaged(f"its member {info.filename!r} would be written outside of the data folder")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise Damaged(f"its member {info.filename!r} is a link, not a file")
    return path


def _is_data(path: PurePosixPath, suffix: str) -> bool:
    return path.suffix == suffix and _is_shown(path)


def _is_shown(path: PurePosixPath) -> bool:
    return not path.name.startswith(".") and "__MACOSX" not in path.parts


def _member(info: zipfile.ZipInfo, name: str) -> Member:
    if info.flag_bits & 1:
        raise Damaged(f"{name} in it is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Damaged(f"{name} in it is compressed with method {info.compress_type}, not with deflate")
    return Member(name, info.header_offset, info.compress_size, info.compress_type, info.file_size, info.CRC)


def _refuse_bombs(members: Sequence[Member], suffix: str) -> None:
    """Raise Damaged if a member is too large, if two have one name, or if two share compressed bytes."""
    names: set[str] = set()
    for member in members:
        if member.bytes > LARGEST[suffix]:
            raise Damaged(f"{member.name} in it has {member.bytes:,} bytes, more than any file of the competition")
        if member.name in names:
            raise Damaged(f"it holds {member.name} twice")
        names.add(member.name)
    for later, member in pairwise(members):
        if member.offset + LOCAL_HEADER.size + member.compressed_bytes > later.offset:
            raise Damaged(f"{member.name} and {later.name} in it overlap")


def _is_unpacked(member: Member, folder: Path) -> bool:
    path = folder / member.name
    return path.is_file() and path.stat().st_size == member.bytes


def _unpack_member(file: IO[bytes], member: Member, folder: Path) -> None:
    """Write the content of a member to its temporary name, and rename it: a file with its own name is complete."""
    path, temporary = folder / member.name, folder / f".{member.name}.part"
    try:
        content = _content(file, member)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise Damaged(str(error) or f"{member.name} in it ends too early") from error
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise Failure(f"cannot write {path}: {os_reason(error)}") from error


def _content(file: Any, member: Member) -> bytes:
    """The content of a member; reading it checks the CRC."""
    file.seek(member.offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise Damaged(f"{member.name} does not start where the table of contents says")
    _, name_length, extra_length = LOCAL_HEADER.unpack(header)
    file.seek(member.offset + LOCAL_HEADER.size + name_length + extra_length)
    info = zipfile.ZipInfo(member.name)
    info.compress_type, info.CRC = member.method, member.crc
    info.compress_size, info.file_size = member.compressed_bytes, member.bytes
    with zipfile.ZipExtFile(file, "r", info) as source:
        content = source.read(member.bytes)  # never more than that is decompressed
    if len(content) < member.bytes:
        raise Damaged(f"{member.name} in it does not have {member.bytes:,} bytes")
    return content
