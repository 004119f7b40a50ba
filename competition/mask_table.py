"""CSV files of ``img,rle_mask``: train_masks.csv, the sample submission, a submission, a solution."""

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from competition.command import Failure, os_reason

# A row of a large, finely cut mask is longer than the csv module's default limit of 131,072 characters.
csv.field_size_limit(2**31 - 1)


def mask_rows(path: Path) -> dict[str, tuple[str, str]]:
    """A CSV of img,rle_mask: name to (which row that is, for people; code).

    Raises:
        Failure: the file cannot be read, or a row is malformed or doubled.
    """
    rows: dict[str, tuple[str, str]] = {}
    for line, img, code in read_rle_rows(path):
        if img in rows:
            raise Failure(f"{path} line {line}: {img} stands already in {rows[img][0].removeprefix(f'{path} ')}")
        rows[img] = (f"{path} line {line}", code)
    return rows


def read_rle_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """The rows of a CSV of ``img,rle_mask``, gzipped or not, one at a time.

    Yields:
        (line number, img, run-length code); line 1 is the header.

    Raises:
        Failure: the file cannot be read, the header is another, or a row does not have two fields.
    """
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        # Spreadsheets begin UTF-8 with a mark, which utf-8-sig skips.
        with opened(path, "rt", newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if header != ["img", "rle_mask"]:
                raise Failure(f"{path} line 1: the header is {','.join(header)[:80]!r}, not 'img,rle_mask'")
            for row in rows:
                if len(row) != 2:
                    raise Failure(f"{path} line {rows.line_num}: {len(row)} fields where img,rle_mask are two")
                if not row[0]:
                    raise Failure(f"{path} line {rows.line_num}: the name of the image is missing")
                yield rows.line_num, row[0], row[1]
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Failure(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
