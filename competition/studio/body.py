"""A car's body: a hull up to the belt line, a cabin on it, and the numbers that make a kind of car.

Both are lofts of horizontal rings. A ring is a superellipse in plan: `psi` runs around it (0 the front, pi/2
the left side, pi the back), `t` runs up (0 the lowest ring, 1 the highest), and a lid closes the top.
"""

from dataclasses import dataclass

import numpy as np

from competition.studio.camera import Floats

KINDS = ("sedan", "hatchback", "suv", "pickup", "van")


@dataclass(frozen=True)
class Shape:
    """The measures of a car in metres; the cabin's corners are fractions of the length from the nose."""

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
    roof_width: float  # of the cabin's width at the belt
    plan: float  # exponent of the hull's ring: larger is squarer
    blunt: float  # 1 for a raked nose, less for an upright one


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
    """A car of that kind, a little longer, wider, lower than its sisters."""
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
        blunt=base.blunt,
    )


def _soft(knots: list[tuple[float, float]], reach: float) -> tuple[Floats, Floats]:
    """A polyline of (position, value) rounded over `reach` metres, as a table for np.interp."""
    position, value = np.array(sorted(knots)).T
    step = 0.01
    table = np.arange(position[0] - 3 * reach, position[-1] + 3 * reach, step)
    raw = np.interp(table, position, value)
    offsets = np.arange(-3 * reach, 3 * reach + step / 2, step)
    kernel = np.exp(-0.5 * (offsets / reach) ** 2)
    padded = np.pad(raw, len(kernel) // 2, mode="edge")
    smooth = np.convolve(padded, kernel / kernel.sum(), mode="same")[len(kernel) // 2 :][: len(table)]
    return table.astype(np.float32), smooth.astype(np.float32)


class Ring:
    """The plan of a loft: |a| ** along + |b| ** across = 1, where a is the length and b the width.

    The angle `psi` of a point is that of (a, b); it runs from the front by the left side.
    """

    def __init__(self, along: float, across: float) -> None:
        self.exponents = along, across
        way = np.linspace(0, np.pi / 2, 2001)
        a, b = np.cos(way) ** (2 / along), np.sin(way) ** (2 / across)
        self._table = np.arctan2(b, a), a, b

    def unit(self, psi: Floats) -> tuple[Floats, Floats]:
        """The angle `psi` to (a, b): a is 1 at the front and -1 at the back, b is 1 at the left."""
        cos, sin = np.cos(psi), np.sin(psi)
        first = np.arctan2(np.abs(sin), np.abs(cos))
        psis, a, b = self._table
        return np.sign(cos) * np.interp(first, psis, a), np.sign(sin) * np.interp(first, psis, b)

    def across(self, a: Floats) -> Floats:
        """|b| at a."""
        along, across = self.exponents
        return np.asarray((1 - np.minimum(np.abs(a), 1) ** along) ** (1 / across))

    def along(self, b: Floats) -> Floats:
        """|a| at b."""
        along, across = self.exponents
        return np.asarray((1 - np.minimum(np.abs(b), 1) ** across) ** (1 / along))

    def psi_at(self, a: float) -> float:
        """The angle on the left side at which the ring is at `a` of its length."""
        return float(np.arctan2(self.across(np.array(a)), a))

    def psi_across(self, b: float) -> float:
        """The angle at the front at which the ring is at `b` of its width."""
        return float(np.arctan2(b, self.along(np.array(b))))

    def angles(self, count: int) -> Floats:
        """`count` angles, closed, evenly spaced along the ring of a car rather than by angle."""
        fine = np.linspace(0, 2 * np.pi, 4001, dtype=np.float32)
        a, b = self.unit(fine)
        # Turning counts too: corners carry the reflections, flat sides need few facets.
        walk = np.hypot(np.diff(a) * 2.2, np.diff(b)) + 0.5 * np.abs(np.diff(np.arctan2(b, a)))
        way = np.concatenate([[0], np.cumsum(walk)])
        return np.interp(np.linspace(0, way[-1], count), way, fine).astype(np.float32)


class Hull(Ring):
    """The body from the sills to the belt line, with bonnet and boot lid (or load bed) as its lid."""

    # Half the width at each height: tucked in at the sill, a crease low on the doors, one below the windows.
    _HEIGHTS = (0.0, 0.05, 0.12, 0.21, 0.25, 0.42, 0.62, 0.72, 0.76, 0.86, 0.94, 0.98, 1.0)
    _WIDTHS = (0.945, 0.965, 0.972, 0.992, 0.988, 0.978, 0.990, 1.0, 0.986, 0.972, 0.954, 0.932, 0.905)
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
        self._top = _soft(
            [
                (half, shape.nose - 0.04),
                (half - 0.22, shape.nose),
                (half - 0.5, bonnet_rise),
                (self.cowl, shape.bonnet),
                (0.0, shape.belt),
                (self.back_base, shape.deck),
                (-half + 0.05, shape.tail),
            ],
            0.10,
        )
        self._low = _soft(
            [
                (half, shape.clearance + 0.03),
                (self.front_axle, shape.clearance),
                (self.back_axle, shape.clearance),
                (-half, shape.clearance + 0.06),
            ],
            0.2,
        )
        self._taper = _soft([(half, 0.95), (half - 0.8, 1.0), (-half + 0.9, 1.0), (-half, 0.95)], 0.2)
        self._nose, self._tail = np.array(self._NOSE).T, np.array(self._TAIL).T
        self._width = _soft(list(zip(self._HEIGHTS, self._WIDTHS, strict=True)), 0.012)

    def top(self, x: Floats) -> Floats:
        """The height of the bonnet's, belt's and boot's edge at x."""
        return np.interp(x, *self._top).astype(np.float32)

    def low(self, x: Floats) -> Floats:
        """The height of the body's lower edge at x."""
        return np.interp(x, *self._low).astype(np.float32)

    def _ends(self, t: Floats) -> tuple[Floats, Floats]:
        half, blunt = self.shape.length / 2, self.shape.blunt
        nose = half - np.interp(t, *self._nose) * (0.35 + 0.65 * blunt)
        tail = -half + np.interp(t, *self._tail) * (0.4 + 0.6 * blunt)
        return nose.astype(np.float32), tail.astype(np.float32)

    def _flare(self, x: Floats, z: Floats) -> Floats:
        reach = self.shape.wheel * 1.12
        out = np.zeros_like(x)
        for axle in (self.front_axle, self.back_axle):
            away = np.hypot(x - axle, z - self.shape.wheel) - reach
            out = out + 0.032 * np.exp(-np.square(np.maximum(away, 0) / 0.055))
        return np.asarray(out, np.float32)

    def _place(self, a: Floats, b: Floats, t: Floats) -> Floats:
        nose, tail = self._ends(t)
        x = (nose + tail) / 2 + a * (nose - tail) / 2
        # Seen from above, nose and tail are bows rather than straight: corners lie further back.
        x = x - np.where(a > 0, 0.20, -0.10) * self.shape.blunt**0.5 * a**8 * b**2
        z = self.low(x) + t * (self.top(x) - self.low(x))
        y = b * self.shape.width / 2 * np.interp(t, *self._width) * np.interp(x, *self._taper)
        y = y + b**3 * self._flare(x, z)
        return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)

    def at(self, psi: Floats, t: Floats) -> Floats:
        """Points (..., 3) of the skin at ring angle `psi` and height fraction `t`."""
        return self._place(*self.unit(psi), t)

    def side(self, x: Floats, z: Floats, left: int = 1) -> Floats:
        """Points (..., 3) of the left (1) or right (-1) skin at x and z."""
        low = self.low(x)
        t = np.clip((z - low) / (self.top(x) - low), 0, 1).astype(np.float32)
        nose, tail = self._ends(t)
        a = np.clip((2 * x - nose - tail) / (nose - tail), -0.999, 0.999).astype(np.float32)
        points = self._place(a, left * self.across(a), t)
        points[..., 2] = z
        return points

    def end(self, y: Floats, z: Floats, front: int = 1) -> Floats:
        """Points (..., 3) of the front (1) or back (-1) skin at y and z."""
        x = np.full_like(y, front * self.shape.length / 2)
        t = y
        for _ in range(4):
            low = self.low(x)
            t = np.clip((z - low) / (self.top(x) - low), 0, 1).astype(np.float32)
            wide = self.shape.width / 2 * np.interp(t, *self._width) * np.interp(x, *self._taper)
            b = np.clip(y / wide, -1, 1).astype(np.float32)
            x = self._place(front * self.along(b), b, t)[..., 0]
        return np.stack([x, y, z], axis=-1).astype(np.float32)

    def lid(self, x: Floats, across: Floats) -> Floats:
        """Points (..., 3) of bonnet, boot or bed at x, `across` from -1 (right edge) to 1 (left edge)."""
        one = np.ones_like(x)
        nose, tail = self._ends(one)
        a = np.clip((2 * x - nose - tail) / (nose - tail), -1, 1).astype(np.float32)
        edge = self._place(a, self.across(a), one)
        crown = 0.055 * (1 - a**4) * (1 - across**2)
        return np.stack([edge[..., 0], across * edge[..., 1], edge[..., 2] + crown], axis=-1).astype(np.float32)

    def grid(self, around: int, levels: int, lids: int) -> Floats:
        """The skin as a grid of points (levels + lids, around, 3), rings from the sill up and in."""
        psi = self.angles(around)
        t = np.linspace(0, 1, levels, dtype=np.float32)[:, None]
        skin = self.at(psi[None], t)
        across = np.linspace(1, 0, lids + 1, dtype=np.float32)[1:, None]
        a, b = self.unit(psi)
        rim = self._place(a, b, np.ones_like(a))
        crown = 0.055 * (1 - a**4) * (1 - across**2)
        lid = np.stack([np.broadcast_to(rim[:, 0], crown.shape), across * rim[:, 1], rim[:, 2] + crown], axis=-1)
        return np.concatenate([skin, lid]).astype(np.float32)


class Cabin(Ring):
    """The greenhouse: windscreen, side windows, back window and roof, from the belt line up."""

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
        edge = shape.height - 0.045
        self._roof = _soft(
            [
                (middle + 1.3 * reach, edge - 2.2 * sag),
                (middle + reach, edge - sag),
                (middle + 0.45 * reach, edge),
                (middle - 0.3 * reach, edge),
                (middle - reach, edge - 1.3 * sag),
                (middle - 1.4 * reach, edge - 2.6 * sag),
            ],
            0.12,
        )

    def ends(self, t: Floats) -> tuple[Floats, Floats]:
        """The front and back x of the ring at height fraction `t`."""
        bow = np.sin(np.pi * np.clip(t, 0, 1))
        front = self.hull.cowl + t * (self.screen_top - self.hull.cowl) + 0.05 * bow
        back = self.hull.back_base + t * (self.roof_end - self.hull.back_base) - self._bulge * bow
        return front.astype(np.float32), back.astype(np.float32)

    def _place(self, a: Floats, b: Floats, t: Floats) -> Floats:
        front, back = self.ends(t)
        x = (front + back) / 2 + a * (front - back) / 2
        wide = self.shape.width / 2 * 0.882
        lean = 1 + (self.shape.roof_width - 1) * (0.75 * t + 0.25 * t**3)
        y = b * wide * lean * np.interp(x, *self.hull._taper)
        foot = self.hull.top(x) - 0.012
        roof = np.interp(x, *self._roof)
        z = foot + t * (roof - foot)
        return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)

    def at(self, psi: Floats, t: Floats) -> Floats:
        """Points (..., 3) at ring angle `psi` and height fraction `t`."""
        return self._place(*self.unit(psi), t)

    def end(self, b: Floats, t: Floats, front: int = 1) -> Floats:
        """Points (..., 3) of the windscreen (1) or back window (-1), `b` from -1 to 1 across."""
        return self._place(front * self.along(b), b, t)

    def lid(self, x: Floats, across: Floats) -> Floats:
        """Points (..., 3) of the roof at x, `across` from -1 to 1."""
        one = np.ones_like(x)
        front, back = self.ends(one)
        a = np.clip((2 * x - front - back) / (front - back), -1, 1).astype(np.float32)
        edge = self._place(a, self.across(a), one)
        crown = 0.05 * (1 - np.abs(a) ** 3) * (1 - across**2)
        return np.stack([edge[..., 0], across * edge[..., 1], edge[..., 2] + crown], axis=-1).astype(np.float32)

    def grid(self, around: int, levels: int, lids: int) -> Floats:
        """The skin as a grid of points (levels + lids, around, 3), rings from the belt up and in."""
        psi = self.angles(around)
        t = np.linspace(0, 1, levels, dtype=np.float32)[:, None]
        skin = self.at(psi[None], t)
        across = np.linspace(1, 0, lids + 1, dtype=np.float32)[1:, None]
        a, b = self.unit(psi)
        rim = self._place(a, b, np.ones_like(a))
        crown = 0.05 * (1 - np.abs(a) ** 3) * (1 - across**2)
        lid = np.stack([np.broadcast_to(rim[:, 0], crown.shape), across * rim[:, 1], rim[:, 2] + crown], axis=-1)
        return np.concatenate([skin, lid]).astype(np.float32)


def normals_of(grid: Floats) -> Floats:
    """Unit normals (levels, around, 3), pointing out, of a closed grid whose first and last column meet."""
    wrapped = np.concatenate([grid[:, -2:-1], grid, grid[:, 1:2]], axis=1)
    around = wrapped[:, 2:] - wrapped[:, :-2]
    up = np.gradient(grid, axis=0)
    normal = np.cross(around, up)
    size = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.asarray(normal / np.maximum(size, 1e-9), np.float32)


def facets_of(grid: Floats) -> Floats:
    """A grid of values (levels, around, k) as its quadrilaterals' corners ((levels - 1) * (around - 1), 4, k)."""
    corners = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], axis=2)
    return corners.reshape(-1, 4, grid.shape[-1])
