"""Which car a photo shows, by its name and the setting ``data.cars``. All photos of a car are in one fold.

auto           <car>_<view>, where the view is 01 to 16 in two digits; other photos are cars of their own
photo          each photo is a car of its own
folder         the photos of a car have a folder: train/<car>/<any name>.jpg
before:S       the part of the name before the first S, such as before:_ or before:-
before_last:S  the part before the last S
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from competition.names import without_suffix
from competition.plural import counted

VIEW = re.compile(r"(?P<car>.+)_(?P<view>0[1-9]|1[0-6])")
CARVANA = re.compile(r"[0-9a-f]{12}")  # cars in the competition
NUMBER = re.compile(r"(?P<car>.+)_\d+")
BEFORE, BEFORE_LAST = "before:", "before_last:"
RULES = "auto, photo, folder, before:S or before_last:S with a separator S"
UNKNOWN_VIEW = 0


def car_and_view(img: str, rule: str = "auto") -> tuple[str, int]:
    """The car and the view of a photo; only ``auto`` knows views, others have view 0."""
    name = without_suffix(img)
    if rule == "auto":
        match = VIEW.fullmatch(name)
        return (match["car"], int(match["view"])) if match else (name, UNKNOWN_VIEW)
    return _car(name, rule), UNKNOWN_VIEW


def _car(name: str, rule: str) -> str:
    if rule == "folder":  # a photo in no folder is a car of its own
        return name.rpartition("/")[0] or name
    if rule.startswith(BEFORE):
        return name.partition(rule.removeprefix(BEFORE))[0] or name
    if rule.startswith(BEFORE_LAST):
        return name.rpartition(rule.removeprefix(BEFORE_LAST))[0] or name
    return name


def is_rule(text: str) -> bool:
    """Whether a text is a value of ``data.cars``."""
    before, colon, separator = text.partition(":")
    return text in ("auto", "photo", "folder") or (f"{before}{colon}" in (BEFORE, BEFORE_LAST) and separator != "")


@dataclass(frozen=True)
class Groups:
    """How photos were grouped into cars: numbers, and what is implausible about the groups, one line each."""

    photos: int
    cars: int
    smallest: int
    median: float
    largest: int
    warnings: list[str]

    def __str__(self) -> str:
        """Such as ``1,024 photos of 64 cars, 16 of each``."""
        each = f"{self.smallest} to {self.largest} (median {self.median:g})"
        each = str(self.smallest) if self.smallest == self.largest else each
        return f"{counted(self.photos, 'photo')} of {counted(self.cars, 'car')}, {each} of each"


def groups(car_of: Mapping[str, str], rule: str = "auto") -> Groups:
    """How photos were grouped.

    Args:
        car_of: the car of each photo, by the photo's name; not empty.
        rule: the setting ``data.cars``.
    """
    sizes = Counter(car_of.values())
    return Groups(
        photos=len(car_of),
        cars=len(sizes),
        smallest=min(sizes.values()),
        median=median(sizes.values()),
        largest=max(sizes.values()),
        warnings=[
            warning for warning in (_numbered(car_of, rule), _large(sizes, rule), _single(sizes, rule)) if warning
        ],
    )


def _numbered(car_of: Mapping[str, str], rule: str) -> str | None:
    """Warn about numbers of photos that look like views: 01 to 16 of IMG_01 to IMG_40."""
    if rule != "auto":
        return None
    first: dict[str, str] = {}
    beyond: dict[str, str] = {}
    for img, car in car_of.items():
        name = without_suffix(img)
        match = NUMBER.fullmatch(name)
        if match:
            (first if car != name else beyond).setdefault(match["car"], img)
    cars = [car for car in first if car in beyond]
    if not cars:
        return None
    others = f" and {len(cars) - 1:,} more such names" if len(cars) > 1 else ""
    return (
        f"{first[cars[0]]} and others count as views of one car, {cars[0]}, but {beyond[cars[0]]} has a number that "
        f"is no view (01 to 16){others}; if these numbers count photos, set data.cars=photo or another rule "
        "(docs/your-photos.md)"
    )


def _large(sizes: Counter[str], rule: str) -> str | None:
    """One car has most photos, or there are one or two cars, whose names may be those of cameras: IMG and DSC."""
    [(car, size)] = sizes.most_common(1)
    cameras = rule == "auto" and len(sizes) <= 2 and size > 1 and not CARVANA.fullmatch(car)
    if not cameras and (len(sizes) == 1 or size <= sizes.total() / 2):
        return None
    return (
        f"car {car} has {size:,} of the {sizes.total():,} photos; if they show several cars, set data.cars "
        "(docs/your-photos.md)"
    )


def _single(sizes: Counter[str], rule: str) -> str | None:
    """No two photos are of one car."""
    if rule == "photo" or len(sizes) < sizes.total() or len(sizes) == 1:
        return None
    return (
        f"each of the {len(sizes):,} photos is a car of its own; if several photos show one car, set data.cars "
        "(docs/your-photos.md), otherwise the CV is too high; if not, set data.cars=photo"
    )
