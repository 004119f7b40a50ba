"""One car: its dimensions, paint and parts. It is built once and rendered in 16 views."""

from dataclasses import dataclass

import numpy as np

from competition.studio.body import Cabin, Hull, Shape, normals_of, shape_of
from competition.studio.camera import Floats
from competition.studio.paint import Paint, paint_of
from competition.studio.parts import Parts, parts_of
from competition.studio.wheels import Rim, rim_of


@dataclass(frozen=True)
class Skin:
    """A painted surface: points and unit normals (levels, around, 3) in the car's axes."""

    points: Floats
    normals: Floats


@dataclass(frozen=True)
class Car:
    """A car that can be rendered; `roof` is the paint from the belt line up.

    `wheels` are the centres (4, 3) of the wheels' outer faces.
    """

    shape: Shape
    paint: Paint
    roof: Paint | None  # None: as the body
    rim: Rim
    hull: Hull
    parts: Parts
    hull_skin: Skin
    cabin_skin: Skin
    mirror_skins: tuple[tuple[Skin, int], ...]
    wheels: Floats
    wheel_angles: tuple[float, ...]
    seats: tuple[Floats, ...]


def build(kind: str, rng: np.random.Generator, detail: float = 1.0) -> Car:
    """A random car of this kind; `detail` scales the number of facets."""
    return build_shape(shape_of(kind, rng), rng, detail)


def build_shape(shape: Shape, rng: np.random.Generator, detail: float) -> Car:
    """A random car of these dimensions."""
    paint = paint_of(rng)
    hull = Hull(shape)
    cabin = Cabin(hull)
    y = shape.width / 2 * 0.975 - 0.03
    wheels = [(axle, side * y, shape.wheel) for axle in (hull.front_axle, hull.back_axle) for side in (1, -1)]
    parts = parts_of(hull, cabin, paint, rng)
    return Car(
        shape=shape,
        paint=paint,
        roof=None,
        rim=rim_of(rng),
        hull=hull,
        parts=parts,
        hull_skin=_skin(hull.grid(round(48 + 120 * detail), round(12 + 16 * detail), round(4 + 2 * detail))),
        cabin_skin=_skin(cabin.grid(round(40 + 40 * detail), round(6 + 4 * detail), round(4 + 2 * detail))),
        mirror_skins=tuple((_skin(points), side) for points, side in parts.mirrors),
        wheels=np.array(wheels, np.float32),
        wheel_angles=tuple(float(angle) for angle in rng.uniform(0, 2 * np.pi, 4)),
        seats=_seats(hull, cabin),
    )


def _skin(points: Floats) -> Skin:
    return Skin(points, normals_of(points))


def _seats(hull: Hull, cabin: Cabin) -> tuple[Floats, ...]:
    """Corners (8, 3) of each seat's back, seen through the windows."""
    shape = hull.shape
    front = cabin.screen_top - 0.42
    second = hull.back_base + 0.35 if shape.kind == "pickup" else front - 0.85
    roof = shape.height - 0.10
    top, bottom = shape.belt + 0.75 * (roof - shape.belt), shape.belt - 0.1
    corners = [(dx, dy, z) for dx in (-0.09, 0.09) for dy in (-0.2, 0.2) for z in (bottom, top)]
    # The backs lean backwards.
    back = np.array([(dx - 0.1 * (z == top), dy, z) for dx, dy, z in corners], np.float32)
    places = [(x, side * 0.20 * shape.width, 0.0) for x in (front, second) for side in (1, -1)]
    return tuple(back + np.array(place, np.float32) for place in places)
