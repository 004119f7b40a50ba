"""What is fixed to a body: lamps, grille, number plates, windows, joints, mirrors, roof rails, antenna."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from competition.studio.body import Cabin, Hull, Loft, facets_of
from competition.studio.camera import Floats
from competition.studio.paint import Paint, display

Colour = tuple[float, float, float]  # sRGB, 0..255
Span = tuple[float, float]

BLACK: Colour = (17, 17, 18)
TRIM: Colour = (34, 34, 36)
CHROME: Colour = (205, 207, 210)
AMBER: Colour = (208, 122, 58)
LAMP: Colour = (196, 199, 203)
RED: Colour = (172, 16, 26)
PLATE: Colour = (238, 240, 242)

SIDES = (1, -1)
_SCREEN = np.pi / 4 - 0.055  # psi on the cabin where the windscreen ends
_FLANK = np.pi / 4 + 0.045  # psi where the side windows begin


@dataclass(frozen=True)
class Patch:
    """A piece of a surface: quadrilaterals (n, 4, 3) in one colour."""

    quads: Floats
    colour: Colour


@dataclass(frozen=True)
class Line:
    """A thin part: points (n, 3), its width in metres and the direction that the surface under it faces."""

    points: Floats
    colour: Colour
    width: float
    faces: tuple[float, float, float] = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Pane:
    """A window: outline (n, 3), the direction that it `faces`, and its tint from 0 (clear) to 1 (opaque)."""

    outline: Floats
    faces: tuple[float, float, float]
    tint: float


@dataclass(frozen=True)
class Parts:
    """The parts of one car; those of a list are drawn in its order."""

    hull: list[Patch | Line]
    cabin: list[Patch | Line]
    panes: list[Pane]
    rails: list[Line]
    antenna: list[Line]
    mirrors: list[tuple[Floats, int]]  # surface (levels, around, 3), side


def parts_of(hull: Hull, cabin: Cabin, paint: Paint, rng: np.random.Generator) -> Parts:
    """Draw the parts of a car at random."""
    return Parts(
        hull=[
            *_cladding(hull, rng),
            *_joints(hull, cabin, paint),
            *_front(hull, rng),
            *_back(hull, rng),
            *_load_bed(hull),
        ],
        cabin=_window_frames(cabin),
        panes=_panes(cabin, rng),
        rails=_roof_rails(cabin, rng),
        antenna=_antenna(hull, cabin, rng),
        mirrors=_mirrors(hull),
    )


def _patch(surface: Loft, psi: Span, t: Span, colour: Colour) -> Patch:
    """The piece of `surface` between two angles and two heights; angles ascend."""
    around = np.linspace(*psi, 4 + int((psi[1] - psi[0]) / 0.05), dtype=np.float32)
    grid = surface.at(around[None], np.linspace(*t, 3, dtype=np.float32)[:, None])
    return Patch(facets_of(grid), colour)


def _pair(surface: Loft, psi: Span, t: Span, colour: Colour) -> list[Patch | Line]:
    """A patch on the left side and its mirror image on the right."""
    return [_patch(surface, psi, t, colour), _patch(surface, (-psi[1], -psi[0]), t, colour)]


def _inner(span: Span, first: float, last: float) -> Span:
    """Part of a span, from fraction `first` to fraction `last`."""
    low, high = span
    return low + first * (high - low), low + last * (high - low)


def _cladding(hull: Hull, rng: np.random.Generator) -> Iterator[Patch]:
    """The dark lower edge of the body."""
    high = 0.16 if hull.shape.kind == "suv" and rng.random() < 0.45 else 0.065
    yield _patch(hull, (0, 2 * np.pi), (0, high), TRIM)


def _joints(hull: Hull, cabin: Cabin, paint: Paint) -> Iterator[Line]:
    """The joints of the doors, and of a pick-up's load bed."""
    # Joints in black paint show as bright edges.
    tone = display(paint.linear * np.float32(0.16) + np.float32(0.004 if paint.linear.max() > 0.03 else 0.03))
    colour = (float(tone[0]), float(tone[1]), float(tone[2]))
    places = [(x, 0.006, colour) for x in (hull.cowl - 0.10, *_door_ends(cabin))]
    if hull.shape.kind == "pickup":
        places.append((hull.back_base - 0.03, 0.02, BLACK))
    for x, width, colour in places:
        z = np.linspace(hull.shape.clearance + 0.10, float(hull.top(x)), 8, dtype=np.float32)
        for side in SIDES:
            yield Line(hull.side(np.full_like(z, x), z, side), colour, width, (0.0, side, 0.0))


