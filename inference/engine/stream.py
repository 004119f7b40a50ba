"""Photos in, predictions out, in order. Reading, the networks and the work on predictions run at the same time.

Each photo is decoded once for each frame. Only a few batches are in memory, however many photos there are.
The networks are given their next batch before the predictions of the last one are fetched, so that a GPU does not
wait for the host.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

from torch import Tensor

from competition.photo import Photo
from competition.rle import Shape
from competition.settings.schema import Inference
from folds.frame import Frame
from folds.validation import to_levels
from inference.engine import device_masks
from inference.engine.device_masks import BatchPrediction
from inference.engine.ensemble import Ensemble, relative
from inference.engine.host_masks import Prediction, Thresholded, full_size, threshold_at
from inference.engine.overlap import Overlap

Item = TypeVar("Item")
Result = TypeVar("Result")
AT_FULL_SIZE = 8  # photos that are enlarged together on a GPU; each needs five images of 4 bytes a pixel there
READ_AHEAD = 2  # batches that are read while another one is with the networks


class Reading(NamedTuple):
    """A batch that is being read into pinned memory."""

    images: Tensor
    reads: list[Future[None]]


class PredictedBatch(NamedTuple):
    """A batch that the networks have been given; a GPU may still be computing it.

    Attributes:
        photos: of the batch.
        predictions: one of each ensemble, on the device.
        fetching: the context in which they are brought to the host; it waits for this batch, not for later ones.
    """

    photos: Sequence[Photo]
    predictions: list[BatchPrediction]
    fetching: AbstractContextManager[None]


def predict_photos(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    settings: Inference,
    *,
    components: bool = False,
    others: Sequence[Sequence[float]] = (),
) -> Generator[tuple[Photo, Sequence[Prediction]]]:
    """Yield each photo with one prediction of each ensemble, in the order of the photos.

    Args:
        photos: what to predict.
        ensembles: the networks, by frame.
        settings: the batch size, and the number of threads that read photos.
        components: whether the predictions have their components.
        others: other weights of the networks of all ensembles; the predictions have the levels for each.
    """
    with closing(predict_batches(photos, ensembles, settings, components, others)) as batches:
        yield from chain.from_iterable(map(fetch_predictions, batches))


def map_masks(
    work: Callable[[Photo, Thresholded], Result],
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    settings: Inference,
    *,
    level: int,
) -> Generator[Result]:
    """Predict photos, and call ``work`` in threads with each photo and its mask at a level.

    Yields the results in order. A GPU finds the spans of the mask itself, and no image is copied back.
    """
    if ensembles[0].device.type != "cuda":

        def work_on_levels(photo: Photo, predictions: Sequence[Prediction]) -> Result:
            return work(photo, threshold_at(full_size(predictions, photo.shape), level))

        yield from map_in_threads(work_on_levels, predict_photos(photos, ensembles, settings), settings)
    else:
        yield from map_in_threads(work, masks_on_device(photos, ensembles, settings, level), settings)


def masks_on_device(
    photos: Sequence[Photo], ensembles: Sequence[Ensemble], settings: Inference, level: int
) -> Generator[tuple[Photo, Thresholded]]:
    """Predict photos; yield each with its mask, found on the device."""
    with closing(predict_batches(photos, ensembles, settings)) as batches:
        yield from chain.from_iterable(map(partial(fetch_masks, level), batches))


def map_in_threads(
    work: Callable[[Photo, Item], Result], items: Generator[tuple[Photo, Item]], settings: Inference
) -> Generator[Result]:
    """Call ``work`` with each item in ``settings.readers`` threads; yield the results in order.

    At most two batches of results are in memory. OpenCV and numpy release the interpreter's lock.
    """
    results: deque[Future[Result]] = deque()
    with closing(items), ThreadPoolExecutor(settings.readers) as pool:
        try:
            for item in items:
                results.append(pool.submit(work, *item))
                if len(results) > READ_AHEAD * settings.batch_size:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, or when the caller stops early


def predict_batches(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    settings: Inference,
    components: bool = False,
    others: Sequence[Sequence[float]] = (),
) -> Generator[PredictedBatch]:
    """Read and predict photos batch by batch; yield a batch once the networks have been given the next one."""
    size = settings.batch_size
    batches = [photos[start : start + size] for start in range(0, len(photos), size)]
    overlap = Overlap(ensembles[0].device)
    with ThreadPoolExecutor(settings.readers) as pool:

        def read(batch: Sequence[Photo]) -> list[Reading]:
            return [read_batch(batch, ensemble.frame, overlap, pool) for ensemble in ensembles]

        try:
            reading = deque(read(batch) for batch in batches[:READ_AHEAD])
            before: PredictedBatch | None = None
            for number, batch in enumerate(batches):
                images = reading.popleft()
                if number + READ_AHEAD < len(batches):
                    reading.append(read(batches[number + READ_AHEAD]))
                predictions = [
                    predict_batch(ensemble, each, overlap, components, others)
                    for ensemble, each in zip(ensembles, images, strict=True)
                ]
                fetching = overlap.fetching(overlap.mark())
                if before:
                    yield before
                before = PredictedBatch(batch, predictions, fetching)
            if before:
                yield before
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, or when the caller stops early


def read_batch(batch: Sequence[Photo], frame: Frame, overlap: Overlap, pool: ThreadPoolExecutor) -> Reading:
    """Begin to read a batch, each photo directly into its place in (N, h, w, 3) uint8 RGB."""
    images = overlap.staging(len(batch), frame.height, frame.width, 3)
    pixels = images.numpy()

    def read(index: int, photo: Photo) -> None:
        pixels[index] = frame.read(photo)

    return Reading(images, [pool.submit(read, index, photo) for index, photo in enumerate(batch)])


def predict_batch(
    ensemble: Ensemble, reading: Reading, overlap: Overlap, components: bool, others: Sequence[Sequence[float]] = ()
) -> BatchPrediction:
    """Give a batch to an ensemble as soon as it is read; on a GPU this does not wait for the prediction."""
    for read in reading.reads:
        read.result()
    own = [[weights[index] for index in ensemble.indices] for weights in map(relative, others)]
    means = ensemble.predict(overlap.upload(reading.images), components=components, others=own)
    weight = sum(ensemble.member_weights)
    return BatchPrediction(to_levels(means.mean), ensemble.frame, weight, means.components, means.others)


def fetch_predictions(batch: PredictedBatch) -> Iterator[tuple[Photo, tuple[Prediction, ...]]]:
    """Copy the predictions of a batch to the host: each photo with one of each ensemble."""
    with batch.fetching:
        predictions = [on_host(each) for each in batch.predictions]
    return zip(batch.photos, zip(*predictions, strict=True), strict=True)


def fetch_masks(level: int, batch: PredictedBatch) -> Iterator[tuple[Photo, Thresholded]]:
    """Find the masks of a batch on the device, and copy their spans to the host: each photo with its mask."""
    with batch.fetching:
        masks = masks_of_batch([photo.shape for photo in batch.photos], batch.predictions, level)
    return zip(batch.photos, masks, strict=True)


def on_host(batch: BatchPrediction) -> list[Prediction]:
    """The prediction for each photo of a batch, in the host's memory."""
    levels = batch.levels.cpu().numpy()
    components, others = (
        [None] * len(levels) if each is None else each.cpu().numpy() for each in (batch.components, batch.others)
    )
    return [
        Prediction(mean, batch.frame, batch.weight, *more)
        for mean, *more in zip(levels, components, others, strict=True)
    ]


def masks_of_batch(shapes: Sequence[Shape], predictions: Sequence[BatchPrediction], level: int) -> list[Thresholded]:
    """The mask at a level for each photo of a batch, found on the device.

    Args:
        shapes: the (H, W) of each photo; photos of one shape are done together.
        predictions: of each ensemble.
        level: car is at or above it.
    """
    masks: dict[int, Thresholded] = {}
    for shape in dict.fromkeys(shapes):
        alike = [index for index, each in enumerate(shapes) if each == shape]
        for start in range(0, len(alike), AT_FULL_SIZE):
            chosen = alike[start : start + AT_FULL_SIZE]
            part = [prediction._replace(levels=prediction.levels[chosen]) for prediction in predictions]
            masks |= zip(chosen, device_masks.threshold_at(device_masks.full_size(part, shape), level), strict=True)
    return [masks[index] for index in range(len(shapes))]
