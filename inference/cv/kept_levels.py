"""The levels of out-of-fold predictions, kept on disk while a score is under way.

A score predicts all images, chooses member weights and a threshold from what it measures, and then needs the masks of
that choice. It makes them from the kept levels, so that the networks run once. The levels are those of each ensemble
in its frame, after the mean over its networks, for all member weights that may be chosen: exactly what the
networks would predict again. Enlarging them is cheap and exact.

They are kept in a zip file beside each shard, about a quarter of a byte per pixel of the frame and choice of weights:
60 kB an image at 576 x 384, 300 kB at 1024 x 1024, 700 kB at 1920 x 1280. Two members have five choices, three have
16. Where the limit or the disk does not allow a file, the networks predict its images again.
"""

import json
import shutil
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np

from competition.command import Failure
from competition.files import replacing
from competition.photo import Photo
from folds.frame import Frame
from inference.cv.mixtures import MemberWeights
from inference.engine.ensemble import Ensemble, relative
from inference.engine.host_masks import Prediction
from inference.shards import MeasuredRow

MOST = 8_000_000_000  # bytes of all kept levels
SPARE = 2_000_000_000  # bytes that stay free on the disk
COMPRESSION = 1  # of zlib: level 6 takes 4 times as long for files that are 20 % smaller
FACTS = "facts.json"
Measure = Callable[[Photo, Sequence[Prediction]], MeasuredRow]
Predicted = tuple[Photo, Sequence[Prediction]]


def is_room(folder: Path) -> bool:
    """Whether another file may be kept in a folder, or in a folder below it; its parent must exist."""
    kept = sum(file.stat().st_size for file in folder.rglob("*.zip"))
    return kept < MOST and shutil.disk_usage(folder.parent).free > SPARE


class Facts(NamedTuple):
    """What is kept in a file.

    Attributes:
        weightings: the member weights that the levels belong to.
        frames: height, width and fit of each ensemble.
        indices: the networks of each ensemble.
    """

    weightings: Sequence[MemberWeights]
    frames: Sequence[tuple[int, int, Literal["resize", "pad"]]]
    indices: Sequence[Sequence[int]]


def with_levels(measure: Measure) -> Callable[[Photo, Sequence[Prediction]], tuple[MeasuredRow, list[bytes]]]:
    """A function that returns the levels of each ensemble, compressed, besides what ``measure`` returns."""

    def work(photo: Photo, predictions: Sequence[Prediction]) -> tuple[MeasuredRow, list[bytes]]:
        return measure(photo, predictions), [_packed(each) for each in predictions]

    return work


def keep(
    file: Path,
    rows: Generator[tuple[MeasuredRow, list[bytes]]],
    ensembles: Sequence[Ensemble],
    weightings: Sequence[MemberWeights],
) -> Generator[MeasuredRow]:
    """Yield the rows of a shard, and write the levels of their images, atomically, when all rows are consumed."""
    frames = [(each.frame.height, each.frame.width, each.frame.fit) for each in ensembles]
    facts = Facts(weightings, frames, [list(each.indices) for each in ensembles])
    with closing(rows), replacing(file) as temporary, ZipFile(temporary, "w") as archive:
        archive.writestr(FACTS, json.dumps(facts))
        for image, (row, levels) in enumerate(rows):
            for number, content in enumerate(levels):
                archive.writestr(f"{image}/{number}", content)
            yield row


def read(file: Path, photos: Sequence[Photo], weights: MemberWeights) -> Generator[Predicted] | None:
    """The photos of a shard with their predictions for these member weights; None if they are not kept."""
    if not file.is_file():
        return None
    try:
        with ZipFile(file) as archive:
            facts = Facts(*json.loads(archive.read(FACTS)))
    except (BadZipFile, KeyError, ValueError, TypeError):  # damaged
        return None
    weightings = [tuple(each) for each in facts.weightings]
    return (
        _predictions(file, photos, facts._replace(weightings=weightings), weights) if weights in weightings else None
    )


def _predictions(file: Path, photos: Sequence[Photo], facts: Facts, weights: MemberWeights) -> Generator[Predicted]:
    share, choice = relative(weights), facts.weightings.index(weights)
    used = [[index for index in indices if share[index]] for indices in facts.indices]
    # The order in which ``load_ensembles`` meets their first networks, which is that of the sum over the ensembles.
    order = sorted((number for number, each in enumerate(used) if each), key=lambda number: used[number][0])
    try:
        with ZipFile(file) as archive:
            for image, photo in enumerate(photos):
                predictions = []
                for number in order:
                    frame = Frame(*facts.frames[number])
                    levels = np.frombuffer(zlib.decompress(archive.read(f"{image}/{number}")), dtype=np.uint8)
                    chosen = levels.reshape(-1, frame.height, frame.width)[choice]
                    predictions.append(Prediction(chosen, frame, sum(share[index] for index in used[number])))
                yield photo, predictions
    except (BadZipFile, KeyError, ValueError, zlib.error) as error:
        raise Failure(f"{file} is damaged ({error}); remove it and run the same command again") from error


def _packed(prediction: Prediction) -> bytes:
    levels = prediction.levels[None] if prediction.others is None else prediction.others
    return zlib.compress(levels.tobytes(), COMPRESSION)