def _door_ends(cabin: Cabin) -> tuple[float, float]:
    """The x where the front door and the back door end."""
    shape, hull = cabin.shape, cabin.hull
    if shape.kind == "pickup":
        return hull.back_base + 0.95, hull.back_base + 0.06
    share = 0.52 if shape.kind in ("sedan", "hatchback") else 0.36
    pillar = cabin.screen_top - share * (cabin.screen_top - cabin.roof_end)
    return pillar, max(pillar - 0.95, hull.back_axle - 0.15)


def _front(hull: Hull, rng: np.random.Generator) -> Iterator[Patch | Line]:
    """Grille, lower intake, headlamps and number plate."""
    tall = hull.shape.kind in ("suv", "pickup")
    wide = float(rng.uniform(0.38, 0.55))
    low, high = (0.42, 0.86) if tall else (float(rng.uniform(0.40, 0.52)), 0.80)
    edge = hull.psi_across(wide)
    yield _patch(hull, (-1.06 * edge, 1.06 * edge), (low - 0.025, high + 0.025), CHROME)
    yield _patch(hull, (-edge, edge), (low, high), BLACK)
    bars = int(rng.integers(3, 7))
    for bar in range(1, bars):
        t = low + (high - low) * bar / bars
        yield _patch(hull, (-edge, edge), (t - 0.012, t + 0.012), CHROME)
    intake = hull.psi_across(0.62)
    yield _patch(hull, (-intake, intake), (0.09, 0.27), BLACK)
    psi = hull.psi_across(wide + 0.05), hull.psi_along(float(rng.uniform(0.79, 0.86)))
    lamp = (0.58, 0.86) if tall else (0.59, 0.84)
    yield from _pair(hull, psi, lamp, (40, 41, 44))
    yield from _pair(hull, _inner(psi, 0.05, 0.96), _inner(lamp, 0.15, 0.62), (122, 126, 132))
    yield from _pair(hull, _inner(psi, 0.05, 0.96), _inner(lamp, 0.62, 0.90), LAMP)
    yield from _pair(hull, _inner(psi, 0.85, 0.96), _inner(lamp, 0.15, 0.62), AMBER)
    yield from _plate(hull, 0.0, float(hull.height(hull.shape.length / 2, hull.shape.clearance + 0.21)))


def _back(hull: Hull, rng: np.random.Generator) -> Iterator[Patch | Line]:
    """Tail lamps, bumper and number plate."""
    kind = hull.shape.kind
    upright = kind in ("suv", "van", "pickup") or (kind == "hatchback" and rng.random() < 0.5)
    inner = {"sedan": 0.52, "hatchback": 0.66, "suv": 0.72, "van": 0.80, "pickup": 0.83}[kind]
    corner = {"sedan": 0.88, "hatchback": 0.90, "pickup": 0.955}.get(kind, 0.92)
    psi = np.pi - hull.psi_along(corner), np.pi - hull.psi_across(inner)
    t = (0.50, 0.90) if upright else (0.60, 0.84)
    yield from _pair(hull, psi, t, (96, 10, 16))
    yield from _pair(hull, _inner(psi, 0.05, 0.95), _inner(t, 0.05, 0.95), RED)
    yield from _pair(hull, _inner(psi, 0.05, 0.95), _inner(t, 0.42, 0.58), (222, 196, 196))
    half = hull.psi_along(0.93)
    yield _patch(hull, (np.pi - half, np.pi + half), (0.0, 0.15), TRIM)
    if kind == "pickup":
        yield _patch(hull, (np.pi - half, np.pi + half), (0.08, 0.30), (170, 173, 177))
    yield from _plate(hull, np.pi, 0.18 if kind == "pickup" else 0.62)


