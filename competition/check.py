"""Read everything in a data folder and list all that is wrong with it, by name: ``make check``."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from competition import rle
from competition.command import Failure, parser, run_command
from competition.data_folder import MASK_TYPES, DataFolder, Photo, is_shown, same_size
from competition.images import read_mask, read_rgb
from competition.mask_table import read_rle_rows
from competition.run.folder import DEFAULT_DATA


def problems(data: DataFolder, workers: int = 4) -> Iterator[str]:
    """Every problem of a data folder, one line each, with the file or row it is about.

    A CSV is read up to the first row that cannot be told apart into fields; that row is then the problem.
    Photos and masks are decoded to their last pixel; masks are compared with train_masks.csv; names in CSVs
    with files. Not found is damage in the middle of a JPEG that decodes all the same, to nonsense.
    """
    train = _photos_or_problem(lambda: data.train)
    test = _photos_or_problem(lambda: data.test)
    yield from (problem for problem in (train, test) if isinstance(problem, str))
    photos = train if isinstance(train, list) else []
    shown = test if isinstance(test, list) else []
    rows, row_problems, complete = _mask_rows(data)
    yield from row_problems

    pool = ThreadPoolExecutor(workers)
    try:
        labelled = pool.map(lambda photo: _labelled_problems(data, photo, rows, complete), photos)
        unlabelled = pool.map(lambda photo: _refusals([lambda: read_rgb(photo.path)]), shown)
        jobs = (found for results in (labelled, unlabelled) for found in results)
        for found in tqdm(jobs, total=len(photos) + len(shown), unit="photo", disable=None, leave=False):
            yield from found
    finally:  # after Ctrl-C nobody waits until the photos that are left have been read
        pool.shutdown(cancel_futures=True)
    yield from _orphans(data, photos, rows)
    yield from _sample_problems(data, shown)
    yield from _refusals([lambda: data.metadata])


def _photos_or_problem(find: Callable[[], list[Photo]]) -> list[Photo] | str:
    try:
        return find()
    except Failure as problem:
        return str(problem)


def _refusals(actions: Sequence[Callable[[], object]]) -> list[str]:
    """The Failures that the actions raise."""
    found = []
    for action in actions:
        try:
            action()
        except Failure as problem:
            found.append(str(problem))
    return found


def _mask_rows(data: DataFolder) -> tuple[dict[str, tuple[int, str]], list[str], bool]:
    """train_masks.csv as name to (line, code), what is wrong with its rows, and whether all could be read."""
    rows: dict[str, tuple[int, str]] = {}
    found: list[str] = []
    if not data.masks_csv.is_file():
        return rows, found, True
    try:
        for line, img, code in read_rle_rows(data.masks_csv):
            if img in rows:
                found.append(f"{data.masks_csv} line {line}: {img} stands already in line {rows[img][0]}")
            rows[img] = (line, code)
    except Failure as problem:
        return rows, [*found, str(problem)], False
    return rows, found, True


def _labelled_problems(data: DataFolder, photo: Photo, rows: dict[str, tuple[int, str]], complete: bool) -> list[str]:
    """What is wrong with one training photo, its mask file and its row, each looked at by itself."""
    found: list[str] = []
    shape = mask = None
    try:
        shape = read_rgb(photo.path).shape[:2]
    except Failure as problem:
        found.append(str(problem))
    file = data.mask_file(photo)
    if file is not None:
        try:
            mask = read_mask(file)
            if shape is not None:
                same_size(photo.path, shape, file, mask.shape)
        except Failure as problem:
            found.append(str(problem))
    if photo.img in rows:
        line, code = rows[photo.img]
        try:
            spans = rle.parse(code, shape)
            if mask is not None and mask.shape == shape:
                count = np.count_nonzero(rle.to_mask(spans, shape) != mask)
                if count:
                    where = f"{data.masks_csv} line {line}"
                    found.append(f"{where}: differs from {file} in {count} pixels; remove the wrong one")
        except ValueError as problem:
            found.append(f"{data.masks_csv} line {line}, {photo.img}: {problem}")
    elif file is None and complete:
        found.append(f"{photo.path} has no mask, neither a file nor a row in {data.masks_csv.name}")
    return found


def _orphans(data: DataFolder, photos: list[Photo], rows: dict[str, tuple[int, str]]) -> Iterator[str]:
    """Masks without a photo."""
    names = {photo.img for photo in photos}
    for img in (img for img in rows if photos and img not in names):
        yield f"{data.masks_csv} line {rows[img][0]}: there is no photo {img}"
    known = {data.mask_file(photo) for photo in photos}
    folder = data.root / "train_masks"
    for path in sorted(folder.iterdir()) if folder.is_dir() and photos else ():
        if is_shown(path, MASK_TYPES) and path not in known:
            yield f"{path} is the mask of no photo"


def _sample_problems(data: DataFolder, test: list[Photo]) -> Iterator[str]:
    """Names in sample_submission.csv without a photo, and the other way round."""
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
    """Print every problem and fail, or say what was read."""
    arguments = parser("Read every file of a data folder and list what is wrong.")
    arguments.add_argument("--data", type=Path, default=DEFAULT_DATA, help="data folder")
    arguments.add_argument("--hq", action="store_true", help="read train_hq and test_hq where both kinds exist")
    options = arguments.parse_args(argv)
    data = DataFolder(options.data, hq=options.hq)
    count = 0
    for problem in problems(data):
        print(problem, flush=True)
        count += 1
    if count:
        raise Failure(f"{options.data}: {count} problem{'s' * (count > 1)}, listed above")
    cars = {photo.car for photo in data.train}
    print(
        f"{options.data} is in order: {len(data.train):,} training photos of {len(cars):,} cars with their "
        f"masks, {len(data.test):,} test photos"
    )


if __name__ == "__main__":
    run_command(main)
