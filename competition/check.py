"""Read everything in a data folder and list every problem by file or row: ``make check``."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from competition import rle
from competition.command import Failure, parser, run_command
from competition.data_folder import MASKS, DataFolder, Photo
from competition.listing import few
from competition.mask_area import implausible
from competition.mask_file import read_mask
from competition.mask_table import BadRow, MaskRow, scan
from competition.run.folder import DEFAULT_DATA
from competition.settings.schema import Data


def problems(data: DataFolder, workers: int = 4) -> Iterator[str]:
    """Every problem of a data folder, one line each, with its file or row.

    Photos and masks are decoded completely, masks are compared with train_masks.csv, and names in the CSV files with
    the files. Damage in the middle of a JPEG can decode without an error; such damage is not found.
    """
    listing_problems = [line for folder in data.folders for line in _listing_problems(data, folder)]
    train, train_problems = _photos(lambda: data.train)
    test, test_problems = _photos(lambda: data.test)
    rows, row_problems, complete = _mask_rows(data)
    missing = [line for line in (*train_problems, *test_problems) if not line.startswith(tuple(listing_problems))]
    yield from [*listing_problems, *missing, *row_problems]

    pool = ThreadPoolExecutor(workers)
    try:
        labelled = pool.map(lambda photo: _labelled_problems(data, photo, rows.get(photo.img), complete), train)
        unlabelled = pool.map(lambda photo: _failure(photo.read), test)
        jobs = (found for results in (labelled, unlabelled) for found in results)
        for found in tqdm(jobs, total=len(train) + len(test), unit="photo", disable=None, leave=False):
            yield from found
    finally:  # after Ctrl-C the remaining photos are not read
        pool.shutdown(cancel_futures=True)
    yield from _masks_without_photo(data, train, rows)
    yield from _sample_problems(data, test)
    yield from _failure(lambda: data.metadata)


def notes(data: DataFolder) -> list[str]:
    """What is in the folders besides images, one line each."""
    others = {folder: [path.name for path in data.listing(folder).others] for folder in data.folders}
    return [
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


def _labelled_problems(data: DataFolder, photo: Photo, row: MaskRow | None, complete: bool) -> list[str]:
    """What is wrong with a training photo, with its mask file and with its row.

    If not all rows are known (``complete``), an unreadable one may hold the photo's mask: it is not called missing.
    """
    found: list[str] = []
    shape = mask = None
    try:
        shape = photo.read().shape[:2]
    except Failure as problem:
        found.append(str(problem))
    try:
        file = data.mask_file(photo)
    except Failure:  # a problem of the listing
        file, complete = None, False
    if file is not None:
        try:
            values = data.mask_values
            mask = values.mask(read_mask(file)) if shape is None else data.read_mask(photo, file)
        except Failure as problem:
            found.append(str(problem))
    area = None if mask is None else float(mask.mean())
    if row is not None:
        try:
            spans = row.spans(shape)
            area = rle.area(spans) / (shape[0] * shape[1]) if shape else area
            if mask is not None and mask.shape == shape:
                count = np.count_nonzero(rle.to_mask(spans, shape) != mask)
                if count:
                    found.append(f"{row.where}: differs from {file} in {count} pixels; remove the wrong one")
        except Failure as problem:
            found.append(str(problem))
    elif file is None and complete:
        found.append(f"{photo.path} has no mask, neither a file nor a row in {data.masks_csv.name}")
    if area is not None:
        found += implausible(data.settings, f"the mask of {photo.path}", area)
    return found


def _masks_without_photo(data: DataFolder, photos: list[Photo], rows: dict[str, MaskRow]) -> Iterator[str]:
    if not photos:
        return
    names = {photo.img for photo in photos}
    yield from (f"{row.where}: there is no photo {row.img}" for row in rows.values() if row.img not in names)
    if MASKS in data.folders and not _listing_problems(data, MASKS):
        known = {data.mask_file(photo) for photo in photos}
        files = data.listing(MASKS).files.values()
        yield from (f"{path} is the mask of no photo" for path in files if path not in known)


def _sample_problems(data: DataFolder, test: list[Photo]) -> Iterator[str]:
    """Names in sample_submission.csv without a photo, and test photos that it does not name."""
    sample = data.root / "sample_submission.csv"
    if not sample.is_file() or not test:
        return
    try:
        names = set(data.submission_names)
    except Failure as problem:
        yield str(problem)
        return
    photos = {photo.img for photo in test}
    yield from (f"{sample} names {img}, which is not in the test folder" for img in sorted(names - photos))
    yield from (f"{photo.path} is not in {sample.name}" for photo in test if photo.img not in names)


def main(argv: Sequence[str] | None = None) -> None:
    """Print every problem of a data folder; fail if there is one."""
    arguments = parser("Read every file of a data folder and list what is wrong.")
    arguments.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    arguments.add_argument("--hq", action="store_true", help="read train_hq and test_hq where both kinds exist")
    options = arguments.parse_args(argv)
    data = DataFolder(options.data, Data(hq=options.hq))
    count = 0
    for problem in problems(data):
        print(problem, flush=True)
        count += 1
    if count:
        raise Failure(f"{options.data}: {count} problem{'s' * (count > 1)}, listed above")
    for note in notes(data):
        print(f"note: {note}")
    cars = {photo.car for photo in data.train}
    print(
        f"{options.data} is in order: {len(data.train):,} training photos of {len(cars):,} cars with their "
        f"masks, {len(data.test):,} test photos"
    )


if __name__ == "__main__":
    run_command(main)
