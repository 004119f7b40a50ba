"""Photos in, results out, in order: reading, the networks and finishing go on at the same time.

An image is decoded once for each frame, all networks and views see it together, and no more than a few batches are
in memory whatever their number. The networks are given their next batch before the last one's answer is awaited, so
that a GPU never waits for the host where the host can keep up.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from torch import Tensor

from competition.data_folder import Photo
from competition.images import Pixels, shape_of
from competition.rle import Shape, Spans
from folds.frame import Frame
from folds.validation import to_levels
from inference.engine import device_masks, host_masks
from inference.engine.device_masks import BatchAnswer
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import Answer
from inference.engine.overlap import Mark, Overlap

Result = TypeVar("Result")
# What is left to do for each photo of a batch whose networks have answered.
Conclude = Callable[[Sequence[Photo], Sequence[BatchAnswer]], Sequence[Callable[[], Result]]]
AT_FULL_SIZE = 8  # photos that are enlarged together: five pictures of 4 bytes a pixel of each lie on the device
READ_AHEAD = 2  # batches that are being read while one is with the networks


class Reading(NamedTuple):
    """A batch on its way from the disk into the memory that the device is sent it from."""

    images: Tensor
    reads: list[Future[None]]


class Asked(NamedTuple):
    """A batch that the networks have been given."""

    photos: Sequence[Photo]
    answers: list[BatchAnswer]
    mark: Mark


def stream_answers(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    finish: Callable[[Photo, Sequence[Answer]], Result],
    *,
    batch_size: int,
    readers: int,
    components: bool = False,
) -> Iterator[Result]:
    """Predict photos, up to the answers of the ensembles.

    Args:
        photos: what to predict.
        ensembles: the networks, by frame.
        finish: called in a thread with each photo and what each ensemble says of it.
        batch_size: photos that go through the networks together.
        readers: threads that read, and as many that finish. OpenCV and numpy release the interpreter's lock.
        components: whether the answers come with their components.

    Yields:
        What ``finish`` returns, in the order of the photos.

    Raises:
        Failure: a photo cannot be read, or whatever ``finish`` raises.
    """

    def conclude(batch: Sequence[Photo], answers: Sequence[BatchAnswer]) -> list[Callable[[], Result]]:
        said = zip(*[on_host(answer) for answer in answers], strict=True)
        return [partial(finish, photo, each) for photo, each in zip(batch, said, strict=True)]

    yield from _stream(photos, ensembles, conclude, batch_size=batch_size, readers=readers, components=components)


def stream_levels(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    finish: Callable[[Photo, Pixels], Result],
    *,
    batch_size: int,
    readers: int,
) -> Iterator[Result]:
    """Predict photos, up to soft levels at full size.

    ``finish`` is called in a thread with each photo and its (H, W) uint8 levels, the average of the ensembles'
    answers. The other arguments, the results and what is raised are those of ``stream_answers``.
    """

    def enlarged(photo: Photo, answers: Sequence[Answer]) -> Result:
        return finish(photo, host_masks.full_size(answers, shape_of(photo.path)))

    yield from stream_answers(photos, ensembles, enlarged, batch_size=batch_size, readers=readers)


def stream_spans(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    finish: Callable[[Photo, Spans], Result],
    *,
    level: int,
    batch_size: int,
    readers: int,
) -> Iterator[Result]:
    """Predict photos, up to the spans of the pixels at or above a level: on a GPU, only their ends come back.

    The other arguments, the results and what is raised are those of ``stream_answers``.
    """
    if ensembles[0].device.type == "cpu":  # where each thread enlarges in the processor's cache

        def finish_levels(photo: Photo, levels: Pixels) -> Result:
            return finish(photo, host_masks.spans_at(levels, level))

        yield from stream_levels(photos, ensembles, finish_levels, batch_size=batch_size, readers=readers)
        return

    def conclude(batch: Sequence[Photo], answers: Sequence[BatchAnswer]) -> list[Callable[[], Result]]:
        spans = spans_of_batch([shape_of(photo.path) for photo in batch], answers, level)
        return [partial(finish, photo, each) for photo, each in zip(batch, spans, strict=True)]

    yield from _stream(photos, ensembles, conclude, batch_size=batch_size, readers=readers)


def on_host(answer: BatchAnswer) -> list[Answer]:
    """The answers for each photo of a batch, in the host's memory."""
    levels = answer.levels.cpu().numpy()
    components = [None] * len(levels) if answer.components is None else answer.components.cpu().numpy()
    return [Answer(mean, answer.frame, answer.weight, each) for mean, each in zip(levels, components, strict=True)]


