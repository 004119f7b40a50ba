"""The room: a white wall with a big dark word on it, a grey floor that curves up to it, the turntable."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from competition.studio.camera import FRAME, Camera, Floats, turn

Picture = NDArray[np.uint8]

_SUBPIXEL = 4  # bits

_WORD = (("V", 0.10), ("E", 0.10), ("L", 0.10), ("A", 0.21), ("N", 0.21), ("T", 0.21), ("O", 0.21))
_ADVANCES = {"V": 0.92, "E": 0.60, "L": 0.58, "A": 1.0, "N": 0.90, "T": 0.80, "O": 1.08}

Polygon = list[tuple[float, float]]


def _letter(name: str, stroke: float) -> list[Polygon]:
    """A capital of height 1, y down, as polygons; the second polygon of an O is its hole."""
    wide, w = _ADVANCES[name], stroke
    slant = w * 1.08
    middle = wide / 2

    def bar(x0: float, y0: float, x1: float, y1: float) -> Polygon:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]

    if name == "O":
        angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        return [[(middle + (middle - k) * np.cos(a), 0.5 + (0.52 - k) * np.sin(a)) for a in angle] for k in (0.0, w)]
    if name in "VA":
        wedge = [(0.0, 0.0), (slant, 0.0), (middle, 1 - 1.6 * w), (wide - slant, 0.0), (wide, 0.0),
                 (middle + slant / 2, 1.0), (middle - slant / 2, 1.0)]  # fmt: skip
        if name == "V":
            return [wedge]
        # The bar of the A stops short of the left leg.
        return [[(x, 1 - y) for x, y in wedge], bar(middle, 0.68, middle + 0.30, 0.68 + 0.6 * w)]
    if name == "N":
        diagonal = [(0.0, 0.0), (w * 1.1, 0.0), (wide, 1.0), (wide - w * 1.1, 1.0)]
        return [bar(0, 0, w, 1), bar(wide - w, 0, wide, 1), diagonal]
    if name == "T":
        return [bar(0, 0, wide, w), bar(middle - w / 2, 0, middle + w / 2, 1)]
    stem = [bar(0, 0, w, 1), bar(0, 1 - w, wide, 1)]
    return stem if name == "L" else [*stem, bar(0, 0, wide, w), bar(0, 0.5 - w / 2, wide * 0.88, 0.5 + w / 2)]


@dataclass(frozen=True)
class Room:
    """One shoot's empty room.

    Attributes:
        picture: (H, W, 3) uint8 RGB, the room without car and without what turns with the table.
        gain: (H, W, 3) uint8, what the lens lets through, 255 for all.
        seams: end points (n, 2, 3) float32 in metres of the lines on the turntable, at view 01.
    """

    picture: Picture
    gain: Picture
    seams: Floats


def room_of_shoot(rng: np.random.Generator, camera: Camera) -> Room:
    """Build the room as `camera` sees it, with its own paint, light and marks."""
    width, height = camera.width, camera.height
    x = np.linspace(0, 1, width, dtype=np.float32)[None]
    y = np.arange(height, dtype=np.float32)[:, None] / camera.scale
    edge = _wall_edge(rng, camera, x)
    picture = _wall(rng, x, y, edge)
    _write_word(rng, picture, edge[0], camera)
    _draw_door(rng, picture, camera, float(edge.min()))
    floor = _floor(rng, camera, x, y, edge)
    on_floor = np.clip(y - edge + 0.5, 0, 1)[..., None]
    picture += on_floor * (floor - picture)
    _border(rng, picture, x, y)
    return Room(_bytes(picture), _gain(rng, camera), _seams(rng))


def empty(room: Room, camera: Camera, view: int) -> Picture:
    """The room without a car at `view`: (H, W, 3) uint8 RGB, a fresh copy."""
    picture = room.picture.copy()
    rows, _ = camera.project(turn(room.seams, view))
    scale = 1 << _SUBPIXEL
    lines = np.round(rows * scale).astype(np.int32)
    tone = _tone(picture)
    for line in lines:
        cv2.polylines(picture, [line], False, tone, 1, cv2.LINE_AA, _SUBPIXEL)
    return picture


def _tone(picture: Picture) -> tuple[int, int, int]:
    row = picture[int(picture.shape[0] * 0.75), ::16].mean(axis=0) * 0.86
    return int(row[0]), int(row[1]), int(row[2])


def _wall_edge(rng: np.random.Generator, camera: Camera, x: Floats) -> Floats:
    """The row, in pixels of the full size, at which the floor's grey ends: lower at both sides of the picture."""
    middle = camera.horizon / camera.scale + 108 + rng.uniform(-6, 6)
    return np.asarray(middle + 75 * np.square(x - rng.uniform(0.48, 0.58)), np.float32)


