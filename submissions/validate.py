"""Check a submission file against the sample submission, line by line, before Kaggle does: ``make validate``.

Kaggle accepts the rows in any order, but requires every name exactly once and no other name, and one malformed mask
makes the submission invalid. One pass finds every error. A mask that is allowed but implausible, such as one that
covers half a percent of the photo, is a warning; too many such masks are an error.
"""

import hashlib
import re
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from competition import rle
from competition.command import Failure, parser, run_command
from competition.csv_file import Packing, packing_of
from competition.data_folder import DataFolder
from competition.files import sha256
from competition.hint import hint
from competition.mask_table import BadRow, MaskRow, scan
from competition.plural import counted
from competition.rle import Shape
from competition.run.folder import Predicted, run_at
from competition.run.open import data_of
from competition.run.predictions import predicted
from competition.run.records import SubmissionRecord, Validated

CARVANA: Shape = (1280, 1918)
# Fractions of the photo that a mask may cover without a warning; Carvana's cars cover 9 % to 41 %.
PLAUSIBLE = (0.01, 0.80)
# A file is rejected if more masks than this fraction of its rows, and more than this number, are implausible.
IMPLAUSIBLE_ROWS = 0.05
FEW = 2
# Kaggle may decide by the name how a file is packed, so the name must agree with the content.
SUFFIXES = {Packing.PLAIN: ".csv", Packing.GZIP: ".csv.gz", Packing.ZIP: ".csv.zip"}
SHOWN = 50  # findings of one kind that are printed


class Kind(StrEnum):
    """What a finding is about; the value is its name in the summary. Those in ``HARMLESS`` are warnings."""

    FILE = "unreadable file"
    NAME = "wrong name"
    HEADER = "wrong header"
    ROW = "malformed row"
    FOREIGN = "foreign name"
    DOUBLED = "doubled name"
    MISSING = "missing name"
    SPANS = "malformed mask"
    AREA = "implausible mask"
    TOO_MANY = "too many implausible masks"
    ORDER = "order"


HARMLESS = {Kind.AREA, Kind.ORDER}


class Finding(NamedTuple):
    """An error or a warning about a submission file; the text names the line and the image."""

    kind: Kind
    text: str


ShapeOfImage = Callable[[str], Shape]


def findings(file: Path, names: Sequence[str], shape_of_image: ShapeOfImage) -> Iterator[Finding]:
    """Every finding about a submission file, in one pass and bounded memory.

    Args:
        file: a CSV of img,rle_mask, plain, gzipped or zipped.
        names: the names that it must have.
        shape_of_image: gives the (H, W) of an image by its name.
    """
    line_of = dict.fromkeys(names, 0)  # 0: not seen yet
    expected = iter(names)
    rows, implausible, in_order = 0, 0, True
    yield from _name_findings(file)
    for row in tqdm(_lines(file), total=len(names), unit="row", disable=None, leave=False):
        if isinstance(row, Failure):
            yield Finding(Kind.FILE, str(row))
            return  # all rows after that place would be missing
        if isinstance(row, BadRow):
            yield Finding(Kind.HEADER if row.is_header else Kind.ROW, row.message)
            continue
        rows += 1
        in_order &= next(expected, None) == row.img
        for found in _row_findings(row, line_of, shape_of_image):
            implausible += found.kind is Kind.AREA
            yield found
    missing = [img for img, line in line_of.items() if not line]
    if rows:
        yield from (Finding(Kind.MISSING, f"{file}: no row for {img}") for img in missing)
    else:
        yield Finding(Kind.MISSING, f"{file}: no rows")
    if implausible > max(FEW, IMPLAUSIBLE_ROWS * rows):
        yield Finding(Kind.TOO_MANY, f"{file}: implausible masks: {implausible:,} of {rows:,}")
    if not in_order and not missing and rows == len(names):
        yield Finding(Kind.ORDER, f"{file}: the order is not that of the sample submission; Kaggle allows it")


def validate(file: Path, data: DataFolder, any_area: bool = False) -> Validated:
    """Print the findings about a submission file, and fail unless Kaggle will accept it.

    Args:
        file: the submission.
        data: the folder with the names that it must have, and the sizes of their images.
        any_area: accept any number of implausible masks.

    Returns:
        The stamp of the valid file.
    """
    digest = sha256(file)
    counts = _print_findings(findings(file, data.submission_names, shapes(data)))
    allowed = HARMLESS | ({Kind.TOO_MANY} if any_area else set())
    wrong = {kind: count for kind, count in counts.items() if kind not in allowed}
    if wrong:
        listed = ", ".join(f"{count:,} x {kind}" for kind, count in wrong.items())
        raise Failure(f"{file} is not a valid submission ({listed}; listed above); {_advice(set(wrong))}")
    if sha256(file) != digest:
        raise Failure(f"{file} changed while it was read; wait until it is written, then validate it again")
    print(f"{file} is a valid submission: {counted(len(data.submission_names), 'row')}, {_areas(counts)}")
    return stamp(digest, data)


