"""Write an adopted data folder: links to the photos, and masks as PNG that fit them."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from competition.adopt.naming import Adopted, table_of
from competition.command import Failure, os_reason
from competition.exif import UPRIGHT, turned
from competition.files import replacing, write_text
from competition.images import Pixels, shape_of
from competition.mask_file import Values, read_mask
from competition.mask_values import MaskValues
from competition.orientation import Drawn, Pair, drawn, require_same_size, turn_of_mask
from competition.plural import counted
from competition.rle import Shape

TABLE = "adopted.csv"
MASKS = "train_masks"
RESOLUTION = 2.0  # seconds, of the times of files on the coarsest file systems


class Masks:
    """The masks of adopted photos, read as those of one data set."""

    def __init__(self, adopted: Sequence[Adopted]) -> None:
        self._pairs = [Pair(photo.photo, photo.mask) for photo in adopted if photo.mask]
        self._values = MaskValues([pair.mask for pair in self._pairs])
        self._drawn: Drawn | None = None
        self.found: list[Values] = []  # of the files that have been read

    def require_size(self, photo: Adopted) -> None:
        """Fail unless the mask of a photo has its size; reads the headers."""
        pair = _pair(photo)
        try:
            require_same_size(pair, upright=photo.upright, turn=self._turn(photo))
        except Failure as problem:
            if _is_scaled(shape_of(pair.photo), shape_of(pair.mask)):
                raise Failure(f"{problem}; it has the photo's proportions: scale masks or photos first") from problem
            raise

    def read(self, photo: Adopted) -> Pixels:
        """The mask of a photo as it is displayed, (H, W) uint8 of 0 and 1."""
        file = read_mask(_pair(photo).mask)
        mask = turned(self._values.mask(file), self._turn(photo))
        self.found.append(file.values)
        return mask

    def _turn(self, photo: Adopted) -> int:
        return turn_of_mask(_pair(photo), self._all_drawn) if photo.upright else UPRIGHT

    def _all_drawn(self) -> Drawn:
        if self._drawn is None:
            self._drawn = drawn(self._pairs)
        return self._drawn


def write(data: Path, adopted: Sequence[Adopted], masks: Masks, workers: int = 4) -> str:
    """Write the data folder, or go on with writing it, and say what was done."""
    table = table_of(adopted)
    if data.exists() or data.is_symlink():
        _require_same(data, adopted, table)
        return f"already there, adopted from the same files ({TABLE})"
    part = data.with_name(f"{data.name}.part")
    _prepare(part, adopted, table)
    labelled = [photo for photo in adopted if photo.mask]
    try:
        _all(labelled, lambda photo: _write_mask(part, photo, masks), workers, "mask")
    except Failure:  # when the masks have been repaired, the values of all of them count anew
        shutil.rmtree(part, ignore_errors=True)
        raise
    copied = sum(not _link(part, photo) for photo in adopted)
    part.rename(data)
    how = f"{counted(copied, 'photo')} copied, because links are impossible there" if copied else "photos linked"
    return f"{how}, masks written as 0 and 255, old and new names in {TABLE}"


def require_all(adopted: Sequence[Adopted], masks: Masks, workers: int = 4) -> None:
    """Print every problem of sizes and headers, and fail if there is one."""
    _all(adopted, lambda photo: masks.require_size(photo) if photo.mask else shape_of(photo.photo), workers, "photo")


def _all(adopted: Sequence[Adopted], action: Callable[[Adopted], object], workers: int, unit: str) -> None:
    """Do something with every photo; print every failure, and fail if there is one."""

    def problem_of(photo: Adopted) -> str | None:
        try:
            action(photo)
        except Failure as problem:
            return str(problem)
        return None

    count = 0
    pool = ThreadPoolExecutor(workers)
    try:
        jobs = pool.map(problem_of, adopted)
        for problem in tqdm(jobs, total=len(adopted), unit=unit, disable=None, leave=False):
            if problem:
                print(problem, flush=True)
                count += 1
    finally:
        pool.shutdown(cancel_futures=True)
    if count:
        raise Failure(f"{counted(count, 'problem')}, listed above; nothing was adopted")


def _is_scaled(shape: Shape, other: Shape) -> bool:
    """Whether two sizes have the same proportions, up to rounding."""
    return shape != other and abs(shape[0] * other[1] - shape[1] * other[0]) <= max(*shape, *other)


def _pair(photo: Adopted) -> Pair:
    assert photo.mask is not None
    return Pair(photo.photo, photo.mask)


def _require_same(data: Path, adopted: Sequence[Adopted], table: str) -> None:
    """Fail unless a data folder was adopted from the same files, and these have not changed."""
    advice = "name another DATA, or remove it"
    try:
        same = (data / TABLE).read_text(encoding="utf-8") == table
    except (OSError, ValueError):
        raise Failure(f"{data} exists and was not made by `make adopt`; {advice}") from None
    if not same:
        raise Failure(f"{data} exists and was adopted from other files ({data / TABLE}); {advice}")
    for photo in adopted:
        if photo.mask and not _is_current(data / MASKS / photo.mask_name, photo.mask):
            raise Failure(f"{photo.mask} has changed since {data} was adopted; remove {data} and adopt again")


def _prepare(part: Path, adopted: Sequence[Adopted], table: str) -> None:
    """Create the temporary folder. What another adoption left there is deleted, files of the user are not."""
    try:
        if part.exists() and (not (part / TABLE).exists() and any(part.iterdir())):
            raise Failure(f"{part} exists and was not made by `make adopt`; move or remove it")
        if part.exists() and (part / TABLE).read_text(encoding="utf-8") != table:
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=True)
        if not (part / TABLE).exists():
            write_text(part / TABLE, table)
        for photo in adopted:
            (part / photo.folder / photo.img).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"cannot write {part}: {os_reason(error)}") from error


def _write_mask(part: Path, photo: Adopted, masks: Masks) -> None:
    """Write a mask with the time of its source, so that a later change of the source is noticed."""
    target, source = part / MASKS / photo.mask_name, _pair(photo).mask
    if _is_current(target, source):
        return
    mask = masks.read(photo)
    status = source.stat()
    with replacing(target) as temporary:
        Image.fromarray(mask.astype(bool)).save(temporary, format="PNG")
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_current(target: Path, source: Path) -> bool:
    try:
        return abs(target.stat().st_mtime - source.stat().st_mtime) < RESOLUTION
    except OSError:
        return False


def _link(part: Path, photo: Adopted) -> bool:
    """Link a photo into the data folder; where links are impossible, copy it and return False."""
    target = part / photo.folder / photo.img
    if target.is_symlink():
        return True
    try:
        target.symlink_to(photo.photo)
    except OSError:
        if not _is_current(target, photo.photo):
            with replacing(target) as temporary:
                shutil.copyfile(photo.photo, temporary)
                shutil.copystat(photo.photo, temporary)
        return False
    return True