def spans_of_batch(shapes: Sequence[Shape], answers: Sequence[BatchAnswer], level: int) -> list[Spans]:
    """The spans at a level for each photo of a batch, found on the device.

    Args:
        shapes: the (H, W) of each photo; those of one shape are done together.
        answers: for all of them.
        level: car is at or above it.
    """
    spans: dict[int, Spans] = {}
    for shape in dict.fromkeys(shapes):
        alike = [index for index, each in enumerate(shapes) if each == shape]
        for start in range(0, len(alike), AT_FULL_SIZE):
            chosen = alike[start : start + AT_FULL_SIZE]
            part = [answer._replace(levels=answer.levels[chosen]) for answer in answers]
            spans |= zip(chosen, device_masks.spans_at(device_masks.full_size(part, shape), level), strict=True)
    return [spans[index] for index in range(len(shapes))]


def _stream(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    conclude: Conclude[Result],
    *,
    batch_size: int,
    readers: int,
    components: bool = False,
) -> Iterator[Result]:
    batches = [photos[start : start + batch_size] for start in range(0, len(photos), batch_size)]
    overlap = Overlap(ensembles[0].device)
    reading: deque[list[Reading]] = deque()
    asked: deque[Asked] = deque()
    finishing: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(readers) as read_pool, ThreadPoolExecutor(readers) as finish_pool:

        def read(batch: Sequence[Photo]) -> list[Reading]:
            return [_read(batch, ensemble.frame, overlap, read_pool) for ensemble in ensembles]

        def finish_oldest() -> None:
            photos, answers, mark = asked.popleft()
            with overlap.fetching(mark):
                left = conclude(photos, answers)
            finishing.extend(finish_pool.submit(each) for each in left)

        try:
            reading.extend(read(batch) for batch in batches[:READ_AHEAD])
            for number, batch in enumerate(batches):
                images = reading.popleft()
                if number + READ_AHEAD < len(batches):
                    reading.append(read(batches[number + READ_AHEAD]))
                answers = [_ask(*pair, overlap, components) for pair in zip(ensembles, images, strict=True)]
                asked.append(Asked(batch, answers, overlap.mark()))
                if len(asked) > 1:
                    finish_oldest()
                while len(finishing) > READ_AHEAD * batch_size:
                    yield finishing.popleft().result()
            while asked:
                finish_oldest()
            while finishing:
                yield finishing.popleft().result()
        finally:
            # After an error, or when the caller stops early, what has not begun must not run.
            read_pool.shutdown(cancel_futures=True)
            finish_pool.shutdown(cancel_futures=True)


def _read(batch: Sequence[Photo], frame: Frame, overlap: Overlap, pool: ThreadPoolExecutor) -> Reading:
    """Begin to read a batch, each photo straight into its place."""
    images = overlap.staging(len(batch), frame.height, frame.width, 3)
    places = images.numpy()

    def read(index: int, path: Path) -> None:
        places[index] = frame.read(path)

    return Reading(images, [pool.submit(read, index, photo.path) for index, photo in enumerate(batch)])


def _ask(ensemble: Ensemble, reading: Reading, overlap: Overlap, components: bool) -> BatchAnswer:
    """Give a batch to an ensemble; on a GPU the answer is there once the device has come to it."""
    for read in reading.reads:
        read.result()
    mean, each = ensemble.answer(overlap.upload(reading.images), components=components)
    return BatchAnswer(to_levels(mean), ensemble.frame, sum(ensemble.weights), each)
