"""Check a submission file against the sample submission, line by line, before Kaggle does: ``make validate``.

Kaggle takes the rows in any order but wants every name once and no other, and one bad span costs the submission.
All that is wrong is found in one pass. What is allowed but unlikely, such as a mask of half a per cent of the
picture, is a warning, unless it is so common that the file can hardly be meant.
"""

import csv
import gzip
import hashlib
import zlib
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from competition import rle
from competition.command import Failure, os_reason, parser, run_command
from competition.data_folder import DataFolder
from competition.files import sha256
from competition.images import shape_of
from competition.rle import Shape
from competition.run.folder import RunFolder, run_at
from competition.run.open import data_of
from competition.run.records import SubmissionRecord, Validated

CARVANA: Shape = (1280, 1918)
# Carvana's cars cover 9 % to 41 % of the picture.
PLAUSIBLE = (0.01, 0.80)
IMPLAUSIBLE_ROWS = 0.05  # the part of the rows that may be so before the file is refused
FEW = 2  # implausible masks are taken even where that is a large part of a small file
SHOWN = 50  # findings of one kind that are printed


class Kind(StrEnum):
    """What a finding is about."""

    FILE = "unreadable file"
    HEADER = "wrong header"
    ROW = "malformed row"
    FOREIGN = "foreign name"
    DOUBLED = "doubled name"
    MISSING = "missing name"
    SPANS = "wrong span"
    AREA = "implausible mask"
    TOO_MANY = "too many implausible masks"
    ORDER = "order"


HARMLESS = {Kind.AREA, Kind.ORDER}


class Finding(NamedTuple):
    """One thing to say about a submission file; the text names the line and the image."""

    kind: Kind
    text: str


ShapeOfImage = Callable[[str], Shape]


def findings(file: Path, names: Sequence[str], shape_of_image: ShapeOfImage) -> Iterator[Finding]:
    """All there is to say about a submission file, in one pass and bounded memory.

    Args:
        file: a CSV of img,rle_mask, gzipped or not.
        names: the names it must have.
        shape_of_image: the (height, width) of the image of a name.
    """
    line_of = dict.fromkeys(names, 0)  # 0: not seen yet
    expected = iter(names)
    rows, implausible, in_order = 0, 0, True
    try:
        for line, fields in tqdm(_rows(file), total=len(names), unit="row", disable=None, leave=False):
            if line == 0:
                yield from _header_findings(file, fields)
                continue
            rows += 1
            in_order &= next(expected, None) == (fields[0] if fields else None)
            for found in _row_findings(f"{file} line {line}", line, fields, line_of, shape_of_image):
                implausible += found.kind is Kind.AREA
                yield found
    except Failure as error:
        yield Finding(Kind.FILE, str(error))
    absent = [img for img, line in line_of.items() if not line]
    yield from (Finding(Kind.MISSING, f"{file}: no row for {img}") for img in absent)
    if implausible > max(FEW, IMPLAUSIBLE_ROWS * rows):
        yield Finding(Kind.TOO_MANY, f"{file}: {implausible:,} of {rows:,} masks are implausible")
    if not in_order and not absent and rows == len(names):
        yield Finding(Kind.ORDER, f"{file}: the order is not that of the sample submission; Kaggle allows it")


def problems(file: Path, names: Sequence[str], shape_of_image: ShapeOfImage) -> Iterator[str]:
    """The findings for which a submission file is refused, one line each; the arguments are ``findings``'."""
    return (found.text for found in findings(file, names, shape_of_image) if found.kind not in HARMLESS)


def validate(file: Path, data: DataFolder, any_area: bool = False) -> Validated:
    """Print what there is to say about a submission file; return normally if Kaggle will take it.

    Args:
        file: the submission.
        data: the folder that says which names it must have, and of which size their images are.
        any_area: take a file however implausible the areas of its masks are.

    Returns:
        What was found valid.

    Raises:
        Failure: the file is no valid submission, or changed meanwhile, or the data folder names no test images.
    """
    digest = sha256(file)
    counts = _print_findings(findings(file, data.submission_names, shapes(data)))
    allowed = HARMLESS | ({Kind.TOO_MANY} if any_area else set())
    wrong = {kind: count for kind, count in counts.items() if kind not in allowed}
    if wrong:
        listed = ", ".join(f"{count:,} x {kind}" for kind, count in wrong.items())
        raise Failure(f"{file} is no valid submission ({listed}; listed above); {_advice(set(wrong))}")
    if sha256(file) != digest:
        raise Failure(f"{file} changed while it was read; wait for what writes it, then validate it again")
    print(f"{file} is a valid submission: {len(data.submission_names):,} rows, {_warnings_in_words(counts)}")
    return stamp(digest, data)


def stamp(digest: str, data: DataFolder) -> Validated:
    """What is remembered of a valid submission: its hash, and for which names it was found valid."""
    names = hashlib.sha256("\n".join(data.submission_names).encode()).hexdigest()
    return Validated(sha256=digest, names=names, rows=len(data.submission_names))


