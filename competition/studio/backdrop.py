"""Places for a car beyond the studio: other walls, words and floors, and cluttered places without any meaning."""

from dataclasses import replace

import cv2
import numpy as np

from competition.studio.camera import Camera, Floats
from competition.studio.room import ADVANCES, Picture, Room, Word, room_of_shoot

Colour = tuple[float, float, float]  # sRGB, 0..255


def room(rng: np.random.Generator, camera: Camera, border: float) -> Room:
    """A random place: mostly like the studio, with any word or none; else a plain wall and floor, or clutter.

    With probability `border`, another floor shows at the bottom of the photo.
    """
    studio = room_of_shoot(rng, camera, _word(rng))
    style = rng.random()
    if style < 0.65:
        picture = _used(rng, camera, studio.picture)
    elif style < 0.8:
        picture = _used(rng, camera, _two_colours(rng, camera))
    else:
        picture = _clutter(rng, camera)
    if border and chance(rng, border):  # nothing is drawn at 0, so that photos without it stay as they are
        _lay_other_floor(rng, picture)
    return replace(studio, picture=picture)


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with this probability."""
    return bool(rng.random() < probability)


def colour(rng: np.random.Generator) -> Colour:
    """Any colour; grey ones and strong ones are equally likely."""
    hsv = np.array([[[rng.uniform(0, 180), 255 * rng.random() ** 1.5, rng.uniform(0, 255)]]])
    red, green, blue = (float(value) for value in cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)[0, 0])
    return red, green, blue


def noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Smooth noise (height, width) of standard deviation near 1, with this number of cells across and down."""
    coarse = rng.standard_normal((max(2, cells[1]), max(2, cells[0])), np.float32)
    return np.asarray(cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def scribbled(rng: np.random.Generator, clean: Picture, count: int, size: float) -> Picture:
    """A picture (H, W, 3) with polygons, ellipses, lines and letters on it; `size` is a part of its width."""
    picture = clean.copy()
    height, width = picture.shape[:2]
    for _ in range(count):
        middle = rng.uniform((0, 0), (width, height))
        reach = size * width * rng.uniform(0.1, 1) ** 2
        tone, kind = colour(rng), rng.random()
        thick = int(rng.integers(1, 8))
        corners = (middle + reach * rng.normal(0, 0.6, (int(rng.integers(3, 7)), 2))).astype(np.int32)
        if kind < 0.3:
            cv2.fillPoly(picture, [corners], tone, cv2.LINE_AA)
        elif kind < 0.5:
            box = (middle - reach * rng.uniform(0.1, 0.7, 2)).astype(int), (middle + reach * 0.5).astype(int)
            cv2.rectangle(picture, box[0].tolist(), box[1].tolist(), tone, thick if chance(rng, 0.4) else -1)
        elif kind < 0.7:
            axes = (reach * rng.uniform(0.1, 0.6, 2)).astype(int).tolist()
            filled = -1 if chance(rng, 0.6) else thick
            cv2.ellipse(picture, middle.astype(int).tolist(), axes, rng.uniform(0, 180), 0, 360, tone, filled)
        elif kind < 0.9:
            cv2.polylines(picture, [corners], chance(rng, 0.3), tone, thick, cv2.LINE_AA)
        else:
            text = "".join(chr(letter) for letter in rng.integers(65, 91, int(rng.integers(1, 8))))
            font, scale = int(rng.integers(0, 8)), max(0.3, reach / 80)
            cv2.putText(picture, text, middle.astype(int).tolist(), font, scale, tone, max(1, int(scale * thick / 2)))
    return picture


def _word(rng: np.random.Generator) -> Word:
    """A word of random letters, thin at first and bold at the end, or no word."""
    if chance(rng, 0.12):
        return []
    letters = rng.choice(list(ADVANCES), int(rng.integers(4, 9)))
    thin, bold, change = rng.uniform(0.07, 0.14), rng.uniform(0.14, 0.26), rng.integers(0, len(letters))
    return [(str(letter), float(thin if place < change else bold)) for place, letter in enumerate(letters)]


def _used(rng: np.random.Generator, camera: Camera, clean: Picture) -> Picture:
    """A room with stains on the floor, uneven light and, sometimes, other things in it."""
    coarse = camera.height // 3, camera.width // 3  # the light and the stains are smooth
    row = np.linspace(0, camera.height, coarse[0], dtype=np.float32)[:, None]
    floor = np.clip((row - camera.horizon - 150 * camera.scale) / (60 * camera.scale), 0, 1)
    dirt = noise(rng, coarse, (int(rng.integers(2, 20)), int(rng.integers(10, 60))))
    fine = noise(rng, coarse, (coarse[1] // 2, coarse[0] // 4))
    stain = np.maximum(dirt - rng.uniform(0, 1.5), 0) * abs(rng.normal(0, 0.12)) + fine * rng.uniform(0, 0.03)
    light = 1 + noise(rng, coarse, (3, 3)) * rng.uniform(0, 0.06) + rng.normal(0, 0.03)
    gain = (light - floor * stain)[..., None] * np.ones(3, np.float32)
    gain = cv2.resize(gain.astype(np.float32), (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    picture = np.asarray(cv2.multiply(clean, gain, dtype=cv2.CV_8U), np.uint8)
    if chance(rng, 0.4):  # seams, cables, frames of doors and marks on the wall and on the floor
        drawn = scribbled(rng, picture, int(rng.integers(1, 8)), 0.3)
        share = rng.uniform(0.1, 0.8)
        picture = np.asarray(cv2.addWeighted(picture, 1 - share, drawn, share, 0), np.uint8)
    return picture


def _lay_other_floor(rng: np.random.Generator, picture: Picture) -> None:
    """Draw what lies before the floor of the room: an edge, straight or curved, and mostly something dark."""
    height, width = picture.shape[:2]
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32) - rng.uniform(-0.2, 0.2)
    start = height * (1 - rng.uniform(0.01, 0.2) + rng.uniform(-0.2, 0.2) * across**2)
    depth = np.arange(height, dtype=np.float32)[:, None] - start
    edge = height * rng.uniform(0, 0.05)
    grey = float(rng.uniform(5, 110)) if chance(rng, 0.7) else float(rng.uniform(110, 250))
    floor = np.array(colour(rng) if chance(rng, 0.3) else (grey,) * 3, np.float32)
    stains = 1 + 0.25 * noise(rng, (height, width), (12, 20))[..., None]
    picture[depth > edge] = np.clip(stains * floor, 0, 255).astype(np.uint8)[depth > edge]
    picture[(depth > 0) & (depth <= edge)] = colour(rng) if chance(rng, 0.3) else (rng.uniform(150, 255),) * 3


def _two_colours(rng: np.random.Generator, camera: Camera) -> Picture:
    """A wall and a floor, each of one colour, with a soft or a hard edge between them."""
    row = np.arange(camera.height, dtype=np.float32)[:, None, None]
    edge = camera.horizon + camera.scale * rng.uniform(-100, 350)
    share = np.clip((row - edge) / rng.uniform(1, 300) + 0.5, 0, 1)
    wall, floor = (np.array(colour(rng), np.float32) for _ in range(2))
    rows = wall + share * (floor - wall)
    return np.repeat(np.clip(rows, 0, 255), camera.width, axis=1).astype(np.uint8)


def _clutter(rng: np.random.Generator, camera: Camera) -> Picture:
    """Noise of several scales and many shapes, out of focus or not."""
    picture = _two_colours(rng, camera).astype(np.float32)
    for cells in (4, 16, 64):
        field = noise(rng, (camera.height, camera.width), (cells, int(cells * rng.uniform(0.3, 1.5))))
        picture += rng.uniform(0, 30) * field[..., None] * (np.array(colour(rng), np.float32) / 128 - 0.6)
    drawn = scribbled(rng, np.clip(picture, 0, 255).astype(np.uint8), int(rng.integers(0, 60)), rng.uniform(0.1, 0.5))
    sharp = chance(rng, 0.5)
    return drawn if sharp else np.asarray(cv2.GaussianBlur(drawn, (0, 0), rng.uniform(0.5, 8)), np.uint8)
