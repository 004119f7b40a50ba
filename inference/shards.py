"""A long prediction in parts: a finished part is kept, and a restart does only what is missing.

The parts of one prediction lie in a folder named after all that decides their content, so that parts of another
(other weights, other views, another threshold) are never taken for them.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from competition.data_folder import Photo

Work = Callable[[Sequence[Photo], Path], None]


def key_of(**content: Any) -> str:
    """A short hash of all that decides a prediction."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_shards(folder: Path, photos: Sequence[Photo], size: int, work: Work, title: str) -> list[Path]:
    """Do the work on every part of the photographs that is not done yet.

    Args:
        folder: where the parts are kept.
        photos: all photographs.
        size: photographs in a part.
        work: given a part's photographs and its file, writes the file, atomically and last of all it writes.
        title: what to call this on the screen.

    Returns:
        The files of all parts, in order.
    """
    parts = [photos[start : start + size] for start in range(0, len(photos), size)]
    files = [folder / f"{number:05d}-of-{len(parts):05d}.csv.gz" for number in range(len(parts))]
    done = sum(len(part) for part, file in zip(parts, files, strict=True) if file.is_file())
    with tqdm(total=len(photos), initial=done, desc=title, unit="image", disable=None, leave=False) as bar:
        for part, file in zip(parts, files, strict=True):
            if file.is_file():
                continue
            work(part, file)
            bar.update(len(part))
            done += len(part)
            if bar.disable:
                print(f"{title}: {done:,} of {len(photos):,} images", flush=True)
    return files


def remove_others(parent: Path, keep: str | None = None) -> None:
    """Remove the parts of other predictions, which no restart will ask for."""
    for folder in parent.iterdir() if parent.is_dir() else ():
        if folder.name != keep:
            shutil.rmtree(folder, ignore_errors=True)