def stamp(digest: str, data: DataFolder) -> Validated:
    """The record of a valid submission: its SHA-256, and the names for which it is valid."""
    names = hashlib.sha256("\n".join(data.submission_names).encode()).hexdigest()
    return Validated(sha256=digest, names=names, rows=len(data.submission_names))


def shapes(data: DataFolder) -> ShapeOfImage:
    """Gives the (H, W) of a test image by its name: that of its photo if the photo exists, otherwise 1280 x 1918."""
    try:
        photos = {photo.img: photo for photo in data.test}
    except Failure:
        photos = {}
    return lambda img: photos[img].shape if img in photos else CARVANA


def _lines(file: Path) -> Iterator[MaskRow | BadRow | Failure]:
    """The lines in order; if the rest of the file cannot be read, the last item is a Failure."""
    try:
        yield from scan(file)
    except Failure as error:
        yield error


def _name_findings(file: Path) -> Iterator[Finding]:
    """Whether the name of a file agrees with how it is packed."""
    packing, suffix = packing_of(file), file.suffix.lower()
    named = {".gz": Packing.GZIP, ".zip": Packing.ZIP}.get(suffix, Packing.PLAIN)
    if named is not packing and file.stat().st_size:
        stem = re.sub(r"(\.csv)?(\.gz|\.zip)?$", "", file.name, flags=re.IGNORECASE)
        right = f"{stem}{SUFFIXES[packing]}"
        text = f"{file} holds {packing}, but its name says {named}, and Kaggle may go by the name; name it {right}"
        yield Finding(Kind.NAME, text)


def _row_findings(row: MaskRow, line_of: dict[str, int], shape_of_image: ShapeOfImage) -> Iterator[Finding]:
    """The findings about one row; stores the line of its name in ``line_of``."""
    if row.img not in line_of:
        yield Finding(Kind.FOREIGN, f"{row.where}: {_short(row.img)} is not in the sample submission")
        return
    if line_of[row.img]:
        yield Finding(Kind.DOUBLED, f"{row.where}: {row.img} is already in line {line_of[row.img]}")
    else:
        line_of[row.img] = row.line
    shape = shape_of_image(row.img)
    try:
        spans = row.spans(shape)
    except Failure as error:
        yield Finding(Kind.SPANS, str(error))
        return
    part = rle.area(spans) / (shape[0] * shape[1])
    if not PLAUSIBLE[0] <= part <= PLAUSIBLE[1]:
        area = f"covers {part:.2%} of the photo" if part else "is empty"
        yield Finding(Kind.AREA, f"{row.where}, {row.img}: the mask {area}; a car covers 9 % to 41 %")


def _print_findings(found: Iterator[Finding]) -> Counter[Kind]:
    """Print the findings, at most ``SHOWN`` of a kind; return the number of each kind."""
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


def _areas(counts: Counter[Kind]) -> str:
    return f"{counts[Kind.AREA]:,} of them implausible" if counts[Kind.AREA] else "every mask plausible"


def _advice(wrong: set[Kind]) -> str:
    if wrong == {Kind.TOO_MANY}:
        return "look at the masks and at the CV; if they are right, `make submit` accepts them with FORCE=1"
    if wrong == {Kind.NAME}:
        return "give it the listed name; `make submit` takes gzip in submission.csv.gz"
    return "remove it and run `make predict` again; if that does not help, look at these lines"


def add_submission_arguments(arguments: ArgumentParser) -> None:
    """Add the options that name a submission and its data folder."""
    arguments.add_argument("--run", default="default", help="name of the run, a folder in runs/, or a path")
    arguments.add_argument(
        "--data", type=Path, help="data folder whose masks are meant; by default that of the run's submission"
    )
    arguments.add_argument("--file", type=Path, help="any other submission; DATA is the folder with its photos")


def open_submission(options: Namespace) -> tuple[Predicted, Path, DataFolder]:
    """What the options of ``add_submission_arguments`` name.

    Returns:
        The place of the predicted masks, the submission, and its data folder. Another file belongs to the run.
    """
    run = run_at(options.run)
    if options.file:
        if not options.file.is_file():
            raise Failure(f"no submission {options.file}; name a file that exists with FILE=...")
        return run, options.file, data_of(run, options.data)
    if options.data is None and not run.submission.is_file():
        raise Failure(f"no submission {run.submission}; make one first: {hint('predict', **run.variables)}")
    record = SubmissionRecord.read_if_exists(run.submission_record) if options.data is None else None
    data = data_of(run, Path(record.data) if record else options.data)
    place = predicted(run, data) if options.data else run
    if not place.submission.is_file():
        raise Failure(f"{place.submission} is not complete yet; run {hint('predict', **place.variables)}")
    return place, place.submission, data


def main(argv: Sequence[str] | None = None) -> None:
    """Validate a run's submission, or any file."""
    arguments = parser("Check a submission file against the sample submission, line by line.")
    add_submission_arguments(arguments)
    options = arguments.parse_args(argv)
    place, file, data = open_submission(options)
    found = validate(file, data)
    if not options.file:
        found.write(place.validated)


if __name__ == "__main__":
    run_command(main)
