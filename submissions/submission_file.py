"""The submission file: a CSV of ``img,rle_mask`` with a row for every test image.

Carvana's is 870 MB of text, so rows pass through one at a time and the file is gzipped, which Kaggle takes.
It is written whole with ``write``, or in parts with ``write_shard`` and then ``join``: gzip files concatenate, so
that joining only copies bytes. The same rows in the same shards always give the same bytes.
"""

import csv
import gzip
import io
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from competition.command import Failure, os_reason
from competition.files import replacing
from competition.mask_table import read_rle_rows

Row = tuple[str, str]
HEADER = ("img", "rle_mask")
# For 870 MB of real masks: level 1 takes 8 s and leaves 401 MB, 2: 9 s and 394 MB, 4: 15 s and 380 MB,
# 6: 53 s and 370 MB. At 20 Mbit/s upwards, 2 and what the upload then takes is the least in sum.
COMPRESSION = 2


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a submission, gzipped where the name ends in .gz, atomically.

    Args:
        path: the file, replaced once all rows are written.
        rows: (image name, run-length code); read as they are written.

    Raises:
        Failure: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".gz":
            with _gzip_member(file) as member:
                _write_rows(member, [HEADER])
                _write_rows(member, rows)
        else:
            _write_rows(file, [HEADER])
            _write_rows(file, rows)


def write_shard(path: Path, rows: Iterable[Row]) -> None:
    """Write some rows of a submission, without a header, as one gzip member, atomically.

    Raises:
        Failure: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file, _gzip_member(file) as member:
        _write_rows(member, rows)


def read_shard(path: Path) -> Iterator[Row]:
    """The rows of a file of ``write_shard``, one at a time.

    Raises:
        Failure: the file cannot be read, or is damaged.
    """
    try:
        with gzip.open(path, "rt", newline="", encoding="utf-8") as text:
            yield from ((img, code) for img, code in csv.reader(text))
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise Failure(f"{path} is damaged ({error}); remove it, and its images are predicted again") from error


def join(path: Path, shards: Sequence[Path]) -> None:
    """Make a submission of shards, in their order, atomically.

    The bytes are those of a header followed by those of the shards, whatever the time and the name.

    Raises:
        Failure: the name does not end in .gz, a shard cannot be read, or the file cannot be written.
    """
    if path.suffix != ".gz":
        raise Failure(f"{path}: a submission joined of shards is gzipped; give it a name that ends in .csv.gz")
    with replacing(path) as temporary, temporary.open("wb") as file:
        with _gzip_member(file) as member:
            _write_rows(member, [HEADER])
        for shard in shards:
            _append(file, shard)


def read(path: Path) -> Iterator[tuple[int, str, str]]:
    """The rows of a submission, gzipped or not, one at a time: (line number, image name, run-length code).

    Raises:
        Failure: the file cannot be read, the header is another, or a row does not have two fields.
    """
    return read_rle_rows(path)


@contextmanager
def _gzip_member(file: IO[bytes]) -> Iterator[gzip.GzipFile]:
    """A gzip stream into an open file; neither the name nor the time goes into its header."""
    with gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION, fileobj=file, mtime=0) as member:
        yield member


def _write_rows(file: IO[bytes] | gzip.GzipFile, rows: Iterable[Row]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    text.detach()  # flushes, and leaves the file open


def _append(file: IO[bytes], shard: Path) -> None:
    try:
        source = shard.open("rb")
    except OSError as error:
        raise Failure(f"cannot read {shard}: {os_reason(error)}; predict its images again") from error
    with source:
        shutil.copyfileobj(source, file, length=1 << 20)
