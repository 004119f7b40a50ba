"""Photos in, results out, in order. Reading, the networks and finishing run at the same time.

Each photo is decoded once for each frame. Only a few batches are in memory, however many photos there are.
The networks are given their next batch before the predictions of the last one are fetched, so that a GPU does not
wait for the host.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

from torch import Tensor

from competition.data_folder import Photo
from competition.images import Pixels, shape_of
from competition.rle import Shape, Spans
from folds.frame import Frame
from folds.validation import to_levels
from inference.engine import device_masks
from inference.engine.device_masks import BatchPrediction
from inference.engine.ensemble import Ensemble
from inference.engine.host_masks import Prediction, full_size, spans_at
from inference.engine.overlap import Mark, Overlap

Item = TypeVar("Item")
Result = TypeVar("Result")
# Brings the predictions of a batch, one of each ensemble, from the device to the host: one item for each photo.
Fetch = Callable[[Sequence[Photo], Sequence[BatchPrediction]], Iterable[Item]]
AT_FULL_SIZE = 8  # photos that are enlarged together on a GPU; each needs five images of 4 bytes a pixel there
READ_AHEAD = 2  # batches that are read while another one is with the networks


class Reading(NamedTuple):
    """A batch that is being read into pinned memory."""

    images: Tensor
    reads: list[Future[None]]


class Predicted(NamedTuple):
    """A batch that the networks have been given; the predictions are complete when the device reaches the mark."""

    photos: Sequence[Photo]
    predictions: list[BatchPrediction]
    mark: Mark


def stream_predictions(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    finish: Callable[[Photo, Sequence[Prediction]], Result],
    *,
    batch_size: int,
    readers: int,
    components: bool = False,
) -> Iterator[Result]:
    """Predict photos, and finish each in a thread.

    Args:
        photos: what to predict.
        ensembles: the networks, by frame.
        finish: gets each photo and one prediction of each ensemble.
        batch_size: photos that go through the networks together.
        readers: threads that read, and as many that finish. OpenCV and numpy release the interpreter's lock.
        components: whether the predictions come with their components.

    Yields:
        What ``finish`` returns, in the order of the photos.
    """
    items = predict_photos(
        photos, ensembles, fetch_predictions, batch_size=batch_size, readers=readers, components=components
    )
    return finish_in_threads(items, finish, threads=readers, ahead=READ_AHEAD * batch_size)


def stream_levels(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    finish: Callable[[Photo, Pixels], Result],
    *,
    batch_size: int,
    readers: int,
) -> Iterator[Result]:
    """``stream_predictions`` whose ``finish`` gets the mean prediction at full size, (H, W) uint8 levels."""

    def finish_levels(photo: Photo, predictions: Sequence[Prediction]) -> Result:
        return finish(photo, full_size(predictions, shape_of(photo.path)))

    return stream_predictions(photos, ensembles, finish_levels, batch_size=batch_size, readers=readers)


def stream_spans(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    finish: Callable[[Photo, Spans], Result],
    *,
    level: int,
    batch_size: int,
    readers: int,
) -> Iterator[Result]:
    """``stream_predictions`` whose ``finish`` gets the spans of the pixels at or above a level.

    A GPU finds the spans itself, and no image is copied back.
    """
    if ensembles[0].device.type == "cpu":

        def finish_levels(photo: Photo, levels: Pixels) -> Result:
            return finish(photo, spans_at(levels, level))

        return stream_levels(photos, ensembles, finish_levels, batch_size=batch_size, readers=readers)

    def fetch_spans(batch: Sequence[Photo], predictions: Sequence[BatchPrediction]) -> list[Spans]:
        return spans_of_batch([shape_of(photo.path) for photo in batch], predictions, level)

    items = predict_photos(photos, ensembles, fetch_spans, batch_size=batch_size, readers=readers)
    return finish_in_threads(items, finish, threads=readers, ahead=READ_AHEAD * batch_size)


def predict_photos(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    fetch: Fetch[Item],
    *,
    batch_size: int,
    readers: int,
    components: bool = False,
) -> Generator[tuple[Photo, Item]]:
    """Predict photos batch by batch; yields each photo and what ``fetch`` returns for it, in order."""
    batches = [photos[start : start + batch_size] for start in range(0, len(photos), batch_size)]
    overlap = Overlap(ensembles[0].device)

    def fetched(batch: Predicted) -> Iterator[tuple[Photo, Item]]:
        with overlap.fetching(batch.mark):
            items = fetch(batch.photos, batch.predictions)
        return zip(batch.photos, items, strict=True)

    with ThreadPoolExecutor(readers) as pool:

        def read(batch: Sequence[Photo]) -> list[Reading]:
            return [read_batch(batch, ensemble.frame, overlap, pool) for ensemble in ensembles]

        try:
            reading = deque(read(batch) for batch in batches[:READ_AHEAD])
            before: Predicted | None = None
            for number, batch in enumerate(batches):
                images = reading.popleft()
                if number + READ_AHEAD < len(batches):
                    reading.append(read(batches[number + READ_AHEAD]))
                predictions = [
                    predict_batch(ensemble, each, overlap, components)
                    for ensemble, each in zip(ensembles, images, strict=True)
                ]
                mark = overlap.mark()
                if before:
                    yield from fetched(before)
                before = Predicted(batch, predictions, mark)
            if before:
                yield from fetched(before)
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, or when the caller stops early


def finish_in_threads(
    items: Generator[tuple[Photo, Item]], finish: Callable[[Photo, Item], Result], *, threads: int, ahead: int
) -> Iterator[Result]:
    """Call ``finish`` in threads; yields the results in order, with at most ``ahead`` that are not yet taken."""
    results: deque[Future[Result]] = deque()
    with closing(items), ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                results.append(pool.submit(finish, *item))
                if len(results) > ahead:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, or when the caller stops early


def read_batch(batch: Sequence[Photo], frame: Frame, overlap: Overlap, pool: ThreadPoolExecutor) -> Reading:
    """Begin to read a batch, each photo directly into its place in (N, h, w, 3) uint8 RGB."""
    images = overlap.staging(len(batch), frame.height, frame.width, 3)
    pixels = images.numpy()

    def read(index: int, path: Path) -> None:
        pixels[index] = frame.read(path)

    return Reading(images, [pool.submit(read, index, photo.path) for index, photo in enumerate(batch)])


def predict_batch(ensemble: Ensemble, reading: Reading, overlap: Overlap, components: bool) -> BatchPrediction:
    """Give a batch to an ensemble as soon as it is read; on a GPU this does not wait for the prediction."""
    for read in reading.reads:
        read.result()
    mean, each = ensemble.predict(overlap.upload(reading.images), components=components)
    return BatchPrediction(to_levels(mean), ensemble.frame, sum(ensemble.member_weights), each)


def fetch_predictions(
    _photos: Sequence[Photo], predictions: Sequence[BatchPrediction]
) -> Iterator[tuple[Prediction, ...]]:
    """Copy the predictions of a batch to the host: one of each ensemble for each photo."""
    return zip(*map(on_host, predictions), strict=True)


def on_host(batch: BatchPrediction) -> list[Prediction]:
    """The prediction for each photo of a batch, in the host's memory."""
    levels = batch.levels.cpu().numpy()
    components = [None] * len(levels) if batch.components is None else batch.components.cpu().numpy()
    return [Prediction(mean, batch.frame, batch.weight, each) for mean, each in zip(levels, components, strict=True)]


def spans_of_batch(shapes: Sequence[Shape], predictions: Sequence[BatchPrediction], level: int) -> list[Spans]:
    """The spans at or above a level for each photo of a batch, found on the device.

    Args:
        shapes: the (H, W) of each photo; photos of one shape are done together.
        predictions: of each ensemble.
        level: car is at or above it.
    """
    spans: dict[int, Spans] = {}
    for shape in dict.fromkeys(shapes):
        alike = [index for index, each in enumerate(shapes) if each == shape]
        for start in range(0, len(alike), AT_FULL_SIZE):
            chosen = alike[start : start + AT_FULL_SIZE]
            part = [prediction._replace(levels=prediction.levels[chosen]) for prediction in predictions]
            spans |= zip(chosen, device_masks.spans_at(device_masks.full_size(part, shape), level), strict=True)
    return [spans[index] for index in range(len(shapes))]
