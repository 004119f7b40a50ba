"""What the values of mask files mean in a data set: which is car, also in files of a single value.

The files of two values must agree. 0/1, 0/255 and 0/65535 are the same, black and white in 1, 8 or 16 bits. Other
pairs, such as 0/1 and 0/2, are several classes and are refused. A file of a single value is empty if it is the
background of the other files, and full if it is their car.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from competition.command import Failure
from competition.images import Pixels
from competition.mask_file import ADVICE, MaskFile, Values, read_mask
from competition.plural import counted

WHITE = ("1", "255", "65535")
BLACK = Values("0", None)
BLACK_AND_WHITE = ("0", "255")
DARK, BRIGHT = 16, 239  # a smooth mask whose levels are beyond these in 8 bits is black and white


class MaskValues:
    """The values in the mask files of a data set.

    Args:
        files: all mask files. They are read only as far as needed: to the first file of two values.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.found: dict[Path, Values] = {}  # of the files that were read

    def describe(self) -> list[str]:
        """The values of the files that were read, the most frequent first: ``0/255 in 812 files, 255 is car``."""
        return describe_values(self.found.values())

    def mask(self, file: MaskFile) -> Pixels:
        """The mask of a file of the data set, (H, W) uint8 of 0 and 1, 1 is car."""
        self.found[file.path] = file.values
        if file.values.car is not None:
            if not file.values.alpha:  # opaque pixels are car; the values of other files do not matter
                self._require_agreement(file)
            return file.labels
        path, values = self._first or (None, BLACK)
        background, car = _meaning(values)
        if file.values.background == background:
            return file.labels
        if file.values.background in (car, values.car):
            return np.ones_like(file.labels)
        seen = f"{path} has {values}" if path else "no other mask has two values"
        raise Failure(
            f"{file.path} has the value {file.values.background} only, which may be background or car: {seen}; write "
            "masks of the same two values, and 0 for an empty one"
        )

    def _require_agreement(self, file: MaskFile) -> None:
        """Fail if a file and the first one differ; the error names the one that differs from most files."""
        if self._first is None or _meaning(file.values) == _meaning(self._first[1]):
            return
        path, usual = self._usual
        other, values = self._first if _meaning(file.values) == _meaning(usual) else (file.path, file.values)
        raise Failure(
            f"{other} has the values {values}, but {path} has {usual}, as if masks of several classes; this project "
            f"segments car or not; {ADVICE}"
        )

    @cached_property
    def _first(self) -> tuple[Path, Values] | None:
        """The first file of two values."""
        return next(self._pairs(), None)

    @cached_property
    def _usual(self) -> tuple[Path, Values]:
        """The first file with the values of most files. All files are read, but only if they do not agree."""
        pairs = list(self._pairs())
        [(meaning, _)] = Counter(_meaning(values) for _, values in pairs).most_common(1)
        return next((path, values) for path, values in pairs if _meaning(values) == meaning)

    def _pairs(self) -> Iterator[tuple[Path, Values]]:
        """The files of two values, without alpha channels. Files that cannot be read are reported elsewhere."""
        for path in self.files:
            try:
                values = self.found.get(path) or read_mask(path).values
            except Failure:
                continue
            self.found[path] = values
            if values.car is not None and not values.alpha:
                yield path, values


def describe_values(found: Iterable[Values]) -> list[str]:
    """The values of mask files, the most frequent first, and which of them is car."""
    lines = []
    for values, count in Counter(found).most_common():
        how = f", {values.car} is car" if values.car is not None else ""
        lines.append(f"{values} in {counted(count, 'file')}{how}")
    return lines


def _meaning(values: Values) -> tuple[str, str | None]:
    """Background and car; equal for files that may be in one data set."""
    background, car = values.background, values.car
    if values.smooth and car is not None and background.isdecimal() and car.isdecimal():
        scale = 257 if int(car) > 255 else 1
        if int(background) <= DARK * scale and int(car) >= BRIGHT * scale:
            return BLACK_AND_WHITE
    return BLACK_AND_WHITE if background == "0" and car in WHITE else (background, car)
