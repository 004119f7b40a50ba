"""Cut out many photos: read ahead, predict, draw and write at the same time, and resume.

The pictures of a photo depend on that photo, the networks and the settings alone. Only a few photos are in memory.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from competition.command import Failure
from competition.files import replacing
from competition.images import Pixels
from competition.photo import Photo
from inference.cutouts.manifest import Entry, Manifest, Stamp, finished
from inference.cutouts.model import Model
from inference.cutouts.photos import Found, Named, absolute
from inference.cutouts.picture import draw, ending_of
from inference.cutouts.progress import Progress
from inference.cutouts.reading import in_batches, mapped_ahead
from inference.engine.host_masks import level_of

DRAWERS = 2  # threads that draw and encode pictures; the working memory of a large photo is needed in each
AHEAD = 2  # photos that wait for a thread, or for the networks, for each thread


@dataclass(frozen=True)
class Order:
    """What is to be made.

    Attributes:
        out: the folder for the pictures.
        kinds: of picture, for each photo.
        crop: whether pictures are cut to the object.
        key: hash of the networks and settings that decide the pictures.
        batch_size: photos in a call of the model.
        readers: threads that read photos.
    """

    out: Path
    kinds: Sequence[str]
    crop: bool
    key: str
    batch_size: int = 1
    readers: int = 2


@dataclass
class Outcome:
    """What was done.

    Attributes:
        written: number of photos whose pictures were written.
        empty: photos without an object: no pixel is at or above the threshold.
        problems: one line for each photo that was skipped.
    """

    written: int = 0
    empty: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Task(NamedTuple):
    """A photo with pictures that are missing: the name of each, by its kind."""

    photo: Photo
    stamp: Stamp
    files: dict[str, str]


class Drawn(NamedTuple):
    """The pictures of a photo that are written, and whether they show an object."""

    entries: list[Entry]
    is_empty: bool


def plan(found: Found, manifest: Manifest, order: Order) -> list[Task]:
    """The photos with pictures that are missing or out of date. Photos that have vanished become problems."""
    folders = {
        str(above).casefold() for photo in found.photos for above in PurePosixPath(photo.name).parents if above.name
    }
    tasks = []
    for photo in found.photos:
        try:
            stamp = Stamp.of(photo.path)
        except Failure as failure:
            found.problems.append(str(failure))
            continue
        missing = [kind for kind in order.kinds if not manifest.is_done(photo.path, kind, order.key, stamp)]
        if missing:
            files = {kind: manifest.claim(photo, kind, ending_of(kind), folders) for kind in missing}
            tasks.append(Task(as_photo(photo), stamp, files))
    return tasks


def as_photo(named: Named) -> Photo:
    """A photo that is read upright, as viewers display it."""
    return Photo(named.name, named.name, 1, named.path, upright=True)


def run(tasks: Sequence[Task], manifest: Manifest, order: Order, load: Callable[[], Model]) -> Outcome:
    """Do tasks of ``plan``.

    Args:
        tasks: the photos.
        manifest: of the folder for the pictures; it is written first.
        order: what to make.
        load: gives the model.
    """
    manifest.save()
    outcome, progress, model = Outcome(), Progress(len(tasks)), load()

    def skip(failure: Failure) -> None:
        outcome.problems.append(str(failure))
        progress.add(skipped=True)

    def write(item: tuple[Task, Pixels]) -> Drawn:
        return write_pictures(*item, model, manifest, order)

    predictions = predicted(tasks, model, order, skip)
    drawn = mapped_ahead(write, predictions, DRAWERS, AHEAD * DRAWERS)
    with closing(predictions), closing(drawn), manifest.path.open("a", encoding="utf-8") as file:
        try:
            for (task, _), result in drawn:
                if isinstance(result, Failure):
                    skip(result)
                    continue
                manifest.complete(file, result.entries)
                outcome.written += 1
                outcome.empty += [task.photo.path] * result.is_empty
                progress.add()
        finally:
            progress.close()
    manifest.save()
    return outcome


def predicted(
    tasks: Sequence[Task], model: Model, order: Order, skip: Callable[[Failure], None]
) -> Generator[tuple[Task, Pixels]]:
    """Yield photos with their levels in the frame, (h, w) uint8, in order; those that cannot be read are skipped."""

    def read(task: Task) -> Pixels:
        return model.frame.read(task.photo)

    def readable() -> Iterator[tuple[Task, Pixels]]:
        for task, pixels in reading:
            if isinstance(pixels, Failure):
                skip(pixels)
            else:
                yield task, pixels

    reading = mapped_ahead(read, tasks, order.readers, AHEAD * order.readers + order.batch_size)
    with closing(reading):
        for batch in in_batches(readable(), order.batch_size):
            levels = model.levels(np.stack([pixels for _, pixels in batch]))
            yield from zip([task for task, _ in batch], levels, strict=True)


def write_pictures(task: Task, levels: Pixels, model: Model, manifest: Manifest, order: Order) -> Drawn:
    """Draw and write the pictures of a photo.

    Raises:
        Failure: the photo cannot be read; it is skipped.
        OSError: a picture cannot be written, which ends the command.
    """
    full = model.frame.full_size(levels, task.photo.shape)
    files = draw(task.photo, full, model.threshold, list(task.files), crop=order.crop)
    if Stamp.of(task.photo.path) != task.stamp:
        raise Failure(f"{task.photo.path} changed while it was read; run the same command again")
    entries = []
    for (kind, name), content in zip(task.files.items(), files, strict=True):
        try:
            with replacing(order.out / name) as temporary:
                temporary.write_bytes(content)
        except Failure as failure:
            raise OSError(str(failure)) from failure
        claimed = manifest.entries[absolute(task.photo.path), kind]
        entries.append(finished(claimed, order.key, task.stamp, sha256(content).hexdigest()))
    return Drawn(entries, not (full >= level_of(model.threshold)).any())
