"""A photo and how it is read. This module and what it imports need neither pandas nor torch."""

from dataclasses import dataclass
from pathlib import Path

from competition.images import Pixels, read_halved, read_rgb, shape_of
from competition.rle import Shape


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo: its name in the CSV files, the car and view in that name, and its file.

    With ``upright``, its EXIF orientation is applied wherever its pixels or its shape are read. The mask of a photo,
    in every table and of every command, belongs to the photo as it is read here.
    """

    img: str
    car: str
    view: int
    path: Path
    upright: bool = False

    @property
    def shape(self) -> Shape:
        """(height, width) in pixels, read from the file's header and cached."""
        return shape_of(self.path, upright=self.upright)

    def read(self) -> Pixels:
        """The photo as (H, W, 3) uint8 RGB."""
        return read_rgb(self.path, upright=self.upright)

    def read_halved(self, at_least: Shape) -> tuple[Pixels, int]:
        """The photo at full or half size, and the divisor; see ``competition.images.read_halved``."""
        return read_halved(self.path, at_least, upright=self.upright)