def _plate(hull: Hull, middle: float, t: float) -> Iterator[Patch]:
    """A number plate around the angle `middle` and the height `t`."""
    tall = 0.16 / (hull.shape.nose - hull.shape.clearance) / 2
    wide = hull.psi_across(0.315 / hull.shape.width)
    yield _patch(hull, (middle - 1.06 * wide, middle + 1.06 * wide), (t - 1.12 * tall, t + 1.12 * tall), (40, 41, 43))
    yield _patch(hull, (middle - wide, middle + wide), (t - tall, t + tall), PLATE)


def _load_bed(hull: Hull) -> Iterator[Patch]:
    """A pick-up's load bed from above: dark inside the rails."""
    if hull.shape.kind == "pickup":
        x = np.linspace(hull.back_base - 0.02, -hull.shape.length / 2 + 0.16, 10, dtype=np.float32)[None]
        across = np.linspace(0.9, -0.9, 5, dtype=np.float32)[:, None]
        yield Patch(facets_of(hull.lid(np.repeat(x, 5, axis=0), across)), (26, 26, 27))


def _back_pillar(kind: str) -> float:
    """The angle `psi` on the cabin where the side windows end."""
    return float(0.75 * np.pi - {"sedan": 0.23, "hatchback": 0.17, "suv": 0.075}.get(kind, 0.06))


def _window_frames(cabin: Cabin) -> list[Patch | Line]:
    """The black strip below the windscreen and the black band around the side windows."""
    strip = _patch(cabin, (-_SCREEN - 0.02, _SCREEN + 0.02), (0.0, 0.07), BLACK)
    return [strip, *_pair(cabin, (_FLANK - 0.012, _back_pillar(cabin.shape.kind)), (0.05, 0.90), BLACK)]


def _panes(cabin: Cabin, rng: np.random.Generator) -> list[Pane]:
    """Windscreen, back window and side windows."""
    kind = cabin.shape.kind
    dark = kind in ("suv", "van", "pickup") and rng.random() < 0.75
    rear_tint = 0.78 if dark else float(rng.uniform(0.2, 0.45))
    front_tint = float(rng.uniform(0.15, 0.35))
    screen, back = _SCREEN, _SCREEN - 0.06
    panes = [
        Pane(_outline(cabin, (-screen, screen), (-screen, screen), (0.06, 0.93)), (1.0, 0.0, 0.5), 0.8 * front_tint),
        Pane(
            _outline(cabin, (np.pi - back, np.pi + back), (np.pi - back, np.pi + back), (0.14, 0.90)),
            (-1.0, 0.0, 0.5),
            rear_tint,
        ),
    ]
    t = (0.07, 0.87)
    for number, (front, rear) in enumerate(pairwise(_pillars(cabin, t))):
        tint = front_tint if number == 0 else rear_tint
        for side in SIDES:
            low, high = (
                (side * (first + 0.012), side * (last - 0.012)) for first, last in zip(front, rear, strict=True)
            )
            panes.append(Pane(_outline(cabin, low, high, t), (0.0, side, 0.25), tint))
    return panes


def _pillars(cabin: Cabin, t: Span) -> list[Span]:
    """The `psi` of each pillar beside the side windows, from the front, at the heights `t`."""
    end = _back_pillar(cabin.shape.kind) - 0.015
    door, rear_door = (
        (min(max(cabin.psi_at(x, t[0]), _FLANK), end), min(max(cabin.psi_at(x, t[1]), _FLANK), end))
        for x in _door_ends(cabin)
    )
    pillars = [(_FLANK, _FLANK), door]
    if cabin.shape.kind != "pickup" and end - max(rear_door) > 0.12:
        pillars.append(rear_door)
    return [*pillars, (end, end - 0.02)]


