"""A long prediction in parts: a finished part is kept, and a restart does only what is missing.

The parts of one prediction lie in a folder named after all that decides their content, so that parts of another
(other weights, other views, another threshold) are never taken for them.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from competition import files
from competition.command import Failure
from competition.data_folder import Photo
from competition.files import claimed, read_json, sha256
from competition.settings.schema import Inference
from folds import ranks
from folds.device import cpu_threads, resolve_precision
from submissions import submission_file

FACTS = "facts.json"
Work = Callable[[Sequence[Photo], Path], None]


def key_of(**content: Any) -> str:
    """A short hash of all that decides a prediction."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def facts_of(how: Inference, device: torch.device) -> dict[str, Any]:
    """What of the settings and the device decides what networks answer to photos, and which part has which."""
    return {
        "tta": list(how.tta),
        "precision": resolve_precision(how.precision, device),
        "compile": how.compile,
        "device": device.type,
        "threads": cpu_threads(device),
        "batch_size": how.batch_size,
        "shard": how.shard,
    }


def parts_of(parent: Path, facts: Mapping[str, Any], what: str) -> Path:
    """The folder of the parts that these facts decide; the facts are kept in it.

    The finished parts of a call with other facts stay until this one is done, so that who types that call again loses
    nothing; one line says so.

    Args:
        parent: where the parts of all calls are.
        facts: what decides the prediction.
        what: what the processes differ in if they do not agree on the facts.

    Raises:
        Failure: they do not agree, or the folder cannot be written.
    """
    key = key_of(**facts)
    ranks.require_same(what, key)
    if ranks.first():
        for file in sorted(parent.glob(f"*/{FACTS}")):
            if file.parent.name != key and any(file.parent.rglob("*.csv.gz")):
                before, now = read_json(file), json.loads(json.dumps(facts))
                changed = [name for name in now if before.get(name) != now[name]]
                print(f"note: images finished with other {', '.join(changed)} are not taken up; {file} says which")
        files.write_json(parent / key / FACTS, facts)
    return parent / key


def require_unchanged(digests: Mapping[Path, str]) -> None:
    """Raise a Failure unless files are as a key was made of them: a training may replace its best weights."""
    for path, before in digests.items():
        if sha256(path) != before:
            raise Failure(f"{path} changed while it was read (is it still training?); type the same command again")


def run_shards(folder: Path, photos: Sequence[Photo], size: int, work: Work, title: str) -> list[Path]:
    """Do the work on every part of the photos that is not done yet, together with other processes.

    A part is claimed by a lock beside its file, which goes with the process: a part whose process died is free again.
    What others are at is left to them at first, and then waited for.

    Args:
        folder: where the parts are kept.
        photos: all photos.
        size: photos in a part.
        work: given a part's photos and its file, writes the file, atomically and last of all it writes.
        title: what to call this on the screen.

    Returns:
        The files of all parts, in order.
    """
    parts = [photos[start : start + size] for start in range(0, len(photos), size)]
    files = [folder / f"{number:05d}-of-{len(parts):05d}.csv.gz" for number in range(len(parts))]
    hidden = None if ranks.first() else True
    with tqdm(total=len(photos), desc=title, unit="image", disable=hidden, leave=False) as bar:
        bar.update(done := _images(parts, files))
        for wait in (False, True):
            for part, file in zip(parts, files, strict=True):
                if file.is_file():
                    continue
                with claimed(file.with_name(f".{file.name}.lock"), wait=wait) as mine:
                    if mine and not file.is_file():
                        work(part, file)
                before, done = done, _images(parts, files)
                bar.update(done - before)
                if bar.disable and done > before:
                    print(f"{title}: {done:,} of {len(photos):,} images", flush=True)
    return files


def numbers_of(shard: Path) -> Path:
    """Where the numbers are that were written beside a shard: .npy, the first dimension is the image."""
    return shard.with_suffix("").with_suffix(".npy")


def write_with_numbers(shard: Path, rows: Iterable[tuple[str, str, NDArray[np.float64]]]) -> None:
    """Write a shard's rows of (image, code, numbers), the numbers in a file of their own.

    Raises:
        Failure: a file cannot be written.
    """
    masks, numbers = [], []
    for img, code, of_image in rows:
        masks.append((img, code))
        numbers.append(of_image)
    with files.replacing(numbers_of(shard)) as temporary, temporary.open("wb") as opened:
        np.save(opened, np.stack(numbers))
    submission_file.write_shard(shard, masks)  # last, because it is by this file that a shard is known to be done


def _images(parts: Sequence[Sequence[Photo]], files: Sequence[Path]) -> int:
    """How many photos are done, whoever did them."""
    return sum(len(part) for part, file in zip(parts, files, strict=True) if file.is_file())


def remove_parts(parent: Path) -> None:
    """Remove the parts of a prediction that is done, and those of others that were not."""
    shutil.rmtree(parent, ignore_errors=True)
