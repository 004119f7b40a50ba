"""Photographs in, results out, in order: reading, the networks and finishing go on at the same time.

An image is decoded once for each frame, all networks and views see it together, and no more than a few batches are
in memory whatever their number.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from competition.data_folder import Photo
from competition.images import Pixels, shape_of
from folds.validation import to_levels
from inference.ensemble import Ensemble
from inference.masks import Answer, full_size

Result = TypeVar("Result")
READ_AHEAD = 2  # batches that are being read while one is with the networks


def stream(
    photos: Sequence[Photo],
    ensembles: Sequence[Ensemble],
    finish: Callable[[Photo, Pixels], Result],
    *,
    batch_size: int,
    readers: int,
) -> Iterator[Result]:
    """Predict photographs.

    Args:
        photos: what to predict.
        ensembles: the networks, by frame; their answers are averaged at full size.
        finish: called in a thread with each photograph and its (H, W) uint8 levels at full size.
        batch_size: photographs that go through the networks together.
        readers: threads that read, and as many that finish. OpenCV and numpy release the interpreter's lock.

    Yields:
        What ``finish`` returns, in the order of the photographs.

    Raises:
        Failure: a photograph cannot be read, or whatever ``finish`` raises.
    """
    batches = [photos[start : start + batch_size] for start in range(0, len(photos), batch_size)]
    reading: deque[list[list[Future[Pixels]]]] = deque()
    finishing: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(readers) as read_pool, ThreadPoolExecutor(readers) as finish_pool:

        def read(batch: Sequence[Photo]) -> list[list[Future[Pixels]]]:
            return [[read_pool.submit(ensemble.frame.read, photo.path) for photo in batch] for ensemble in ensembles]

        try:
            reading.extend(read(batch) for batch in batches[:READ_AHEAD])
            for number, batch in enumerate(batches):
                images = reading.popleft()
                if number + READ_AHEAD < len(batches):
                    reading.append(read(batches[number + READ_AHEAD]))
                answers = [answer(*pair) for pair in zip(ensembles, images, strict=True)]
                for photo, said in zip(batch, zip(*answers, strict=True), strict=True):
                    finishing.append(finish_pool.submit(_finish, finish, photo, said))
                while len(finishing) > READ_AHEAD * batch_size:
                    yield finishing.popleft().result()
            while finishing:
                yield finishing.popleft().result()
        finally:
            # After an error, or when the caller stops early, what has not begun must not run.
            read_pool.shutdown(cancel_futures=True)
            finish_pool.shutdown(cancel_futures=True)


def answer(ensemble: Ensemble, images: Sequence[Future[Pixels]]) -> list[Answer]:
    """What an ensemble says of each image of a batch."""
    batch = torch.from_numpy(np.stack([image.result() for image in images]))
    levels = to_levels(ensemble.probabilities(batch))
    return [Answer(each, ensemble.frame, len(ensemble)) for each in levels]


def _finish(finish: Callable[[Photo, Pixels], Result], photo: Photo, answers: Sequence[Answer]) -> Result:
    return finish(photo, full_size(answers, shape_of(photo.path)))
