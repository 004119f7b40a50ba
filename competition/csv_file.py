"""CSV files from outside, as pandas reads them: plain, gzipped or zipped, with a byte order mark, with blank lines.

The first bytes decide how a file is packed, because browsers and people rename files.
"""

import csv
import errno
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, Any, NamedTuple

from competition.command import Failure, os_reason
from competition.names import canonical

# A row of a large mask with a fine outline is longer than the csv module's default limit of 131,072 characters.
csv.field_size_limit(2**31 - 1)


class Packing(StrEnum):
    """How a file is packed; the value is for messages."""

    PLAIN = "plain text"
    GZIP = "gzip"
    ZIP = "zip"


PACKED = {b"\x1f\x8b": Packing.GZIP, b"PK\x03\x04": Packing.ZIP, b"PK\x05\x06": Packing.ZIP}
# Files that are sometimes named .csv, by their first bytes.
FOREIGN = {
    b"\xff\xfe\x00\x00": "UTF-32 text",
    b"\x00\x00\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"7z\xbc\xaf": "a 7-Zip file",
    b"Rar!": "a RAR file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF file",
    b"<": "a web page or an XML file",
}
LONGEST_MAGIC = 5


class Line(NamedTuple):
    """The fields of a row, and the number of the line in which it begins, from 1."""

    number: int
    fields: list[str]


class BadLine(NamedTuple):
    """A line that is not CSV, and why."""

    number: int
    reason: str


class Table(NamedTuple):
    """The header of a CSV, and its rows, each with as many fields."""

    header: list[str]
    rows: list[Line]


def packing_of(path: Path) -> Packing:
    """How a file is packed, by its first bytes."""
    try:
        with path.open("rb") as file:
            return _packing(_start(file))
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error


def lines(path: Path) -> Iterator[Line | BadLine]:
    """Every line of a CSV that is not blank, one at a time, in the Unicode form of the names in a data folder.

    Raises:
        Failure: the file cannot be read to its end.
    """
    with _named_errors(path), _open(path) as file:
        reader = csv.reader(file, strict=True)
        while True:
            number = reader.line_num + 1
            try:
                fields = next(reader)
            except csv.Error as error:
                unclosed = reader.line_num > number or "unexpected end" in str(error)
                quote = "; a quote in this line is not closed" if unclosed else ""
                yield BadLine(number, f"not a CSV row: {error}{quote}")
                continue
            except StopIteration:
                return
            if not _is_blank(fields):
                yield Line(number, [canonical(field) for field in fields])


def read(path: Path, columns: Sequence[str] = (), advice: str = "") -> Table:
    """A whole CSV.

    Args:
        path: the file.
        columns: what the header must be; anything if empty.
        advice: what to do about a damaged file; the end of the error message.
    """
    end = f"; {advice}" if advice else ""
    table: Table | None = None
    for line in lines(path):
        if isinstance(line, BadLine):
            raise Failure(f"{path} line {line.number}: {line.reason}{end}")
        if table is None:
            if columns and line.fields != list(columns):
                raise Failure(f"{path} line {line.number}: {header_problem(line.fields, columns)}{end}")
            if len(set(line.fields)) < len(line.fields):
                raise Failure(f"{path} line {line.number}: a column of {_joined(line.fields)} occurs twice{end}")
            table = Table(line.fields, [])
        elif len(line.fields) != len(table.header):
            count = f"{len(line.fields)} fields, not the {len(table.header)} of {_joined(table.header)}"
            raise Failure(f"{path} line {line.number}: {count}{end}")
        else:
            table.rows.append(line)
    if table is None:
        raise Failure(f"{path} is empty{end}")
    return table


def header_problem(fields: Sequence[str], columns: Sequence[str]) -> str:
    """What is wrong with a header, and what to do about usual mistakes."""
    wanted, found = ",".join(columns), ",".join(fields)
    problem = f"the header is {found[:80]!r}, not {wanted!r}"
    if found.replace(";", ",").replace("\t", ",") == wanted:
        return f"{problem}; save the file with commas between the columns"
    if found.partition(",")[2] == wanted:
        return f"{problem}; write it without the first column (pandas: index=False)"
    return problem


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors of a file's content as a Failure that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise Failure(f"{path} is damaged or not UTF-8 text ({byte}); save it as CSV in UTF-8") from error
    except (csv.Error, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise Failure(f"{path} is damaged: {error}") from error
    except RuntimeError as error:  # of zipfile
        reason = "it has a password or an unknown compression"
        raise Failure(f"{path} cannot be unpacked: {reason}; pack it again, as a usual zip") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # of bz2, and a place before the start of a zip
            raise Failure(f"{path} is damaged: {error.strerror or error}") from error
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error


@contextmanager
def _open(path: Path) -> Iterator[TextIOWrapper]:
    """The text of a CSV, unpacked while it is read."""
    with ExitStack() as stack:
        content: Any = stack.enter_context(path.open("rb"))
        packing = _packing(_start(content))
        if packing is Packing.GZIP:
            content = stack.enter_context(gzip.GzipFile(fileobj=content))
        elif packing is Packing.ZIP:
            archive = stack.enter_context(zipfile.ZipFile(content))
            content = stack.enter_context(archive.open(_only_csv(path, archive)))
        start = _start(content)
        if packing is not Packing.PLAIN and _packing(start) is not Packing.PLAIN:
            raise Failure(f"{path} is packed twice: {packing} of {_packing(start)}; unpack it once")
        foreign = next((kind for magic, kind in FOREIGN.items() if start.startswith(magic)), None)
        if foreign or b"\0" in start:
            foreign = foreign or "UTF-16 text or no text at all"
            raise Failure(f"{path} is {foreign}; save it as CSV in UTF-8, plain, gzipped or zipped")
        # Spreadsheet programs put a byte order mark at the start, which utf-8-sig skips.
        yield stack.enter_context(TextIOWrapper(content, newline="", encoding="utf-8-sig"))


def _only_csv(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one CSV of a zip; macOS adds hidden files and the folder __MACOSX."""
    shown = [
        member
        for member in archive.infolist()
        if not member.filename.startswith("__MACOSX/") and not member.filename.rpartition("/")[2].startswith(".")
    ]
    found = [member for member in shown if member.filename.lower().endswith(".csv")]
    if len(found) == 1:
        return found[0]
    if any(member.filename == "xl/workbook.xml" for member in shown):
        raise Failure(f"{path} is an Excel workbook; save it as CSV in UTF-8")
    what = ", ".join(member.filename for member in (found or shown)[:3]) or "nothing"
    raise Failure(f"{path} is a zip with {len(found)} CSV files, not one (it holds {what[:120]}); pack one CSV")


def _start(file: IO[bytes] | BufferedReader) -> bytes:
    """The first bytes of a file, which stay unread."""
    peek = getattr(file, "peek")  # noqa: B009  # typeshed does not know it for zip members
    start: bytes = peek(LONGEST_MAGIC)[:LONGEST_MAGIC]
    return start


def _packing(start: bytes) -> Packing:
    return next((kind for magic, kind in PACKED.items() if start.startswith(magic)), Packing.PLAIN)


def _is_blank(fields: Sequence[str]) -> bool:
    """Whether a line has no fields, or only spaces; a quoted empty field counts."""
    return not fields or (len(fields) == 1 and fields[0] != "" and not fields[0].strip(" \t"))


def _joined(fields: Sequence[str]) -> str:
    return ",".join(fields)[:80]
