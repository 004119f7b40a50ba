"""Read everything in a data folder: every problem by file or row, and the facts for a summary."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

import cv2
import numpy as np
from tqdm import tqdm

from competition import rle
from competition.command import Failure
from competition.data_folder import MASKS, DataFolder
from competition.layout_advice import packed
from competition.listing import few
from competition.mask_area import implausible, looks_inverted
from competition.mask_file import Values, read_mask
from competition.mask_table import BadRow, MaskRow, scan
from competition.photo import Photo
from competition.rle import Shape
from competition.summary import Facts


@dataclass
class Seen:
    """What was seen of one photo.

    Attributes:
        problems: one line each.
        shape: (height, width), if it can be read.
        area: the part that is car, if photo and mask are in order.
        values: the values of the mask file, if it can be read.
        inverted: whether the mask looks inverted.
    """

    problems: list[str] = field(default_factory=list)
    shape: Shape | None = None
    area: float | None = None
    values: Values | None = None
    inverted: bool = False


def problems(data: DataFolder, facts: Facts | None = None, workers: int = 4) -> Iterator[str]:
    """Every problem of a data folder, one line each, with its file or row.

    Photos and masks are decoded completely, masks are compared with train_masks.csv, and names in the CSV files with
    the files. Damage in the middle of a JPEG can decode without an error; such damage is not found. A missing test
    folder is no problem.

    Args:
        data: the data folder.
        facts: filled in, complete when all problems have been given.
        workers: threads that read files.
    """
    facts = facts or Facts()
    found = {folder: _listing_problems(data, folder) for folder in data.folders}
    listing_problems = [line for lines in found.values() for line in lines]
    train, train_problems = _photos(lambda: data.train)
    has_test = any(folder.startswith("test") for folder in data.folders)
    test, test_problems = _photos(lambda: data.test) if has_test else ([], [])
    rows, row_problems, complete = _mask_rows(data)
    missing = [line for line in (*train_problems, *test_problems) if not line.startswith(tuple(listing_problems))]
    yield from [*listing_problems, *missing, *row_problems]

    facts.train, facts.test = train, test
    facts.unread = [folder for folder, lines in found.items() if lines]
    facts.rows = sum(photo.img in rows for photo in train)
    photos = [*train, *test]
    pool = ThreadPoolExecutor(workers)
    try:
        labelled = pool.map(lambda photo: _labelled(data, photo, rows.get(photo.img), complete), train)
        jobs = chain(labelled, pool.map(_unlabelled, test))
        bar = tqdm(jobs, total=len(photos), unit="photo", disable=None, leave=False)
        for photo, seen in zip(photos, bar, strict=True):
            _add(facts, photo, seen)
            yield from seen.problems
    finally:  # after Ctrl-C the remaining photos are not read
        pool.shutdown(cancel_futures=True)
    yield from _masks_without_photo(data, train, rows)
    yield from _sample_problems(data, test, facts)
    yield from _failure(lambda: data.metadata)


def notes(data: DataFolder) -> list[str]:
    """What is in the folders besides images, and what is not unpacked, one line each."""
    others = {folder: [path.name for path in data.listing(folder).others] for folder in data.folders}
    tables = (data.masks_csv.name, "sample_submission.csv", "metadata.csv")
    zips = [packed(data.root, (name,)) for name in (MASKS, "test", *tables)]
    return [line for line in zips if line] + [
        f"{data.root / folder} has entries that are no images and are not read ({len(names):,}): {few(names)}"
        for folder, names in others.items()
        if names
    ]


def _listing_problems(data: DataFolder, folder: str) -> list[str]:
    try:
        return data.listing(folder).problems
    except Failure as problem:
        return [str(problem)]


def _photos(find: Callable[[], list[Photo]]) -> tuple[list[Photo], list[str]]:
    try:
        return find(), []
    except Failure as problem:
        return [], [str(problem)]


def _failure(action: Callable[[], object]) -> list[str]:
    try:
        action()
    except Failure as problem:
        return [str(problem)]
    return []


def _mask_rows(data: DataFolder) -> tuple[dict[str, MaskRow], list[str], bool]:
    """The rows of train_masks.csv by image name, the problems of the others, and whether all rows can be read."""
    rows: dict[str, MaskRow] = {}
    found: list[str] = []
    complete = True
    try:
        for row in scan(data.masks_csv) if data.masks_csv.is_file() else ():
            if isinstance(row, BadRow):
                found.append(row.message)
                complete = False
            elif row.img in rows:
                found.append(f"{row.where}: {row.img} is already in line {rows[row.img].line}; remove one of them")
            else:
                rows[row.img] = row
    except Failure as problem:
        found.append(str(problem))
        complete = False
    return rows, found, complete


def _unlabelled(photo: Photo) -> Seen:
    seen = Seen()
    try:
        seen.shape = photo.read().shape[:2]
    except Failure as problem:
        seen.problems.append(str(problem))
    return seen


def _labelled(data: DataFolder, photo: Photo, row: MaskRow | None, complete: bool) -> Seen:
    """What is seen of a training photo, of its mask file and of its row.

    If not all rows are known (``complete``), an unreadable one may hold the photo's mask: it is not called missing.
    """
    seen = _unlabelled(photo)
    mask = None
    try:
        file = data.mask_file(photo)
    except Failure:  # a problem of the listing
        file, complete = None, False
    if file is not None:
        try:
            found = read_mask(file)
            seen.values = found.values
            mask = data.mask_values.mask(found) if seen.shape is None else data.fitted(photo, found)
            seen.area = cv2.countNonZero(mask) / mask.size
        except Failure as problem:
            seen.problems.append(str(problem))
    if row is not None:
        try:
            spans = row.spans(seen.shape)
            if seen.shape is not None:
                seen.area = rle.area(spans) / (seen.shape[0] * seen.shape[1])
                of_row = rle.to_mask(spans, seen.shape)
                if mask is not None and mask.shape == seen.shape and (count := np.count_nonzero(of_row != mask)):
                    seen.problems.append(f"{row.where}: differs from {file} in {count} pixels; remove the wrong one")
                mask = of_row if mask is None else mask
        except Failure as problem:
            seen.problems.append(str(problem))
    elif file is None and complete:
        seen.problems.append(f"{photo.path} has no mask, neither a file nor a row in {data.masks_csv.name}")
    seen.inverted = mask is not None and looks_inverted(mask)
    area = seen.area
    if seen.problems:  # the area may be wrong, and a photo or mask that cannot be read cannot be shown
        seen.area = None
    if area is not None:
        seen.problems += implausible(data.settings, f"the mask of {photo.path}", area)
    return seen


def _add(facts: Facts, photo: Photo, seen: Seen) -> None:
    """Add what was seen of one photo to the facts of the data folder."""
    if seen.shape is not None:
        facts.shapes[seen.shape] += 1
    if seen.area is not None:
        facts.areas[photo.img] = seen.area
    if seen.values is not None:
        facts.values.append(seen.values)
    if seen.inverted:
        facts.inverted.append(photo)


def _masks_without_photo(data: DataFolder, photos: list[Photo], rows: dict[str, MaskRow]) -> Iterator[str]:
    if not photos:
        return
    names = {photo.img for photo in photos}
    yield from (f"{row.where}: there is no photo {row.img}" for row in rows.values() if row.img not in names)
    if MASKS in data.folders and not _listing_problems(data, MASKS):
        known = {data.mask_file(photo) for photo in photos}
        files = data.listing(MASKS).files.values()
        yield from (f"{path} is the mask of no photo" for path in files if path not in known)


def _sample_problems(data: DataFolder, test: list[Photo], facts: Facts) -> Iterator[str]:
    """Names in sample_submission.csv without a photo, and test photos that it does not name."""
    sample = data.root / "sample_submission.csv"
    if not sample.is_file() or not test:
        return
    try:
        names = set(data.submission_names)
    except Failure as problem:
        yield str(problem)
        return
    facts.sample = len(names)
    photos = {photo.img for photo in test}
    yield from (f"{sample} names {img}, which is not in the test folder" for img in sorted(names - photos))
    yield from (f"{photo.path} is not in {sample.name}" for photo in test if photo.img not in names)
