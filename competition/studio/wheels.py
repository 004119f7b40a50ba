"""Wheels: a tyre, a rim with spokes, and what is seen between them."""

from dataclasses import dataclass

import numpy as np

from competition.studio.camera import Floats

Polygon = tuple[Floats, tuple[float, float, float]]


@dataclass(frozen=True)
class Rim:
    """The design of a car's four rims: radii are fractions of the tyre's."""

    radius: float
    spokes: int
    twin: bool
    tone: float
    slim: float


def rim_of(rng: np.random.Generator) -> Rim:
    """A rim from the catalogue: most are silver alloy, some are black."""
    dark = rng.random() < 0.15
    return Rim(
        radius=float(rng.uniform(0.66, 0.76)),
        spokes=int(rng.choice([5, 5, 5, 6, 7, 10, 12])),
        twin=bool(rng.random() < 0.4),
        tone=float(rng.uniform(30, 50) if dark else rng.uniform(165, 205)),
        slim=float(rng.uniform(0.8, 1.2)),
    )


def circle(centre: Floats, radius: float, inward: float, side: int, count: int = 40) -> Floats:
    """A circle (count, 3) in the wheel's plane, `inward` metres from its outer face."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False, dtype=np.float32)
    return _in_plane(centre, radius * np.cos(angle), radius * np.sin(angle), inward, side)


def _in_plane(centre: Floats, along: Floats, up: Floats, inward: float, side: int) -> Floats:
    y = np.full_like(along, centre[1] - side * inward)
    return np.stack([centre[0] + along, y, centre[2] + up], axis=-1).astype(np.float32)


def tyre(centre: Floats, radius: float, side: int) -> Floats:
    """Points whose convex hull in the picture is the tyre's outline."""
    return np.concatenate(
        [
            circle(centre, radius * 0.985, 0.0, side),
            circle(centre, radius, 0.03, side),
            circle(centre, radius, 0.20, side),
        ]
    )


def face(centre: Floats, radius: float, side: int, rim: Rim, turned: float) -> list[Polygon]:
    """The outer face as polygons to paint in this order, in the car's axes, with sRGB colours."""
    edge = rim.radius * radius
    light = rim.tone
    polygons: list[Polygon] = [
        (circle(centre, radius * 0.97, 0.0, side), (33, 33, 34)),
        (circle(centre, radius * 0.86, -0.006, side), (39, 39, 40)),
        (circle(centre, edge * 1.04, 0.0, side), (22, 22, 23)),
        (circle(centre, edge, 0.004, side), (light * 0.95,) * 3),
        (circle(centre, edge * 0.93, 0.012, side), (light * 0.62,) * 3),
        (circle(centre, edge * 0.88, 0.07, side), (26, 26, 28)),
        (circle(centre, edge * 0.60, 0.09, side), (40 + light * 0.28,) * 3),
        (circle(centre, edge * 0.30, 0.085, side), (48, 48, 50)),
    ]
    polygons.extend(_spokes(centre, edge, side, rim, turned))
    polygons.append((circle(centre, edge * 0.24, 0.024, side, 20), (light * 0.86,) * 3))
    polygons.append((circle(centre, edge * 0.13, 0.016, side, 16), (light * 0.4 + 20,) * 3))
    return polygons


def _spokes(centre: Floats, edge: float, side: int, rim: Rim, turned: float) -> list[Polygon]:
    out = []
    wide = 0.52 * rim.slim / rim.spokes
    offsets = (-0.55 * wide, 0.55 * wide) if rim.twin else (0.0,)
    half = 0.36 * wide if rim.twin else 0.72 * wide
    for spoke in range(rim.spokes):
        middle = turned + 2 * np.pi * spoke / rim.spokes
        # Spokes that look up catch the ceiling's light.
        lit = rim.tone * (0.86 + 0.14 * np.sin(middle))
        for offset in offsets:
            tip, root = middle + offset * 2.2, middle + offset
            angles = np.array([root - 2.2 * half, tip - half, tip + half, root + 2.2 * half], np.float32)
            reach = np.array([0.18, 0.955, 0.955, 0.18], np.float32) * edge
            deep = np.array([0.024, 0.010, 0.010, 0.024], np.float32)
            points = _in_plane(centre, reach * np.cos(angles), reach * np.sin(angles), 0.0, side)
            points[:, 1] -= side * deep
            out.append((points, (lit, lit, lit * 1.01)))
    return out