def shapes(data: DataFolder) -> ShapeOfImage:
    """The shape of a test image by its name: its photo's where that is there, else Carvana's."""
    try:
        paths = {photo.img: photo.path for photo in data.test}
    except Failure:
        paths = {}
    return lambda img: shape_of(paths[img]) if img in paths else CARVANA


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row, right or wrong; the header has number 0.

    ``submission_file.read`` stops at the first malformed row, and would hide the second.
    """
    try:
        opened = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rt", newline="", encoding="utf-8") as text:
            rows = csv.reader(text)
            yield 0, next(rows, [])
            for fields in rows:
                yield rows.line_num, fields
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Failure(f"{file} is damaged: {error}") from error
    except OSError as error:
        raise Failure(f"cannot read {file}: {os_reason(error)}") from error


def _header_findings(file: Path, fields: list[str]) -> Iterator[Finding]:
    if fields != ["img", "rle_mask"]:
        yield Finding(Kind.HEADER, f"{file} line 1: the header is {_short(','.join(fields))}, not 'img,rle_mask'")


def _row_findings(
    where: str, line: int, fields: list[str], line_of: dict[str, int], shape_of_image: ShapeOfImage
) -> Iterator[Finding]:
    """What there is to say about one row; notes in ``line_of`` that its name has been seen."""
    if len(fields) != 2:
        yield Finding(Kind.ROW, f"{where}: {len(fields)} fields where img,rle_mask are two")
        return
    img, code = fields
    if img not in line_of:
        yield Finding(Kind.FOREIGN, f"{where}: {_short(img)} is no image of the sample submission")
        return
    if line_of[img]:
        yield Finding(Kind.DOUBLED, f"{where}: {img} stands already in line {line_of[img]}")
    line_of[img] = line_of[img] or line
    shape = shape_of_image(img)
    try:
        spans = rle.parse(code, shape)
    except ValueError as error:
        yield Finding(Kind.SPANS, f"{where}, {img}: {error}")
        return
    part = rle.area(spans) / (shape[0] * shape[1])
    if not PLAUSIBLE[0] <= part <= PLAUSIBLE[1]:
        words = f"covers {part:.2%} of the picture" if part else "is empty"
        yield Finding(Kind.AREA, f"{where}, {img}: the mask {words}; a car covers 9 % to 41 %")


def _print_findings(found: Iterator[Finding]) -> Counter[Kind]:
    """Print findings, not too many of one kind; return how many there were of each."""
    counts: Counter[Kind] = Counter()
    for kind, text in found:
        counts[kind] += 1
        if counts[kind] <= SHOWN:
            tqdm.write(f"warning: {text}" if kind in HARMLESS else text)
    for kind, count in counts.items():
        if count > SHOWN:
            print(f"... and {count - SHOWN:,} more: {kind}")
    return counts


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _warnings_in_words(counts: Counter[Kind]) -> str:
    return f"{counts[Kind.AREA]:,} of them implausible" if counts[Kind.AREA] else "every mask plausible"


def _advice(wrong: set[Kind]) -> str:
    """What to do about a refused file."""
    if wrong == {Kind.TOO_MANY}:
        return "look at the masks and at the CV; if they are right, `make submit` takes them with FORCE=1"
    return "`make predict` writes a run's anew; if that does not help, look at the lines named"


def add_submission_arguments(arguments: ArgumentParser) -> None:
    """The options by which a command finds a submission, and the data that it answers."""
    arguments.add_argument("--run", default="default", help="name of the run, a folder below runs/, or a path")
    arguments.add_argument("--data", type=Path, help="data folder; by default that of the submission")
    arguments.add_argument("--file", type=Path, help="the submission; by default the run's submission.csv.gz")


def open_submission(options: Namespace) -> tuple[RunFolder, Path, DataFolder]:
    """The run, the submission and the data folder that the options of ``add_submission_arguments`` name.

    Raises:
        Failure: there is no such file, or no data folder.
    """
    run = run_at(options.run)
    file = options.file or run.submission
    if not file.is_file():
        raise Failure(f"no submission {file}; make one first: make predict RUN={run.called}")
    return run, file, data_of(run, options.data) if options.file else predicted_data(run, options.data)


def predicted_data(run: RunFolder, asked: Path | None) -> DataFolder:
    """The data folder that is asked for, else the one that the run's submission was predicted from, else the run's.

    Raises:
        Failure: there is no such folder, or a file of the run is damaged.
    """
    record = SubmissionRecord.read_if_exists(run.submission_record) if asked is None else None
    if record:
        asked = Path(record.data)
    return data_of(run, asked)


def main(argv: Sequence[str] | None = None) -> None:
    """Validate a run's submission, or any file."""
    arguments = parser("Check a submission file against the sample submission, line by line.")
    add_submission_arguments(arguments)
    options = arguments.parse_args(argv)
    run, file, data = open_submission(options)
    found = validate(file, data)
    if not options.file:
        found.write(run.validated)


if __name__ == "__main__":
    run_command(main)
