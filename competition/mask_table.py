"""CSV files with the header ``img,rle_mask``: train_masks.csv, the sample submission, a submission, a solution."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from competition import csv_file, rle
from competition.command import Failure
from competition.csv_file import BadLine
from competition.metrics import Counts, counts_of_spans
from competition.plural import counted
from competition.rle import Shape, Spans

HEADER = ("img", "rle_mask")


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
    is_header: bool = False

    @property
    def message(self) -> str:
        """The error message, which names the line."""
        return f"{self.path} line {self.line}: {self.reason}"


def scan(path: Path) -> Iterator[MaskRow | BadRow]:
    """Every line of a CSV that is not blank, one at a time. A wrong header is the first bad row.

    Raises:
        Failure: the file cannot be read to its end.
    """
    has_header = False
    for line in csv_file.lines(path):
        if isinstance(line, BadLine):
            yield BadRow(path, line.number, line.reason)
            continue
        number, fields = line
        if not has_header:
            has_header = True
            if tuple(fields) != HEADER:
                yield BadRow(path, number, csv_file.header_problem(fields, HEADER), is_header=True)
        elif len(fields) != 2:
            yield BadRow(path, number, f"{len(fields)} fields, not the two of img,rle_mask")
        elif not fields[0]:
            yield BadRow(path, number, "the name of the image is missing")
        else:
            yield MaskRow(path, number, fields[0], fields[1])
    if not has_header:
        yield BadRow(path, 1, csv_file.header_problem([], HEADER), is_header=True)


def read_rows(path: Path) -> Iterator[MaskRow]:
    """The rows of a CSV, one at a time; fails at the first bad row."""
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
            raise Failure(
                f"{row.where}: {row.img} is not one of the {counted(len(wanted), 'image')} to score; {advice}"
            )
        if row.img in counts:
            raise Failure(f"{row.where}: {row.img} occurs a second time; {advice}")
        true = truth(row.img)
        counts[row.img] = counts_of_spans(row.spans(true.shape), true.spans)
    missing = [img for img in wanted if img not in counts]
    if missing:
        few = f"{len(missing):,} of {counted(len(wanted), 'image')}, such as {missing[0]}"
        raise Failure(f"{path} has no row for {few}; {advice}")
    return counts