def _wall(rng: np.random.Generator, x: Floats, y: Floats, edge: Floats) -> Floats:
    high = (edge - y) / 420
    glow = 0.975 + 0.04 * np.exp(-np.square((high - 0.05) / 0.22)) - 0.02 * np.clip(high, 0, 2)
    glow = glow - 0.04 * np.square(x - rng.uniform(0.4, 0.6))
    tint = np.array([254, 254, 254], np.float32) + rng.normal(0, 1.2, 3).astype(np.float32)
    return np.asarray(glow[..., None] * tint, np.float32)


def _write_word(rng: np.random.Generator, picture: Floats, edge: Floats, camera: Camera) -> None:
    """Draw the word on the wall, following its curve; it stands on the floor's edge."""
    tall = 226.0 * rng.uniform(0.98, 1.04)
    left = rng.uniform(20, 70)
    spacing = (FRAME[0] - 120) / tall - sum(_ADVANCES[letter] for letter, _ in _WORD)
    ink = _pencil(camera, edge, tall=tall, left=left, gap=spacing / (len(_WORD) - 1))
    tone = np.array([84, 83, 88], np.float32) * np.float32(rng.uniform(0.8, 1.2))
    fade = np.linspace(0.85, 1.0, len(ink), dtype=np.float32)[:, None]
    cover = ink.astype(np.float32)[..., None] / 255 * fade[..., None]
    picture += cover * (tone - picture)


def _draw_door(rng: np.random.Generator, picture: Floats, camera: Camera, foot: float) -> None:
    """The thin joint of a door in the wall, through the word."""
    left, right, top = rng.uniform(640, 700), rng.uniform(1140, 1190), foot - rng.uniform(245, 270)
    corners = np.array([(left, foot + 4), (left, top), (right, top), (right, foot + 4)]) * camera.scale
    line = np.zeros((camera.height, camera.width), np.uint8)
    cv2.polylines(
        line, [np.round(corners * (1 << _SUBPIXEL)).astype(np.int32)], False, 255, 1, cv2.LINE_AA, _SUBPIXEL
    )
    cover = line.astype(np.float32)[..., None] * np.float32(rng.uniform(0.2, 0.55) / 255)
    picture += cover * (np.float32(110) - picture)


def _pencil(camera: Camera, edge: Floats, *, tall: float, left: float, gap: float) -> Picture:
    ink = np.zeros((camera.height, camera.width), np.uint8)
    one = 1 << _SUBPIXEL

    def place(points: Polygon, offset: float) -> NDArray[np.int32]:
        fine = _dense(np.array([*points, points[0]], np.float64))
        column = left + (offset + fine[:, 0]) * tall
        row = np.interp(column * camera.scale, np.arange(len(edge)), edge) + 4 - (1 - fine[:, 1]) * tall
        return np.asarray(np.round(np.stack([column, row], axis=1) * camera.scale * one), np.int32)

    offset = 0.0
    for letter, weight in _WORD:
        for number, polygon in enumerate(_letter(letter, weight)):
            tone = 0 if letter == "O" and number else 255
            cv2.fillPoly(ink, [place(polygon, offset)], tone, cv2.LINE_AA, _SUBPIXEL)
        offset += _ADVANCES[letter] + gap
    return ink


def _dense(points: NDArray[np.float64]) -> NDArray[np.float64]:
    pieces = [np.linspace(a, b, 8, endpoint=False) for a, b in pairwise(points)]
    return np.concatenate([*pieces, points[-1:]])


def _floor(rng: np.random.Generator, camera: Camera, x: Floats, y: Floats, edge: Floats) -> Floats:
    """Grey floor, lighter towards the camera, with the turntable's warmer concrete."""
    deep = np.clip((y - edge) / 860, 0, 1)
    light = 0.93 + 0.13 * deep - 0.10 * np.square(x - 0.5) + 0 * x
    grey = np.array([190, 192, 194], np.float32) * rng.uniform(0.88, 1.08) + rng.normal(0, 1.5, 3).astype(np.float32)
    floor = light[..., None] * grey
    disc = np.zeros((camera.height, camera.width), np.uint8)
    rim, line = _rim(camera, float(rng.uniform(2.95, 3.75)))
    cv2.fillPoly(disc, [rim], 255, cv2.LINE_AA, _SUBPIXEL)
    warm = np.array([1.015, 1.0, 0.975], np.float32) ** np.float32(rng.uniform(0, 1.4))
    warm = warm * np.float32(rng.uniform(0.975, 1.02))
    worn = np.float32(1) + (_clouds(rng, camera) * np.float32(rng.uniform(0.005, 0.014)))[..., None]
    inside = disc.astype(np.float32)[..., None] / 255
    floor = floor * (1 + inside * (warm * worn - 1))
    _dirt(rng, camera, floor)
    ring = np.zeros_like(disc)
    cv2.polylines(ring, [rim], True, 255, line, cv2.LINE_AA, _SUBPIXEL)
    dark = np.float32(rng.uniform(0.1, 0.45))
    return np.asarray(floor * (1 - dark * ring.astype(np.float32)[..., None] / 255), np.float32)


