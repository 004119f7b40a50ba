"""Wheels: tyre, rim and spokes."""

from dataclasses import dataclass

import numpy as np

from competition.studio.camera import Floats

Polygon = tuple[Floats, tuple[float, float, float]]  # points (n, 3), sRGB


@dataclass(frozen=True)
class Rim:
    """The design of a car's rims; `radius` is a fraction of the tyre's, `tone` a grey 0..255."""

    radius: float
    spokes: int
    tone: float
    slim: float


def rim_of(rng: np.random.Generator) -> Rim:
    """A random rim: most are silver, some are black."""
    dark = rng.random() < 0.15
    return Rim(
        radius=float(rng.uniform(0.66, 0.76)),
        spokes=int(rng.choice([5, 5, 5, 6, 7, 10, 12])),
        tone=float(rng.uniform(30, 50) if dark else rng.uniform(165, 205)),
        slim=float(rng.uniform(0.8, 1.2)),
    )


def tyre(centre: Floats, radius: float, side: int) -> Floats:
    """Points (n, 3) whose convex hull in the picture is the outline of the tyre."""
    return np.concatenate([_circle(centre, radius, inward, side) for inward in (0.0, 0.2)])


def face(centre: Floats, radius: float, side: int, rim: Rim, turned: float) -> list[Polygon]:
    """The outer face as polygons in drawing order; `turned` is the rotation of the wheel in radians."""
    edge = rim.radius * radius
    circles = (
        (radius * 0.97, 0.0, 36.0),
        (edge * 1.04, 0.0, 22.0),
        (edge, 0.004, rim.tone * 0.95),
        (edge * 0.90, 0.05, 26.0),
        (edge * 0.60, 0.09, 40 + rim.tone * 0.28),
    )
    polygons = [(_circle(centre, size, inward, side), (tone,) * 3) for size, inward, tone in circles]
    polygons += [_spoke(centre, edge, side, rim, turned + 2 * np.pi * k / rim.spokes) for k in range(rim.spokes)]
    polygons.append((_circle(centre, edge * 0.24, 0.02, side), (rim.tone * 0.8,) * 3))
    return polygons


def _circle(centre: Floats, radius: float, inward: float, side: int) -> Floats:
    """A circle (32, 3) parallel to the wheel's outer face, `inward` metres from it."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False, dtype=np.float32)
    return _on_face(centre, angle, np.full_like(angle, radius), inward, side)


def _spoke(centre: Floats, edge: float, side: int, rim: Rim, middle: float) -> Polygon:
    half = 0.37 * rim.slim / rim.spokes
    angle = np.array([middle - 2.2 * half, middle - half, middle + half, middle + 2.2 * half], np.float32)
    radius = np.array([0.18, 0.955, 0.955, 0.18], np.float32) * edge
    tone = rim.tone * (0.86 + 0.14 * float(np.sin(middle)))  # lit from above
    return _on_face(centre, angle, radius, 0.015, side), (tone,) * 3


def _on_face(centre: Floats, angle: Floats, radius: Floats, inward: float, side: int) -> Floats:
    y = np.full_like(angle, centre[1] - side * inward)
    return np.stack([centre[0] + radius * np.cos(angle), y, centre[2] + radius * np.sin(angle)], axis=-1).astype(
        np.float32
    )