def _outline(cabin: Cabin, low: Span, high: Span, t: Span) -> Floats:
    """The outline (n, 3) between the angles `low` at the height t[0] and the angles `high` at t[1]."""
    corners = np.array([(low[0], t[0]), (low[1], t[0]), (high[1], t[1]), (high[0], t[1]), (low[0], t[0])])
    fine = np.concatenate([np.linspace(first, last, 10, endpoint=False) for first, last in pairwise(corners)])
    return cabin.at(fine[:, 0].astype(np.float32), fine[:, 1].astype(np.float32))


def _mirrors(hull: Hull) -> list[tuple[Floats, int]]:
    size = 1.25 if hull.shape.kind in ("pickup", "suv", "van") else 1.0
    around = np.linspace(0, 2 * np.pi, 25, dtype=np.float32)[None]
    up = np.linspace(-np.pi / 2, np.pi / 2, 13, dtype=np.float32)[:, None]

    def rounded(value: Floats) -> Floats:
        return np.asarray(np.sign(value) * np.abs(value) ** 0.7, np.float32)

    x = 0.075 * np.where(np.cos(around) > 0, 1.1, 0.5) * rounded(np.cos(around)) * rounded(np.cos(up))
    y = 0.11 * rounded(np.sin(around)) * rounded(np.cos(up))
    z = 0.066 * rounded(np.sin(up)) * np.ones_like(around)
    foot = hull.cowl - 0.32
    ball = np.stack([x, y, z], axis=-1) * size
    left = ball + np.array([foot, hull.shape.width / 2 + 0.035, float(hull.top(foot)) + 0.055 * size])
    right = left[:, ::-1] * np.array([1, -1, 1])
    return [(left.astype(np.float32), 1), (right.astype(np.float32), -1)]


def _roof_rails(cabin: Cabin, rng: np.random.Generator) -> list[Line]:
    if cabin.shape.kind not in ("suv", "van") or rng.random() < 0.3:
        return []
    tone: Colour = (170, 172, 175) if rng.random() < 0.5 else TRIM
    x = np.linspace(cabin.screen_top - 0.25, cabin.roof_end + 0.12, 24, dtype=np.float32)
    lift = 0.045 * np.minimum(1, np.minimum(np.arange(24), np.arange(24)[::-1]) / 2.0)
    lines = []
    for side in SIDES:
        rail = cabin.lid(x, np.full_like(x, 0.93 * side))
        rail[:, 2] += lift
        lines.append(Line(rail, tone, 0.026))
        for post in (1, 12, 22):
            foot = rail[post] - np.array([0, 0, 0.06], np.float32)
            lines.append(Line(np.stack([foot, rail[post]]), tone, 0.03))
    return lines


def _antenna(hull: Hull, cabin: Cabin, rng: np.random.Generator) -> list[Line]:
    """A rod on the roof or on a pick-up's wing, a fin, or none."""
    style = rng.random()
    if hull.shape.kind == "pickup" and style < 0.6:
        foot = hull.lid(np.array([hull.cowl + 0.12], np.float32), np.array([-0.9], np.float32))[0]
        return [Line(np.stack([foot, foot + np.array([-0.12, 0.0, 0.72], np.float32)]), BLACK, 0.006)]
    foot = cabin.lid(np.array([cabin.roof_end + 0.14], np.float32), np.zeros(1, np.float32))[0]
    if style < 0.55:
        tip = foot + np.array([-0.22, 0.0, float(rng.uniform(0.18, 0.34))], np.float32)
        return [
            Line(np.stack([foot, 0.9 * foot + 0.1 * tip]), BLACK, 0.03),
            Line(np.stack([foot, tip]), BLACK, 0.0065),
        ]
    if style < 0.85:
        fin = np.array([[0.11, 0, 0], [0.02, 0, 0.022], [-0.05, 0, 0.06], [-0.075, 0, 0.0]], np.float32)
        return [Line(foot + fin, TRIM, 0.022)]
    return []
