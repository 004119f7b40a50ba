"""Where the wrong pixels of a scored run lie: how far from the true outline, and on which side of it.

The parts add up to 1 - Dice: an image with W wrong pixels, P predicted and T true pixels of car has
1 - Dice = W / (P + T).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import print_rows, report
from competition import rle
from competition.command import Failure, parser, run_command
from competition.hint import hint
from competition.images import Pixels
from competition.mask_table import read_table
from competition.run.folder import run_at
from competition.run.open import data_of
from competition.settings.resolve import load_settings

WITHIN = (1.5, 3.0, 6.0, 12.0, 24.0)  # pixels of the photo; a pixel at the outline has distance 1


class Wrong(NamedTuple):
    """The wrong pixels of an image, as parts of P + T.

    Attributes:
        within: (5,), those at most ``WITHIN`` pixels from the true outline.
        outside: all that are predicted as car and are not.
        inside: all that are car and are not predicted.
    """

    within: NDArray[np.float64]
    outside: float
    inside: float


def wrong_pixels(predicted: Pixels, truth: Pixels) -> Wrong:
    """Compare two masks, (H, W) of 0 and 1; two empty ones have no wrong pixels."""
    total = max(1, int(predicted.sum()) + int(truth.sum()))
    wrong = predicted != truth
    distance = distance_to_outline(truth)[wrong]
    within = np.array([(distance <= limit).sum() for limit in WITHIN]) / total
    return Wrong(within, float((wrong & (truth == 0)).sum()) / total, float((wrong & (truth == 1)).sum()) / total)


def distance_to_outline(mask: Pixels) -> NDArray[np.float32]:
    """The distance of each pixel to the nearest one on the other side of the outline, (H, W) float32 in pixels."""
    sides = [cv2.distanceTransform(side, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for side in (mask, 1 - mask)]
    farther: NDArray[np.float32] = np.maximum(*sides)
    return farther


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Where the wrong pixels of a scored run lie: their distance to the outline, and their side.")
    arguments.add_argument("--run", required=True, help="a scored run")
    arguments.add_argument("--data", type=Path, help="data folder; by default that of the run")
    options = arguments.parse_args(argv)
    run = run_at(options.run)
    if not run.oof.is_file():
        raise Failure(f"{run.root} is not scored: {hint('score', RUN=run.called)}")
    data = data_of(run, options.data, load_settings(run.settings))
    predictions = read_table(run.oof)
    found = []
    for photo in data.train:
        if photo.img in predictions:
            predicted = rle.to_mask(predictions[photo.img].spans(photo.shape), photo.shape)
            found.append(wrong_pixels(predicted, rle.to_mask(data.truth_spans(photo), photo.shape)))
    within = np.mean([each.within for each in found], axis=0)
    outside, inside = (float(np.mean([getattr(each, side) for each in found])) for side in ("outside", "inside"))
    rows = {
        f"within {limit:g} pixels of the outline": float(part) for limit, part in zip(WITHIN, within, strict=True)
    }
    rows |= {"all": outside + inside, "of these, background that is predicted as car": outside}
    rows |= {"of these, car that is predicted as background": inside}
    print_rows(f"1 - Dice of {len(found):,} images, and what wrong pixels contribute to it", rows, "", digits=5)
    report("outline_errors", {"images": len(found), "parts": rows}, [])


if __name__ == "__main__":
    run_command(main)
