"""How many masks with smooth edges, and how many maps of several classes, are taken for masks of car or not.

Masks of the data are made smooth in the ways in which masks usually become smooth, and classes are drawn on them:
parts of the car, a shadow, a band of unknown pixels at the outline. Sizes in pixels are those before a reduction.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.material import data_folder
from benchmarks.measure import Target, print_rows, report
from competition.command import parser, run_command
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.mask_edges import Levels, has_smooth_edges, plateaus
from competition.photo import Photo

Draw = Callable[[Pixels], Pixels]  # from a mask of 0 and 1
CLASS = 128  # the level of a class, unless its row says otherwise


class Change(NamedTuple):
    """What happens to a mask after it was drawn, and whether it is compressed with loss."""

    apply: Callable[[Levels], Levels]
    lossy: bool = False


def reduced(parts: float, method: int = cv2.INTER_AREA) -> Change:
    """Reduce to 1/parts of the width."""
    return Change(lambda levels: cv2.resize(levels, None, fx=1 / parts, fy=1 / parts, interpolation=method))


def enlarged(times: int, method: int = cv2.INTER_LINEAR) -> Change:
    """Reduce without smoothing, then enlarge to the size of before, like the mask of a small network."""
    small = reduced(times, cv2.INTER_NEAREST)
    return Change(lambda levels: cv2.resize(small.apply(levels), levels.shape[::-1], interpolation=method))


def blurred(sigma: float) -> Change:
    """Blur with a Gaussian of this standard deviation in pixels."""
    return Change(lambda levels: cv2.GaussianBlur(levels, (0, 0), sigma))


def compressed(suffix: str, quality: int, before: Change | None = None) -> Change:
    """Compress as JPEG or WebP, after another change."""
    option = cv2.IMWRITE_JPEG_QUALITY if suffix == ".jpg" else cv2.IMWRITE_WEBP_QUALITY

    def apply(levels: Levels) -> Levels:
        content = cv2.imencode(suffix, before.apply(levels) if before else levels, [option, quality])[1]
        return np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE))

    return Change(apply, lossy=True)


SMOOTH: Mapping[str, Change] = {
    **{f"reduced to 1/{parts}, area": reduced(parts) for parts in (1.5, 2, 3, 4, 8, 20)},
    **{f"reduced to 1/{parts}, linear": reduced(parts, cv2.INTER_LINEAR) for parts in (1.5, 2, 4)},
    **{f"reduced to 1/{parts}, cubic": reduced(parts, cv2.INTER_CUBIC) for parts in (1.5, 2, 4)},
    **{f"reduced to 1/{parts}, Lanczos": reduced(parts, cv2.INTER_LANCZOS4) for parts in (1.5, 2, 4)},
    **{f"enlarged {times}-fold, linear": enlarged(times) for times in (2, 4, 8, 15)},
    **{f"enlarged {times}-fold, cubic": enlarged(times, cv2.INTER_CUBIC) for times in (2, 4, 8, 15)},
    **{f"blurred, sigma {sigma}": blurred(sigma) for sigma in (0.7, 1, 2, 3, 5, 8)},
    "reduced to 1/2, 16 bits": Change(lambda levels: reduced(2).apply(levels.astype(np.uint16) * 257)),
    "reduced to 1/2, 16 levels": Change(lambda levels: reduced(2).apply(levels) // 16 * 17),
    **{f"JPEG {quality}": compressed(".jpg", quality) for quality in (50, 75, 90, 95, 100)},
    **{f"WebP {quality}": compressed(".webp", quality) for quality in (50, 80)},
    "reduced to 1/2, JPEG 90": compressed(".jpg", 90, reduced(2)),
    "reduced to 1/4, JPEG 75": compressed(".jpg", 75, reduced(4)),
    "blurred, sigma 2, JPEG 90": compressed(".jpg", 90, blurred(2)),
}


def spot(height: int, width: int, level: int = CLASS) -> Draw:
    """An ellipse of this size at the pixel of the car that is farthest from the outline."""

    def draw(car: Pixels) -> Pixels:
        depth = cv2.distanceTransform(np.pad(car, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), car.shape)
        rows, columns = np.ogrid[: car.shape[0], : car.shape[1]]
        inside = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 <= 0.25
        return np.where(inside & (car == 1), level, car * 255).astype(np.uint8)

    return draw


def wheels(car: Pixels) -> Pixels:
    """Two disks at the bottom of the car."""
    x, y, width, height = cv2.boundingRect(car)
    radius = max(1, height // 7)
    drawn = np.zeros_like(car)
    for center in (x + width // 4, x + width * 3 // 4):
        cv2.circle(drawn, (center, y + height - 2 * radius), radius, 1, cv2.FILLED)
    return car * 255 - drawn * car * (255 - CLASS)


def windows(car: Pixels) -> Pixels:
    """The upper part of the car without a frame of 20 pixels."""
    _, y, _, height = cv2.boundingRect(car)
    inner: Pixels = np.asarray(cv2.erode(car, np.ones((41, 41), np.uint8)))
    inner[y + height * 2 // 5 :] = 0
    return car * 255 - inner * (255 - CLASS)


def band(outside: int, inside: int) -> Draw:
    """A band at the outline, so many pixels wide outside and inside the car."""
    outer, inner = (np.ones((2 * width + 1, 2 * width + 1), np.uint8) for width in (outside, inside))
    return lambda car: cv2.dilate(car, outer) * CLASS + cv2.erode(car, inner) * (255 - CLASS)


def shadow(car: Pixels) -> Pixels:
    """A strip of background of 40 pixels below the car, level 50."""
    below = np.zeros_like(car)
    for shift in range(1, 41):
        below[shift:] |= car[:-shift]
    return car * 255 + (below & (1 - car)) * 50


CLASSES: Mapping[str, Draw] = {
    "wheels": wheels,
    "windows": windows,
    "number plate": spot(30, 120, 100),
    "light": spot(40, 80, 200),
    **{f"spot of {width} pixels": spot(width, width) for width in (3, 5, 9, 17)},
    "shadow": shadow,
    **{f"band of {2 * width} pixels": band(width, width) for width in (2, 4, 8)},
    "ignored border of 10 pixels": band(10, 0),
}
AFTERWARDS: Mapping[str, Change] = {
    "as drawn": Change(lambda levels: levels),
    "reduced to 1/2": reduced(2),
    "JPEG 90": compressed(".jpg", 90),
    "JPEG 50": compressed(".jpg", 50),
}


def chosen(photos: Sequence[Photo], count: int, seed: int) -> list[Photo]:
    """A random photo of each of so many cars, or of all cars if there are fewer."""
    shuffled = random.Random(seed).sample(list(photos), len(photos))
    return list({photo.car: photo for photo in shuffled}.values())[:count]


def accepted(drawn: Pixels, change: Change) -> bool:
    """Whether the levels are those of a mask with smooth edges, by the limits of ``competition.mask_edges``."""
    levels = change.apply(drawn)
    found = plateaus(levels)
    return found.low < found.high and has_smooth_edges(levels, found, lossy=change.lossy)


def shares(data: DataFolder, photos: Sequence[Photo]) -> tuple[dict[str, float], dict[str, float]]:
    """Percent of the masks that are accepted: of each kind of smooth mask, and of each kind of map of classes."""
    smooth: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    for photo in photos:
        car = data.truth(photo)
        smooth.update({name: accepted(car * 255, change) for name, change in SMOOTH.items()})
        for name, draw in CLASSES.items():
            drawn = draw(car)
            classes.update({f"{name}, {after}": accepted(drawn, change) for after, change in AFTERWARDS.items()})
    first, second = ({name: 100 * n / len(photos) for name, n in counts.items()} for counts in (smooth, classes))
    return first, second


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Count the smooth masks and the maps of classes that are accepted as masks.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--masks", type=int, default=40, help="number of masks, each of another car")
    arguments.add_argument("--seed", type=int, default=1, help="of the choice of masks")
    options = arguments.parse_args(argv)
    data = data_folder(options.data)
    photos = chosen(data.train, options.masks, options.seed)
    smooth, classes = shares(data, photos)
    print_rows(f"{len(photos)} masks made smooth in {len(smooth)} ways; accepted", smooth, "%", digits=1)
    print_rows(f"maps of classes, {len(classes)} ways; accepted", classes, "%", digits=1)
    refused = 100 - sum(smooth.values()) / len(smooth)
    wrong = sum(classes.values()) / len(classes)
    print(f"maps of classes accepted: {wrong:.1f} %; the share depends on how many have a small class")
    targets = [Target("smooth masks refused, %", refused, 5, at_most=True)]
    result = {"data": str(data.root), "masks": [photo.img for photo in photos], "smooth": smooth, "classes": classes}
    report("mask_edges", result, targets)


if __name__ == "__main__":
    run_command(main)
