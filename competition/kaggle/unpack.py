"""Unpack a zip file while shrinking it, so that the disk holds the data once and not twice.

The members are unpacked from the last to the first. After each member, the zip file is cut off where that member
started. Unpacking can be interrupted at any time and resumes. The table of contents is at the end of a zip file, and
the first cut removes it, so the list of members is read before.
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

from competition.command import Failure, os_reason

LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member: signature, length of the name, length of the extra field


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

    Raises:
        Damaged: it is not a zip file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
    except zipfile.BadZipFile as error:
        raise Damaged(str(error)) from error
    members = [
        Member(
            Path(info.filename).name,
            info.header_offset,
            info.compress_size,
            info.compress_type,
            info.file_size,
            info.CRC,
        )
        for info in infos
        if info.filename.endswith(suffix) and not info.filename.startswith("__MACOSX")
    ]
    return sorted(members, key=lambda member: member.offset, reverse=True)


def unpack(archive: Path, members: Sequence[Member], folder: Path) -> None:
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
            _unpack_member(file, member, folder / member.name)
            file.truncate(member.offset)
    for member in members:
        path = folder / member.name
        if not path.is_file() or path.stat().st_size != member.bytes:
            raise Damaged(f"{member.name} does not have {member.bytes:,} bytes")


def _unpack_member(file: IO[bytes], member: Member, path: Path) -> None:
    try:
        with _member_stream(file, member) as source, _open_to_write(path) as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise Damaged(str(error)) from error


def _member_stream(file: Any, member: Member) -> zipfile.ZipExtFile:
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
    return zipfile.ZipExtFile(file, "r", info)


@contextmanager
def _open_to_write(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        raise Failure(f"cannot write {path}: {os_reason(error)}") from error
