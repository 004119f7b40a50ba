"""The part of each training photo that its mask covers, and the refusal of masks that cover too little or too much.

A mask that is empty or full was usually read or exported wrongly, and a network trained on it predicts black masks.
A mask that is black on white covers most of its photo and of the photo's border. So does a close-up, and such masks
are only named.
"""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from competition import rle
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.listing import few
from competition.photo import Photo
from competition.plural import counted
from competition.run.folder import RunFolder
from competition.run.records import Environment
from competition.settings.schema import Data

NAMED = 3  # masks in a message
MOST = 0.5  # of the photo, and of its border; of Carvana's masks at most 0.41 and 0.08


def mask_area(data: DataFolder, photo: Photo) -> float:
    """The fraction of a training photo's pixels that are car."""
    height, width = photo.shape
    return rle.area(data.truth_spans(photo)) / (height * width)


def mask_areas(data: DataFolder) -> list[float]:
    """The area of each training photo's mask."""
    with ThreadPoolExecutor() as pool:
        areas = pool.map(lambda photo: mask_area(data, photo), data.train)
        return list(tqdm(areas, total=len(data.train), desc="masks", unit="mask", disable=None, leave=False))


def is_plausible(area: float, settings: Data) -> bool:
    """Whether a mask of this area is allowed by ``data.min_area`` and ``data.max_area``."""
    return settings.min_area <= area <= settings.max_area


def implausible(settings: Data, name: object, area: float) -> list[str]:
    """The problem of a mask whose area is not plausible, for a list of problems; empty if it is."""
    return [] if is_plausible(area, settings) else [f"{name} covers {area:.4f} of the photo, {limits(settings)}"]


def limits(settings: Data) -> str:
    """What is wrong with a mask that is not plausible, for messages."""
    return f"less than data.min_area={settings.min_area:g} or more than data.max_area={settings.max_area:g}"


def looks_inverted(mask: Pixels) -> bool:
    """Whether a mask, (H, W) of 0 and 1, covers most of its photo and of the photo's border."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(mask.mean() > MOST and border.mean() > MOST)


def warn_of_inverted(data: DataFolder, areas: Sequence[float]) -> None:
    """Print a warning if masks look inverted; only large ones are read."""
    large = (photo for photo, area in zip(data.train, areas, strict=True) if area > MOST)
    found = [photo.img for photo in large if looks_inverted(data.truth(photo))]
    if found:
        look = counted(len(found), "training mask looks", "training masks look")
        print(f"warning: {look} inverted: {few(found)}; see `{data.check_hint}`", flush=True)


def require_plausible(data: DataFolder, areas: Sequence[float]) -> None:
    """Fail if the mask of a training photo is not plausible."""
    wrong = [
        f"{photo.img} {area:.4f}"
        for photo, area in zip(data.train, areas, strict=True)
        if not is_plausible(area, data.settings)
    ]
    if wrong:
        more = ", ..." if len(wrong) > NAMED else ""
        raise Failure(
            f"{len(wrong)} of {len(areas)} training masks in {data.root} cover {limits(data.settings)} of the photo "
            f"({', '.join(wrong[:NAMED])}{more}); correct them "
            f"(`{data.check_hint}` lists all), or allow them with "
            'SET="data.min_area=0 data.max_area=1"'
        )


def require_plausible_in_run(run: RunFolder, data: DataFolder) -> None:
    """Fail if the masks are not plausible; those that were checked when the run was made are not read again."""
    if Environment.read(run.environment).masks != masks_key(data):
        require_plausible(data, mask_areas(data))


def masks_key(data: DataFolder) -> str:
    """A hash of the limits of the areas, and of the names, sizes and times of the files that hold the masks."""
    digest = hashlib.sha256(limits(data.settings).encode())
    for path in _sources(data):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _sources(data: DataFolder) -> Iterable[Path]:
    files = (data.mask_file(photo) for photo in data.train)
    yield from (file for file in files if file is not None)
    if data.masks_csv.is_file():
        yield data.masks_csv
