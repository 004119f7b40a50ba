"""One car: its measures, its paint, its parts, built once and photographed sixteen times."""

from dataclasses import dataclass

import numpy as np

from competition.studio.body import Cabin, Hull, Shape, normals_of, shape_of
from competition.studio.camera import Floats
from competition.studio.paint import Paint, paint_of
from competition.studio.parts import Parts, parts_of
from competition.studio.wheels import Rim, rim_of


@dataclass(frozen=True)
class Car:
    """A car ready to be photographed.

    Attributes:
        hull_skin, cabin_skin: grids (levels, around, 3) of points in metres, in the car's axes.
        hull_normals, cabin_normals: their unit normals.
        wheels: centres (4, 3) of the wheels' outer faces.
    """

    shape: Shape
    paint: Paint
    rim: Rim
    hull: Hull
    cabin: Cabin
    parts: Parts
    hull_skin: Floats
    hull_normals: Floats
    cabin_skin: Floats
    cabin_normals: Floats
    wheels: Floats
    wheel_angles: tuple[float, ...]


def build(kind: str, rng: np.random.Generator, detail: float = 1.0) -> Car:
    """A car of that kind; `detail` scales the number of facets."""
    shape = shape_of(kind, rng)
    paint = paint_of(rng)
    hull = Hull(shape)
    cabin = Cabin(hull)
    hull_skin = hull.grid(max(48, round(330 * detail)), max(12, round(56 * detail)), max(4, round(10 * detail)))
    cabin_skin = cabin.grid(max(40, round(150 * detail)), max(6, round(16 * detail)), max(4, round(10 * detail)))
    reach = shape.width / 2 * 0.975 - 0.03
    wheels = np.array(
        [(axle, side * reach, shape.wheel) for axle in (hull.front_axle, hull.back_axle) for side in (1, -1)],
        np.float32,
    )
    return Car(
        shape=shape,
        paint=paint,
        rim=rim_of(rng),
        hull=hull,
        cabin=cabin,
        parts=parts_of(hull, cabin, paint, rng),
        hull_skin=hull_skin,
        hull_normals=normals_of(hull_skin),
        cabin_skin=cabin_skin,
        cabin_normals=normals_of(cabin_skin),
        wheels=wheels,
        wheel_angles=tuple(float(angle) for angle in rng.uniform(0, 2 * np.pi, 4)),
    )
