"""The shape of a car: a hull up to the belt line and a cabin on top of it.

Both are stacks of horizontal rings with a lid. A ring is a superellipse. `psi` is the angle around the ring
(0 is the front, pi/2 the left side, pi the back); `t` is the height (0 is the lowest ring, 1 the highest).
All lengths are metres in the car's axes (see `camera`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from competition.studio.camera import Floats

KINDS = ("sedan", "hatchback", "suv", "pickup", "van")


@dataclass(frozen=True)
class Shape:
    """The dimensions of a car; `cowl` to `back_base` are fractions of the length, from the nose."""

    kind: str
    length: float
    width: float
    height: float
    clearance: float
    wheelbase: float
    overhang: float  # from the nose to the front axle
    wheel: float  # radius with tyre
    nose: float  # height of the bonnet's edge
    bonnet: float  # height of the bonnet at the windscreen
    belt: float
    deck: float  # height at the back end of the cabin
    tail: float
    cowl: float
    screen_top: float
    roof_end: float
    back_base: float
    roof_width: float  # as a fraction of the cabin's width at the belt
    plan: float  # exponent of the hull's ring; larger is squarer
    rake: float  # 1 for a sloped nose, 0 for an upright one


_SHAPES: dict[str, Shape] = {
    "sedan": Shape(
        "sedan", 4.95, 1.85, 1.46, 0.17, 2.87, 0.96, 0.345, 0.72, 0.95, 0.95, 1.03, 1.01,
        0.275, 0.435, 0.69, 0.88, 0.76, 5.4, 1.0,
    ),
    "hatchback": Shape(
        "hatchback", 4.16, 1.75, 1.49, 0.17, 2.54, 0.83, 0.315, 0.75, 0.96, 0.96, 1.03, 0.98,
        0.265, 0.44, 0.87, 0.975, 0.78, 5.2, 1.0,
    ),
    "suv": Shape(
        "suv", 4.85, 1.90, 1.74, 0.24, 2.85, 0.92, 0.38, 0.92, 1.10, 1.11, 1.16, 1.08,
        0.275, 0.42, 0.88, 0.98, 0.79, 5.8, 0.65,
    ),
    "pickup": Shape(
        "pickup", 5.90, 1.98, 1.88, 0.30, 3.68, 0.98, 0.41, 1.08, 1.22, 1.24, 1.29, 1.29,
        0.255, 0.355, 0.585, 0.605, 0.80, 8.0, 0.35,
    ),
    "van": Shape(
        "van", 5.16, 1.99, 1.77, 0.19, 3.04, 0.97, 0.355, 0.82, 1.06, 1.05, 1.09, 1.00,
        0.215, 0.385, 0.925, 0.985, 0.81, 5.8, 0.9,
    ),
}  # fmt: skip


def shape_of(kind: str, rng: np.random.Generator) -> Shape:
    """Dimensions of a car of this kind, with random variation."""
    base = _SHAPES[kind]
    longer = float(rng.uniform(0.95, 1.06))
    taller = float(rng.uniform(0.97, 1.05))

    def near(value: float, by: float) -> float:
        return value + float(rng.uniform(-by, by))

    return Shape(
        kind=kind,
        length=base.length * longer,
        width=near(base.width, 0.04),
        height=base.height * taller,
        clearance=near(base.clearance, 0.02),
        wheelbase=base.wheelbase * longer,
        overhang=near(base.overhang, 0.04) * longer,
        wheel=near(base.wheel, 0.02),
        nose=near(base.nose, 0.03) * taller,
        bonnet=near(base.bonnet, 0.02) * taller,
        belt=near(base.belt, 0.02) * taller,
        deck=near(base.deck, 0.02) * taller,
        tail=near(base.tail, 0.03) * taller,
        cowl=near(base.cowl, 0.012),
        screen_top=near(base.screen_top, 0.012),
        roof_end=near(base.roof_end, 0.018),
        back_base=base.back_base,
        roof_width=near(base.roof_width, 0.02),
        plan=near(base.plan, 0.4),
        rake=base.rake,
    )


def _rounded(knots: Sequence[tuple[float, float]], radius: float) -> tuple[Floats, Floats]:
    """A polyline of (position, value), smoothed by a Gaussian of `radius` metres, as a table for np.interp."""
    position, value = np.array(sorted(knots)).T
    step = 0.01
    table = np.arange(position[0] - 3 * radius, position[-1] + 3 * radius, step)
    kernel = np.exp(-0.5 * (np.arange(-3 * radius, 3 * radius + step / 2, step) / radius) ** 2)
    padded = np.pad(np.interp(table, position, value), len(kernel) // 2, mode="edge")
    smooth = np.convolve(padded, kernel / kernel.sum(), mode="same")[len(kernel) // 2 :][: len(table)]
    return table.astype(np.float32), smooth.astype(np.float32)


class Loft(ABC):
    """A stack of rings with a lid.

    In units of its own half length and half width, a ring is |a| ** along + |b| ** across = 1:
    a is 1 at the front and -1 at the back, b is 1 at the left and -1 at the right. `psi` is the angle of (a, b).
    """

    crown: float  # how much the middle of the lid is higher than its edge

    def __init__(self, along: float, across: float) -> None:
        self._exponents = along, across
        angle = np.linspace(0, np.pi / 2, 2001)
        a, b = np.cos(angle) ** (2 / along), np.sin(angle) ** (2 / across)
        self._table = np.arctan2(b, a), a, b

    @abstractmethod
    def ends(self, t: Floats) -> tuple[Floats, Floats]:
        """The x of the front and of the back at height `t`."""

    @abstractmethod
    def _place(self, a: Floats, b: Floats, t: Floats) -> Floats:
        """Points (..., 3) of the surface."""

    def at(self, psi: Floats, t: Floats) -> Floats:
        """Points (..., 3) of the surface at angle `psi` and height `t`."""
        return self._place(*self._unit(psi), t)

    def lid(self, x: Floats, across: Floats) -> Floats:
        """Points (..., 3) of the lid at x, with `across` from -1 (right edge) to 1 (left edge)."""
        a = np.clip(self._along(x, np.ones_like(x)), -1, 1)
        return self._lid(a, self._width(a), across)

    def grid(self, around: int, levels: int, lids: int) -> Floats:
        """The surface as a grid of points (levels + lids, around, 3): rings upwards, then inwards over the lid."""
        a, b = self._unit(self.angles(around))
        skin = self._place(a[None], b[None], np.linspace(0, 1, levels, dtype=np.float32)[:, None])
        lid = self._lid(a[None], b[None], np.linspace(1, 0, lids + 1, dtype=np.float32)[1:, None])
        return np.concatenate([skin, lid]).astype(np.float32)

    def psi_along(self, a: float) -> float:
        """The angle `psi` on the left side where the ring is at `a` of its half length."""
        return float(np.arctan2(self._width(np.array(a)), a))

    def psi_across(self, b: float) -> float:
        """The angle `psi` at the front where the ring is at `b` of its half width."""
        along, across = self._exponents
        return float(np.arctan2(b, (1 - b**across) ** (1 / along)))

    def angles(self, count: int) -> Floats:
        """`count` values of `psi` around the closed ring, closer together at the corners."""
        fine = np.linspace(0, 2 * np.pi, 4001, dtype=np.float32)
        a, b = self._unit(fine)
        steps = np.hypot(np.diff(a) * 2.2, np.diff(b)) + 0.5 * np.abs(np.diff(np.arctan2(b, a)))
        distance = np.concatenate([[0], np.cumsum(steps)])
        return np.interp(np.linspace(0, distance[-1], count), distance, fine).astype(np.float32)

    def _unit(self, psi: Floats) -> tuple[Floats, Floats]:
        """(a, b) at angle `psi`."""
        cos, sin = np.cos(psi), np.sin(psi)
        quarter = np.arctan2(np.abs(sin), np.abs(cos))
        psis, a, b = self._table
        return np.sign(cos) * np.interp(quarter, psis, a), np.sign(sin) * np.interp(quarter, psis, b)

    def _along(self, x: Floats, t: Floats) -> Floats:
        """The a of a point at x and height `t`."""
        front, back = self.ends(t)
        return np.asarray((2 * x - front - back) / (front - back), np.float32)

    def _width(self, a: Floats) -> Floats:
        """|b| of the ring at `a`."""
        along, across = self._exponents
        return np.asarray((1 - np.minimum(np.abs(a), 1) ** along) ** (1 / across))

    def _lid(self, a: Floats, b: Floats, across: Floats) -> Floats:
        edge = self._place(a, b, np.ones_like(a))
        rise = self.crown * (1 - a**4) * (1 - across**2)
        points = np.broadcast_arrays(edge[..., 0], across * edge[..., 1], edge[..., 2] + rise)
        return np.stack(points, axis=-1).astype(np.float32)


class Hull(Loft):
    """The body from the sills to the belt line; its lid is the bonnet and the boot lid or load bed."""

    crown = 0.055
    # Half the width by height: narrower at the sill and below the windows, with a crease low on the doors.
    _WIDTHS = ((0.0, 0.945), (0.05, 0.965), (0.21, 0.992), (0.25, 0.988), (0.42, 0.978), (0.72, 1.0), (0.76, 0.986),
               (0.94, 0.954), (1.0, 0.905))  # fmt: skip
    # Distance of nose and tail behind the bumper in metres, by height.
    _NOSE = ((0.0, 0.16), (0.10, 0.05), (0.25, 0.0), (0.45, 0.015), (0.65, 0.05), (0.85, 0.12), (1.0, 0.26))
    _TAIL = ((0.0, 0.14), (0.10, 0.05), (0.28, 0.0), (0.48, 0.01), (0.56, 0.045), (0.85, 0.06), (1.0, 0.10))

    def __init__(self, shape: Shape) -> None:
        super().__init__(2.4 * shape.plan, shape.plan)
        self.shape = shape
        half = shape.length / 2
        self.front_axle = half - shape.overhang
        self.back_axle = self.front_axle - shape.wheelbase
        self.cowl = half - shape.cowl * shape.length
        self.back_base = half - shape.back_base * shape.length
        bonnet_rise = shape.nose + 0.55 * (shape.bonnet - shape.nose)
        top = [(half, shape.nose - 0.04), (half - 0.22, shape.nose), (half - 0.5, bonnet_rise),
               (self.cowl, shape.bonnet), (0.0, shape.belt), (self.back_base, shape.deck),
               (-half + 0.05, shape.tail)]  # fmt: skip
        self._top = _rounded(top, 0.10)
        self._taper = _rounded([(half, 0.95), (half - 0.8, 1.0), (-half + 0.9, 1.0), (-half, 0.95)], 0.2)
        self._nose, self._tail = np.array(self._NOSE).T, np.array(self._TAIL).T
        self._sides = _rounded(self._WIDTHS, 0.012)

    def top(self, x: Floats | float) -> Floats:
        """The height at x of the edge of bonnet, belt and boot."""
        return np.asarray(np.interp(x, *self._top), np.float32)

    def taper(self, x: Floats) -> Floats:
        """The width at x, as a fraction of the car's."""
        return np.interp(x, *self._taper).astype(np.float32)

    def height(self, x: Floats | float, z: Floats | float) -> Floats:
        """The `t` of a point at x and z."""
        low = self.shape.clearance
        return np.asarray(np.clip((z - low) / (self.top(x) - low), 0, 1), np.float32)

    def ends(self, t: Floats) -> tuple[Floats, Floats]:
        """The x of the front and of the back at height `t`."""
        half, rake = self.shape.length / 2, self.shape.rake
        nose = half - np.interp(t, *self._nose) * (0.35 + 0.65 * rake)
        tail = -half + np.interp(t, *self._tail) * (0.4 + 0.6 * rake)
        return nose.astype(np.float32), tail.astype(np.float32)

    def side(self, x: Floats, z: Floats, left: int = 1) -> Floats:
        """Points (..., 3) of the left (1) or right (-1) side at x and z."""
        t = self.height(x, z)
        a = np.clip(self._along(x, t), -0.999, 0.999)
        points = self._place(a, left * self._width(a), t)
        points[..., 2] = z
        return points

    def _place(self, a: Floats, b: Floats, t: Floats) -> Floats:
        nose, tail = self.ends(t)
        x = (nose + tail) / 2 + a * (nose - tail) / 2
        # From above, nose and tail are curved: the corners are further back than the middle.
        x = x - np.where(a > 0, 0.20, -0.10) * self.shape.rake**0.5 * a**8 * b**2
        y = b * self.shape.width / 2 * np.interp(t, *self._sides) * self.taper(x)
        z = self.shape.clearance + t * (self.top(x) - self.shape.clearance)
        return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)


