"""CSV files with the header ``img,rle_mask``: train_masks.csv, the sample submission, a submission, a solution."""

import csv
import gzip
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from competition import rle
from competition.command import Failure, os_reason
from competition.metrics import Counts, counts_of_spans
from competition.rle import Shape, Spans

HEADER = ("img", "rle_mask")
# A row of a large mask with a fine outline is longer than the csv module's default limit of 131,072 characters.
csv.field_size_limit(2**31 - 1)


class MaskRow(NamedTuple):
    """One row: the name of an image, and a run-length code that is not checked yet."""

    path: Path
    line: int
    img: str
    rle: str

    @property
    def where(self) -> str:
        """The row's place, for messages."""
        return f"{self.path} line {self.line}"

    def spans(self, shape: Shape | None = None) -> Spans:
        """The spans of the mask, which must lie within ``shape`` (H, W) if it is given.

        Raises:
            Failure: the code is malformed; it names the line, the image and the token.
        """
        try:
            return rle.parse(self.rle, shape)
        except ValueError as error:
            raise Failure(f"{self.where}, {self.img}: {error}") from error


class BadRow(NamedTuple):
    """A line that is not a row of ``img,rle_mask``, and why."""

    path: Path
    line: int
    reason: str

    @property
    def message(self) -> str:
        """The error message, which names the line."""
        return f"{self.path} line {self.line}: {self.reason}"


def scan(path: Path) -> Iterator[MaskRow | BadRow]:
    """Every line of a CSV, gzipped or not, one at a time. A wrong header is the bad row of line 1.

    Raises:
        Failure: the file cannot be read to its end.
    """
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        # Spreadsheet programs put a byte order mark at the start, which utf-8-sig skips.
        with opened(path, "rt", newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if tuple(header) != HEADER:
                yield BadRow(path, 1, f"the header is {','.join(header)[:80]!r}, not 'img,rle_mask'")
            while True:
                try:
                    fields = next(lines)
                except csv.Error as error:
                    yield BadRow(path, lines.line_num, f"not a CSV row: {error}")
                    continue
                except StopIteration:
                    break
                if len(fields) != 2:
                    yield BadRow(path, lines.line_num, f"{len(fields)} fields, not the two of img,rle_mask")
                elif not fields[0]:
                    yield BadRow(path, lines.line_num, "the name of the image is missing")
                else:
                    yield MaskRow(path, lines.line_num, fields[0], fields[1])
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Failure(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error


def read_rows(path: Path) -> Iterator[MaskRow]:
    """The rows of a CSV, gzipped or not, one at a time; fails at the first bad row."""
    for row in scan(path):
        if isinstance(row, BadRow):
            raise Failure(row.message)
        yield row


def read_table(path: Path) -> dict[str, MaskRow]:
    """The rows of a CSV by image name, in the order of the file; fails at a bad row or a doubled name."""
    table: dict[str, MaskRow] = {}
    for row in read_rows(path):
        if row.img in table:
            raise Failure(f"{row.where}: {row.img} is already in line {table[row.img].line}; remove one of them")
        table[row.img] = row
    return table


class Truth(NamedTuple):
    """The true mask of an image, and its (H, W); without a shape, predicted spans may end anywhere."""

    spans: Spans
    shape: Shape | None = None


def score(path: Path, names: Collection[str], truth: Callable[[str], Truth], advice: str) -> dict[str, Counts]:
    """Count the pixels of the masks in a CSV against the true masks, one image at a time, from spans.

    Args:
        path: a CSV with exactly one row for each name, in any order.
        names: the images to score.
        truth: gives the true mask of an image.
        advice: what to do if the names differ; the end of the error message.

    Returns:
        The counts by image name, in the order of the file.
    """
    wanted = dict.fromkeys(names)
    counts: dict[str, Counts] = {}
    for row in tqdm(read_rows(path), total=len(wanted), unit="image", disable=None, leave=False):
        if row.img not in wanted:
            raise Failure(f"{row.where}: {row.img} is not one of the {len(wanted):,} images to score; {advice}")
        if row.img in counts:
            raise Failure(f"{row.where}: {row.img} occurs a second time; {advice}")
        true = truth(row.img)
        counts[row.img] = counts_of_spans(row.spans(true.shape), true.spans)
    missing = [img for img in wanted if img not in counts]
    if missing:
        few = f"{len(missing):,} of {len(wanted):,} images, such as {missing[0]}"
        raise Failure(f"{path} has no row for {few}; {advice}")
    return counts
