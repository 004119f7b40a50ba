"""A sheet of photos with the outlines of their masks, so that a person sees at once whether the masks fit."""

import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.exif import UPRIGHT
from competition.files import replacing
from competition.images import Pixels, orientation_of
from competition.overlay import draw_mask
from competition.photo import Photo

PHOTOS = 9
COLUMNS = 3
TILE = (480, 360)  # the largest width and height of a photo on the sheet
MARGIN = 20
TITLE_SIZE, DETAIL_SIZE = 17, 14
CAPTION = 56  # the height of the title and the details
PAPER, INK, PALE_INK = (255, 255, 255), (20, 20, 20), (100, 100, 100)
DETAILED = 2  # outlines are drawn at twice the size and scaled down, which smooths them


@dataclass(frozen=True)
class Tile:
    """A photo on the sheet, with the outline of its mask, and two lines of text below it."""

    picture: Pixels
    title: str
    details: str


def write_sheet(path: Path, data: DataFolder, areas: Mapping[str, float]) -> None:
    """Write a PNG of nine training photos of a data folder with the outlines of their masks.

    Args:
        path: the file to write.
        data: the data folder.
        areas: the photos to choose from, by name, with the part of each that its mask covers.
    """
    photos = chosen([photo for photo in data.train if photo.img in areas], areas)
    if not photos:
        raise Failure(f"{data.root} holds no photo with a mask to show; the lines above say why")
    tiles = [_tile(data, photo, areas[photo.img]) for photo in photos]
    with replacing(path) as temporary:
        Image.fromarray(sheet_of(tiles)).save(temporary, format="PNG")


def chosen(photos: Iterable[Photo], areas: Mapping[str, float], count: int = PHOTOS, seed: int = 1) -> list[Photo]:
    """The photos of a sheet by their area: the smallest, median and largest, one of each size, and random others."""
    ordered = sorted(photos, key=lambda photo: (areas[photo.img], photo.img))
    if len(ordered) <= count:
        return ordered
    first = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    others = [photo for photo in ordered if photo not in first]
    random.Random(seed).shuffle(others)
    known = {photo.shape for photo in first}
    new_sizes = list({photo.shape: photo for photo in reversed(others) if photo.shape not in known}.values())
    picked = list(dict.fromkeys([*first, *new_sizes, *others]))[:count]
    return sorted(picked, key=ordered.index)


def sheet_of(tiles: Sequence[Tile]) -> Pixels:
    """Draw tiles in rows of three."""
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    heights = [max(tile.picture.shape[0] for tile in row) for row in rows]
    width = min(COLUMNS, len(tiles)) * (TILE[0] + MARGIN) + MARGIN
    page = Image.new("RGB", (width, sum(heights) + len(rows) * (CAPTION + MARGIN) + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = MARGIN + column * (TILE[0] + MARGIN)
            page.paste(Image.fromarray(tile.picture), (left, top + height - tile.picture.shape[0]))
            _write(draw, (left, top + height + 6), tile.title, TITLE_SIZE, INK)
            _write(draw, (left, top + height + 30), tile.details, DETAIL_SIZE, PALE_INK)
        top += height + CAPTION + MARGIN
    return np.asarray(page)


def overlay(photo: Pixels, mask: Pixels) -> Pixels:
    """A photo, scaled to fit into a tile, with its mask tinted and outlined by a bright line with a dark rim."""
    scale = min(TILE[0] / photo.shape[1], TILE[1] / photo.shape[0])
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    large = size[0] * DETAILED, size[1] * DETAILED
    picture = _resized(photo, large)
    inside = _resized(mask * np.uint8(255), large) >= 128
    draw_mask(picture, inside.astype(np.uint8), line=3)
    return _resized(picture, size)


def _tile(data: DataFolder, photo: Photo, area: float) -> Tile:
    height, width = photo.shape
    details = f"{100 * area:.1f} % car, {width} x {height}"
    orientation = orientation_of(photo.path)
    if orientation != UPRIGHT:
        details += f", EXIF orientation {orientation} {'applied' if photo.upright else 'ignored'}"
    return Tile(overlay(photo.read(), data.truth(photo)), photo.img, details)


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    shrinks = size[0] < pixels.shape[1]
    resized: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized


def _write(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int, color: tuple[int, int, int]
) -> None:
    """Write one line, shortened in its middle to the width of a tile."""
    font = ImageFont.truetype(_font_file(), size)
    text = _legible(text)
    kept = len(text)
    shown = text
    while draw.textlength(shown, font) > TILE[0] and kept > 2:
        kept -= 1
        shown = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    draw.text(corner, shown, color, font)


def _legible(text: str) -> str:
    """Text with each character that the font lacks as an escape such as ``\\u8eca``."""
    known = _characters()
    return "".join(
        character if ord(character) in known else character.encode("ascii", "backslashreplace").decode()
        for character in unicodedata.normalize("NFC", text)
    )


def _font_file() -> str:
    """DejaVu Sans, which comes with matplotlib; it has Latin, Greek, Cyrillic and Arabic letters, but no Chinese."""
    from matplotlib import get_data_path

    return str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@cache
def _characters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())