class Cabin(Loft):
    """Windscreen, side windows, back window and roof, from the belt line up; its lid is the roof."""

    crown = 0.05

    def __init__(self, hull: Hull) -> None:
        shape = hull.shape
        plan = {"sedan": 4.2, "hatchback": 4.6}.get(shape.kind, 6.5)
        super().__init__(1.5 * plan, plan)
        self.hull = hull
        self.shape = shape
        half = shape.length / 2
        self._bulge = {"sedan": 0.09, "hatchback": 0.06, "pickup": 0.0}.get(shape.kind, 0.04)
        self.screen_top = half - shape.screen_top * shape.length
        self.roof_end = half - shape.roof_end * shape.length
        middle, reach = (self.screen_top + self.roof_end) / 2, (self.screen_top - self.roof_end) / 2
        sag = 0.055 if shape.kind in ("sedan", "hatchback") else 0.035
        drops = ((1.3, 2.2), (1.0, 1.0), (0.45, 0.0), (-0.3, 0.0), (-1.0, 1.3), (-1.4, 2.6))
        edge = shape.height - 0.045
        self._roof = _rounded([(middle + way * reach, edge - drop * sag) for way, drop in drops], 0.12)

    def ends(self, t: Floats) -> tuple[Floats, Floats]:
        """The x of the windscreen and of the back window at height `t`."""
        bow = np.sin(np.pi * np.clip(t, 0, 1))
        front = self.hull.cowl + t * (self.screen_top - self.hull.cowl) + 0.05 * bow
        back = self.hull.back_base + t * (self.roof_end - self.hull.back_base) - self._bulge * bow
        return front.astype(np.float32), back.astype(np.float32)

    def psi_at(self, x: float, t: float) -> float:
        """The angle `psi` on the left side at x and height `t`."""
        a = float(self._along(np.array([x]), np.array([t]))[0])
        return self.psi_along(min(1.0, max(-1.0, a)))

    def _place(self, a: Floats, b: Floats, t: Floats) -> Floats:
        front, back = self.ends(t)
        x = (front + back) / 2 + a * (front - back) / 2
        lean = 1 + (self.shape.roof_width - 1) * (0.75 * t + 0.25 * t**3)
        y = b * 0.441 * self.shape.width * lean * self.hull.taper(x)
        foot = self.hull.top(x) - 0.012
        z = foot + t * (np.interp(x, *self._roof) - foot)
        return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)


def normals_of(grid: Floats) -> Floats:
    """Outward unit normals (levels, around, 3) of a grid whose first and last columns are the same points."""
    wrapped = np.concatenate([grid[:, -2:-1], grid, grid[:, 1:2]], axis=1)
    around = wrapped[:, 2:] - wrapped[:, :-2]
    up = np.gradient(grid, axis=0)
    normal = np.cross(around, up)
    size = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.asarray(normal / np.maximum(size, 1e-9), np.float32)


def facets_of(grid: Floats) -> Floats:
    """The four corners of each cell of a grid (levels, around, k): ((levels - 1) * (around - 1), 4, k)."""
    corners = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], axis=2)
    return corners.reshape(-1, 4, grid.shape[-1])
