"""Long predictions in shards: a restarted command reuses finished shards, and several processes share the work."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from competition.command import Failure, OutOfTime
from competition.deadline import Deadline
from competition.files import claimed, read_json, replacing, sha256, write_json
from competition.photo import Photo
from competition.settings.schema import Inference
from folds import ranks
from folds.device import cpu_threads, device_model
from inference.engine.ensemble import Ensemble, load_ensembles
from inference.engine.runtime import precision_of, resolve_engine
from inference.progress import Progress
from submissions import submission_file

FACTS = "facts.json"
Numbers = NDArray[np.float64]
Item = TypeVar("Item")
MeasuredRow = tuple[str, str, Numbers]  # image, RLE, and numbers that were measured
WAIT = 0.2  # seconds between two attempts to get a shard that another process holds
# Loads the networks at its first call.
Load = Callable[[], Sequence[Ensemble]]
# Yields the items it is given, one for each image, and counts them.
Count = Callable[[Iterable[Item]], Iterator[Item]]
# Predicts some photos into a file, which it writes atomically and after all other files.
Write = Callable[[Load, Sequence[Photo], Path, Count[Any]], None]


class ShardedJob:
    """A prediction in shards.

    The shards lie in ``parent / key``. The key is a hash of the facts, so shards of other weights or settings are
    never reused. They are kept until the job is done: repeating the call that made them resumes it.

    Args:
        parent: folder of the shards of all calls of a command.
        facts: everything that decides the content of the shards.
        digests: SHA-256 of each checkpoint when the facts were collected.
        settings: of the run.
        device: where to predict.
        deadline: when to stop; finished shards are kept.
    """

    def __init__(
        self,
        parent: Path,
        facts: Mapping[str, Any],
        digests: Mapping[Path, str],
        *,
        settings: Inference,
        device: torch.device,
        deadline: Deadline | None = None,
    ) -> None:
        self.parent = parent
        self.folder = parent / key_of(**facts)
        self.digests = digests
        self.settings = settings
        self.device = device
        self.deadline = deadline
        ranks.require_same("what they would predict", self.folder.name)
        if ranks.first():
            self._print_other_calls(facts)
            write_json(self.folder / FACTS, facts)

    def run(
        self,
        photos: Sequence[Photo],
        checkpoints: Sequence[Path],
        weights: Sequence[float],
        write: Write,
        *,
        title: str,
        folder: str = "",
    ) -> list[Path]:
        """Predict photos and return the files of their shards, in order; networks are loaded if a shard needs them.

        Args:
            photos: what to predict.
            checkpoints: the networks that predict together; all must have a digest.
            weights: weight of each checkpoint.
            write: predicts one shard.
            title: text of the progress bar.
            folder: name of a folder for these shards, if the job has several sets of photos or networks.
        """

        @cache
        def load() -> Sequence[Ensemble]:
            ensembles = load_ensembles(checkpoints, self.settings, device=self.device, member_weights=weights)
            require_unchanged({path: self.digests[path] for path in checkpoints})
            return ensembles

        def work(shard: Sequence[Photo], file: Path, count: Count[Any]) -> None:
            write(load, shard, file, count)

        return run_shards(self.folder / folder, photos, self.settings.shard, work, title, deadline=self.deadline)

    def remove(self) -> None:
        """Remove the shards of all calls, when all processes have read them."""
        ranks.barrier()
        if ranks.first():
            shutil.rmtree(self.parent, ignore_errors=True)

    def _print_other_calls(self, facts: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(facts))
        for file in sorted(self.parent.glob(f"*/{FACTS}")):
            if file.parent != self.folder and any(file.parent.rglob("*.csv.gz")):
                before = read_json(file)
                changed = ", ".join(name for name in now if before.get(name) != now[name])
                print(f"note: images finished with another {changed} are not reused; see {file}")


def key_of(**facts: Any) -> str:
    """A short hash of everything that decides a prediction."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def facts_of(settings: Inference, device: torch.device) -> dict[str, Any]:
    """The settings and properties of the device that decide predictions and their division into shards."""
    return {
        "tta": list(settings.tta),
        "engine": resolve_engine(settings, device),
        "precision": precision_of(settings, device),
        "compile": settings.compile,
        "device": device_model(device),
        "threads": cpu_threads(device),
        "batch_size": settings.batch_size,
        "shard": settings.shard,
    }


def require_unchanged(digests: Mapping[Path, str]) -> None:
    """Raise a Failure unless files still have these digests: a training may have replaced its best weights."""
    for path, before in digests.items():
        if sha256(path) != before:
            raise Failure(
                f"{path} changed while it was read (is it still training?); wait, and run the same command again"
            )


def run_shards(
    folder: Path,
    photos: Sequence[Photo],
    size: int,
    work: Callable[[Sequence[Photo], Path, Count[Any]], None],
    title: str,
    *,
    deadline: Deadline | None = None,
) -> list[Path]:
    """Do all shards that are missing, together with other processes, and return the files of all, in order.

    A process claims a shard with a lock beside its file; the lock ends with the process. The first pass skips shards
    that another process holds, and the second pass waits for them. No shard is begun that would not be finished by
    the deadline if it took as long as the slowest one before.

    Raises:
        OutOfTime: shards are missing at the deadline.
    """
    deadline, slowest = deadline or Deadline(), 0.0
    shards = [photos[start : start + size] for start in range(0, len(photos), size)]
    files = shard_files(folder, len(photos), size)

    def count_done() -> int:
        return sum(len(shard) for shard, file in zip(shards, files, strict=True) if file.is_file())

    with closing(Progress(title, len(photos), count_done)) as progress:
        for wait in (False, True):
            for shard, file in zip(shards, files, strict=True):
                while not file.is_file() and deadline.leaves(slowest):
                    begun = time.monotonic()
                    with claimed(file.with_name(f".{file.name}.lock"), wait=False) as mine:
                        if mine and not file.is_file():
                            work(shard, file, progress.counted)
                            slowest = max(slowest, time.monotonic() - begun)
                            progress.saved()
                    if not mine:
                        progress.show()
                        if not wait:
                            break
                        time.sleep(WAIT)
        # The ranks stop together: none is ended in the middle of a shard because another one stopped before.
        [missing] = ranks.all_reduce_max(not all(file.is_file() for file in files))
        if not missing:
            progress.print_end()
    if missing:
        raise OutOfTime(
            f"stopped by {deadline}; {title}: {count_done():,} of {len(photos):,} images are done, and "
            "the same command resumes there"
        )
    return files


def shard_files(folder: Path, photos: int, size: int) -> list[Path]:
    """The files of the shards of a number of photos, in order."""
    count = -(-photos // size)
    return [folder / f"{number:05d}-of-{count:05d}.csv.gz" for number in range(count)]


def write_with_numbers(file: Path, rows: Iterable[MeasuredRow]) -> None:
    """Write a shard's rows of (image, RLE, numbers); the numbers go to a .npy file, first dimension the image."""
    masks, numbers = [], []
    for img, code, of_image in rows:
        masks.append((img, code))
        numbers.append(of_image)
    with replacing(_numbers_file(file)) as temporary, temporary.open("wb") as opened:
        np.save(opened, np.stack(numbers))
    submission_file.write_shard(file, masks)  # last: a shard counts as finished when this file exists


def read_numbers(files: Iterable[Path]) -> Numbers:
    """The numbers of the images of all shards, in order."""
    return np.concatenate([np.load(_numbers_file(file)) for file in files])


def _numbers_file(file: Path) -> Path:
    return file.with_suffix("").with_suffix(".npy")
