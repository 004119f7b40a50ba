"""Writing the submission file: a CSV of ``img,rle_mask`` with a row for every test image.

Carvana's has 870 MB of text, so rows are written one at a time and the file is gzipped, which Kaggle accepts.
``write`` writes a whole file. ``write_shard`` and ``join`` write it in parts: gzip files can be concatenated, so
joining only copies bytes. The same rows in the same shards always give the same bytes. ``mask_table`` reads it.
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
from competition.mask_table import HEADER

Row = tuple[str, str]
# For 870 MB of real masks: level 1 takes 8 s and gives 401 MB, 2: 9 s and 394 MB, 4: 15 s and 380 MB,
# 6: 53 s and 370 MB. From 20 Mbit/s on, level 2 has the smallest sum of compression and upload time.
COMPRESSION = 2


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a submission atomically, gzipped if the name ends in .gz.

    Args:
        path: the file; it is replaced after all rows are written.
        rows: (image name, run-length code), consumed one at a time.
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
    """Write some rows of a submission, without a header, as one gzip member, atomically."""
    with replacing(path) as temporary, temporary.open("wb") as file, _gzip_member(file) as member:
        _write_rows(member, rows)


def read_shard(path: Path) -> Iterator[Row]:
    """The rows of a file that ``write_shard`` wrote, one at a time."""
    try:
        with gzip.open(path, "rt", newline="", encoding="utf-8") as text:
            yield from ((img, code) for img, code in csv.reader(text))
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise Failure(f"{path} is damaged ({error}); remove it and run the same command again") from error


def join(path: Path, shards: Sequence[Path]) -> None:
    """Join shards to a submission in the given order, atomically: a header, then the bytes of the shards."""
    if path.suffix != ".gz":
        raise Failure(f"{path}: a submission joined from shards is gzipped; give it a name that ends in .csv.gz")
    with replacing(path) as temporary, temporary.open("wb") as file:
        with _gzip_member(file) as member:
            _write_rows(member, [HEADER])
        for shard in shards:
            _append(file, shard)


@contextmanager
def _gzip_member(file: IO[bytes]) -> Iterator[gzip.GzipFile]:
    """A gzip stream into an open file, without a file name or time in its header."""
    with gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION, fileobj=file, mtime=0) as member:
        yield member


def _write_rows(file: IO[bytes] | gzip.GzipFile, rows: Iterable[Row]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    text.detach()  # flushes and keeps the file open


def _append(file: IO[bytes], shard: Path) -> None:
    try:
        source = shard.open("rb")
    except OSError as error:
        raise Failure(f"cannot read {shard}: {os_reason(error)}; run the same command again") from error
    with source:
        shutil.copyfileobj(source, file, length=1 << 20)