def _dirt(rng: np.random.Generator, camera: Camera, floor: Floats) -> None:
    """Specks and scuffs on the floor."""
    for _ in range(60):
        column, row = rng.uniform(0, FRAME[0]), rng.uniform(620, FRAME[1])
        long = rng.exponential(14) + 1
        start = np.array([column, row]) * camera.scale
        stop = start + np.array([long, rng.normal(0, 0.15) * long]) * camera.scale
        line = np.round(np.stack([start, stop]) * (1 << _SUBPIXEL)).astype(np.int32)
        tone = floor[min(int(start[1]), camera.height - 1), min(int(start[0]), camera.width - 1)]
        colour = (tone * rng.uniform(0.8, 1.07)).tolist()
        cv2.polylines(floor, [line], False, colour, 1, cv2.LINE_8, _SUBPIXEL)


def _rim(camera: Camera, radius: float) -> tuple[NDArray[np.int32], int]:
    angle = np.linspace(0, 2 * np.pi, 361, dtype=np.float32)[:-1]
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1) * np.float32(radius)
    pixels, _ = camera.project(circle)
    return np.round(pixels * (1 << _SUBPIXEL)).astype(np.int32), max(1, round(2 * camera.scale))


def _clouds(rng: np.random.Generator, camera: Camera) -> Floats:
    """Smooth blotches (H, W) about 0, of size 1: wear and stains."""
    total = np.zeros((camera.height, camera.width), np.float32)
    for cells, weight in ((6, 0.6), (20, 0.5), (70, 0.35)):
        coarse = rng.normal(0, 1, (cells, 2 * cells)).astype(np.float32)
        total += weight * cv2.resize(coarse, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
    return total


def _border(rng: np.random.Generator, picture: Floats, x: Floats, y: Floats) -> None:
    """The edge of the floor at the bottom of the picture, in shoots where it shows."""
    dip = rng.uniform(-90, 25)
    if dip > 0:
        start = FRAME[1] - dip - 40 * np.square(x - 0.45)
        over = np.clip((y - start) / 3, 0, 1)[..., None]
        picture += over * (np.float32(225) - picture)
        line = np.exp(-np.square((y - start - 12) / 4))[..., None]
        picture += 0.7 * line * (np.array([120, 92, 70], np.float32) - picture)


def _seams(rng: np.random.Generator) -> Floats:
    """Lines on the turntable: plates' joints, a hatch or two; (n, 2, 3) metres at view 01."""
    angles = rng.uniform(0, 2 * np.pi) + np.arange(8) * np.pi / 4
    lines = [
        [(reach * np.cos(angle), reach * np.sin(angle)) for reach in (0.5, 2.9)]
        for angle in angles[rng.random(8) < 0.6]
    ]
    for _ in range(int(rng.integers(1, 3))):
        x, y = rng.uniform(-1.6, 1.6, 2)
        a, b = rng.uniform(0.3, 0.7, 2)
        corners = [(x, y), (x + a, y), (x + a, y + b), (x, y + b), (x, y)]
        lines.extend([first, second] for first, second in pairwise(corners))
    flat = np.array(lines, np.float32).reshape(-1, 2, 2)
    return np.concatenate([flat, np.zeros((*flat.shape[:2], 1), np.float32)], axis=2)


def _gain(rng: np.random.Generator, camera: Camera) -> Picture:
    x = np.linspace(-0.5, 0.5, 96, dtype=np.float32)[None]
    y = np.linspace(-0.5, 0.5, 64, dtype=np.float32)[:, None]
    dark = 1 - rng.uniform(0.03, 0.12) * (np.square(x * 1.15) + np.square(y * 0.9))
    # Exposure and white balance of the shoot; 255 is the most that a gain can be, so all of them darken.
    warmth = rng.uniform(-1, 1)
    cast = np.array([0.98 + 0.012 * warmth, 0.98, 0.98 - 0.022 * warmth]) * rng.uniform(0.97, 1.012)
    coarse = (255 * dark[..., None] * cast).astype(np.float32)
    return _bytes(cv2.resize(coarse, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR))


def _bytes(values: Floats) -> Picture:
    return np.asarray(cv2.convertScaleAbs(np.maximum(values, 0, dtype=np.float32)), np.uint8)


@lru_cache(maxsize=4)
def noise_tile(width: int, height: int) -> tuple[Picture, Picture]:
    """What the sensor adds and what it takes away: two pictures a good deal larger than the frame's corner."""
    rng = np.random.default_rng(20170725)
    grain = rng.normal(0, 1.7, (height + 64, width + 64, 3)).astype(np.float32)
    grain += cv2.GaussianBlur(grain, (0, 0), 0.8)
    return _bytes(np.maximum(grain, 0)), _bytes(np.maximum(-grain, 0))
