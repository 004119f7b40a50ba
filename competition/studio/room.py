"""The empty room: a white wall with a large dark word on it, a grey floor and the turntable."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from competition.studio.camera import FRAME, Camera, Floats, turn

Picture = NDArray[np.uint8]
Polygon = list[tuple[float, float]]

_BITS = 4  # OpenCV's fractional bits of a pixel position

Word = Sequence[tuple[str, float]]  # letters and the widths of their strokes
_WORD: Word = [("V", 0.10), ("E", 0.10), ("L", 0.10), ("A", 0.21), ("N", 0.21), ("T", 0.21), ("O", 0.21)]
ADVANCES = {"V": 0.92, "E": 0.60, "L": 0.58, "A": 1.0, "N": 0.90, "T": 0.80, "O": 1.08, "C": 1.0, "R": 0.72}


def _letter(name: str, stroke: float) -> list[Polygon]:
    """A capital letter of height 1, y downwards, as polygons; the second polygon of an O is its hole."""
    wide, w = ADVANCES[name], stroke
    if name in "COR":
        return _round_letter(name, wide, w)
    slant = w * 1.08
    middle = wide / 2
    if name in "VA":
        wedge = [(0.0, 0.0), (slant, 0.0), (middle, 1 - 1.6 * w), (wide - slant, 0.0), (wide, 0.0),
                 (middle + slant / 2, 1.0), (middle - slant / 2, 1.0)]  # fmt: skip
        if name == "V":
            return [wedge]
        return [[(x, 1 - y) for x, y in wedge], _bar(middle, 0.68, middle + 0.30, 0.68 + 0.6 * w)]
    if name == "N":
        diagonal = [(0.0, 0.0), (w * 1.1, 0.0), (wide, 1.0), (wide - w * 1.1, 1.0)]
        return [_bar(0, 0, w, 1), _bar(wide - w, 0, wide, 1), diagonal]
    if name == "T":
        return [_bar(0, 0, wide, w), _bar(middle - w / 2, 0, middle + w / 2, 1)]
    stem = [_bar(0, 0, w, 1), _bar(0, 1 - w, wide, 1)]
    return stem if name == "L" else [*stem, _bar(0, 0, wide, w), _bar(0, 0.5 - w / 2, wide * 0.88, 0.5 + w / 2)]


def _round_letter(name: str, wide: float, w: float) -> list[Polygon]:
    if name == "R":
        leg = [(wide * 0.45, 0.5), (wide * 0.45 + w * 1.08, 0.5), (wide, 1.0), (wide - w * 1.08, 1.0)]
        bowl = [_bar(0, 0, wide, w), _bar(0, 0.55 - w, wide, 0.55), _bar(wide - w, 0, wide, 0.55)]
        return [_bar(0, 0, w, 1), *bowl, leg]

    def arc(inside: float, angle: Floats) -> Polygon:
        return [(wide / 2 + (wide / 2 - inside) * np.cos(a), 0.5 + (0.52 - inside) * np.sin(a)) for a in angle]

    if name == "O":
        return [arc(inside, np.linspace(0, 2 * np.pi, 72, endpoint=False)) for inside in (0.0, w)]
    opened = np.linspace(0.23, 1.77, 60) * np.pi
    return [[*arc(0.0, opened), *arc(w, opened[::-1])]]


def _bar(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


@dataclass(frozen=True)
class Room:
    """The room of one shoot.

    Attributes:
        picture: (H, W, 3) uint8 RGB, without the car and without the joints of the turntable.
        gain: (H, W, 3) uint8, the vignetting and white balance; 255 leaves a pixel as it is.
        joints: end points (n, 2, 3) in metres of the lines on the turntable, at view 01.
    """

    picture: Picture
    gain: Picture
    joints: Floats


def room_of_shoot(rng: np.random.Generator, camera: Camera, word: Word = _WORD) -> Room:
    """A random room as `camera` sees it, with a word on its wall."""
    x = np.linspace(0, 1, camera.width, dtype=np.float32)[None]
    y = np.arange(camera.height, dtype=np.float32)[:, None] / camera.scale
    edge = _wall_edge(rng, camera, x)
    picture = _wall(rng, x, y, edge)
    _write_word(rng, picture, edge[0], camera, word)
    on_floor = np.repeat(np.clip(y - edge + 0.5, 0, 1)[..., None], 3, axis=2)
    picture = cv2.add(cv2.multiply(picture, 1 - on_floor), cv2.multiply(_floor(rng, camera, x, y, edge), on_floor))
    _floor_border(rng, picture, x, y)
    return Room(_bytes(picture), _gain(rng, camera), _joints(rng))


def empty(room: Room, camera: Camera, view: float) -> Picture:
    """The room without a car at `view`: a new (H, W, 3) uint8 RGB picture."""
    picture = room.picture.copy()
    tone = (picture[int(camera.height * 0.75), ::16].mean(axis=0) * 0.86).tolist()
    pixels, _ = camera.project(turn(room.joints, view))
    for line in _fixed(pixels):
        cv2.polylines(picture, [line], False, tone, 1, cv2.LINE_AA, _BITS)
    return picture


def _fixed(pixels: Floats) -> NDArray[np.int32]:
    return np.round(pixels * (1 << _BITS)).astype(np.int32)


def _wall_edge(rng: np.random.Generator, camera: Camera, x: Floats) -> Floats:
    """The row, in pixels of a full-size photo, where the floor begins; lower at both sides of the photo."""
    middle = camera.horizon / camera.scale + 108 + rng.uniform(-6, 6)
    return np.asarray(middle + 75 * np.square(x - rng.uniform(0.48, 0.58)), np.float32)


def _wall(rng: np.random.Generator, x: Floats, y: Floats, edge: Floats) -> Floats:
    """A white wall, brightest just above the floor."""
    height = (edge - y) / 420
    light = 0.975 + 0.04 * np.exp(-np.square((height - 0.05) / 0.22)) - 0.02 * np.clip(height, 0, 2)
    light = light - 0.04 * np.square(x - rng.uniform(0.4, 0.6))
    tint = 254 + rng.normal(0, 1.2, 3).astype(np.float32)
    return np.asarray(light[..., None] * tint, np.float32)


def _write_word(rng: np.random.Generator, picture: Floats, edge: Floats, camera: Camera, word: Word) -> None:
    """Draw the word on the wall; it stands on the edge of the floor and follows its curve."""
    height = 226.0 * rng.uniform(0.98, 1.04)
    left = rng.uniform(20, 70)
    gap = ((FRAME[0] - 120) / height - sum(ADVANCES[letter] for letter, _ in word)) / max(1, len(word) - 1)
    ink = np.zeros((camera.height, camera.width), np.uint8)

    def place(polygon: Polygon, offset: float) -> NDArray[np.int32]:
        corners = np.array([*polygon, polygon[0]], np.float64)
        fine = np.concatenate([np.linspace(a, b, 8, endpoint=False) for a, b in pairwise(corners)])
        column = left + (offset + fine[:, 0]) * height
        row = np.interp(column * camera.scale, np.arange(len(edge)), edge) + 4 - (1 - fine[:, 1]) * height
        return _fixed(np.stack([column, row], axis=1) * camera.scale)

    offset = 0.0
    for letter, weight in word:
        for number, polygon in enumerate(_letter(letter, weight)):
            tone = 0 if letter == "O" and number else 255
            cv2.fillPoly(ink, [place(polygon, offset)], tone, cv2.LINE_AA, _BITS)
        offset += ADVANCES[letter] + gap
    inked = np.flatnonzero(ink.any(axis=1))
    if not len(inked):
        return
    rows = np.s_[int(inked[0]) : int(inked[-1]) + 1]
    cover = ink[rows, :, None] * np.float32(0.93 / 255)
    ink_tone = np.array([84, 83, 88], np.float32) * np.float32(rng.uniform(0.8, 1.2))
    picture[rows] += cover * (ink_tone - picture[rows])


def _floor(rng: np.random.Generator, camera: Camera, x: Floats, y: Floats, edge: Floats) -> Floats:
    """A grey floor, lighter towards the camera, with a turntable of a warmer grey."""
    light = 0.93 + 0.13 * np.clip((y - edge) / 860, 0, 1) - 0.10 * np.square(x - 0.5)
    grey = np.array([190, 192, 194], np.float32) * np.float32(rng.uniform(0.88, 1.08))
    grey += rng.normal(0, 1.5, 3).astype(np.float32)
    warm = np.array([1.015, 1.0, 0.975], np.float32) ** np.float32(rng.uniform(0, 1.4))
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False, dtype=np.float32)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)
    rim = _fixed(camera.project(circle * np.float32(rng.uniform(2.95, 3.75)))[0])
    tones = np.empty((camera.height, camera.width, 3), np.float32)
    tones[...] = grey
    cv2.fillPoly(tones, [rim], (grey * warm * np.float32(rng.uniform(0.975, 1.02))).tolist(), cv2.LINE_8, _BITS)
    line = max(1, round(2 * camera.scale))
    cv2.polylines(tones, [rim], True, (grey * rng.uniform(0.55, 0.9)).tolist(), line, cv2.LINE_8, _BITS)
    tones *= light[..., None]
    return tones


def _floor_border(rng: np.random.Generator, picture: Floats, x: Floats, y: Floats) -> None:
    """Draw the edge of the floor at the bottom of the photo, in the shoots where it shows."""
    height = rng.uniform(-90, 25)
    if height > 0:
        start = FRAME[1] - height - 40 * np.square(x - 0.45)
        cover = np.clip((y - start) / 3, 0, 1)[..., None]
        picture += cover * (np.float32(225) - picture)
        line = np.exp(-np.square((y - start - 12) / 4))[..., None]
        picture += 0.7 * line * (np.array([120, 92, 70], np.float32) - picture)


def _joints(rng: np.random.Generator) -> Floats:
    """Joints between the plates of the turntable: end points (n, 2, 3) in metres."""
    angles = rng.uniform(0, 2 * np.pi) + np.arange(8) * np.pi / 4
    angles = angles[rng.random(8) < 0.6]
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    return np.stack([0.5 * directions, 2.9 * directions], axis=1).astype(np.float32)


def _gain(rng: np.random.Generator, camera: Camera) -> Picture:
    x = np.linspace(-0.5, 0.5, 96, dtype=np.float32)[None]
    y = np.linspace(-0.5, 0.5, 64, dtype=np.float32)[:, None]
    vignette = 1 - rng.uniform(0.03, 0.12) * (np.square(x * 1.15) + np.square(y * 0.9))
    warmth = rng.uniform(-1, 1)
    balance = np.array([0.98 + 0.012 * warmth, 0.98, 0.98 - 0.022 * warmth]) * rng.uniform(0.97, 1.012)
    coarse = (255 * vignette[..., None] * balance).astype(np.float32)
    return _bytes(cv2.resize(coarse, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR))


def _bytes(values: Floats) -> Picture:
    return np.asarray(cv2.convertScaleAbs(np.maximum(values, 0, dtype=np.float32)), np.uint8)


@lru_cache(maxsize=4)
def noise_tile(width: int, height: int) -> tuple[Picture, Picture]:
    """What the sensor's noise adds and what it subtracts: two (height + 64, width + 64, 3) uint8 arrays."""
    rng = np.random.default_rng(20170725)
    noise = 1.7 * rng.standard_normal((height + 64, width + 64, 3), np.float32)
    noise += cv2.GaussianBlur(noise, (0, 0), 0.8)
    return _bytes(noise), _bytes(-noise)
