"""What is fixed to a body: lamps, grille, windows, seams, handles, plates, mirrors, rails, antenna."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from competition.studio.body import Cabin, Hull, facets_of
from competition.studio.camera import Floats
from competition.studio.paint import Paint, display

Colour = tuple[float, float, float]

BLACK: Colour = (17, 17, 18)
TRIM: Colour = (34, 34, 36)
CHROME: Colour = (205, 207, 210)
AMBER: Colour = (208, 122, 58)
LAMP: Colour = (196, 199, 203)
RED: Colour = (172, 16, 26)
PLATE: Colour = (238, 240, 242)

SIDES = (1, -1)
_CORNER = np.pi / 4


@dataclass(frozen=True)
class Patch:
    """A coloured piece of skin: quadrilaterals (n, 4, 3) in metres with sRGB colours (n, 3), outline (m, 3)."""

    quads: Floats
    colours: Floats
    rim: Floats


@dataclass(frozen=True)
class Line:
    """A thin line: points (n, 3) and width in metres, sRGB colour, the way its piece of skin `faces`."""

    points: Floats
    colour: Colour
    width: float
    faces: tuple[float, float, float] = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Pane:
    """A window: outline (n, 3) in metres, side 1 left, -1 right, 0 front or back; `tint` 0 clear, 1 opaque."""

    outline: Floats
    side: int
    tint: float


@dataclass
class Parts:
    """All the parts of one car, in the order in which they are laid on."""

    hull: list[Patch | Line] = field(default_factory=list)
    cabin: list[Patch | Line] = field(default_factory=list)
    panes: list[Pane] = field(default_factory=list)
    glass: list[Patch | Line] = field(default_factory=list)
    under: list[Line] = field(default_factory=list)
    rails: list[Line] = field(default_factory=list)
    antenna: list[Line] = field(default_factory=list)
    mirrors: list[tuple[Floats, int]] = field(default_factory=list)


def parts_of(hull: Hull, cabin: Cabin, paint: Paint, rng: np.random.Generator) -> Parts:
    """Fit a body out."""
    parts = Parts()
    _cladding(parts, hull, rng)
    _seams(parts, hull, cabin, paint, rng)
    _face(parts, hull, paint, rng)
    _back(parts, hull, paint, rng)
    _handles(parts, hull, cabin, paint, rng)
    _plates(parts, hull)
    _windows(parts, cabin, rng)
    _wipers(parts, cabin)
    _sunroof(parts, cabin, rng)
    _bed(parts, hull)
    _exhaust(parts, hull, rng)
    _lettering(parts, hull, rng)
    _mirrors(parts, hull, cabin)
    _roof_rails(parts, cabin, rng)
    _step_bars(parts, hull, rng)
    _aerial(parts, hull, cabin, rng)
    return parts


def _mirrored(points: Floats, side: int) -> Floats:
    return np.asarray(points * np.array([1, side, 1], np.float32), np.float32)


def patch(
    surface: Hull | Cabin, corners: Sequence[tuple[float, float]], colour: Colour, steps: tuple[int, int] = (10, 2)
) -> Patch:
    """The piece of `surface` between four (psi, t): bottom first, bottom last, top last, top first."""
    (p0, t0), (p1, t1), (p2, t2), (p3, t3) = corners
    u = np.linspace(0, 1, steps[0] + 1, dtype=np.float32)[None]
    v = np.linspace(0, 1, steps[1] + 1, dtype=np.float32)[:, None]
    psi = (1 - v) * ((1 - u) * p0 + u * p1) + v * ((1 - u) * p3 + u * p2)
    t = (1 - v) * ((1 - u) * t0 + u * t1) + v * ((1 - u) * t3 + u * t2)
    grid = surface.at(psi.astype(np.float32), t.astype(np.float32))
    return _sheet_of(grid, colour)


def _sheet_of(grid: Floats, colour: Colour) -> Patch:
    """A patch over a grid (rows, columns, 3) whose rows go up when its columns go right."""
    rim = np.concatenate([grid[0], grid[1:, -1], grid[-1, -2::-1], grid[-2:0:-1, 0]])
    quads = facets_of(grid)
    return Patch(quads, np.repeat(np.array([colour], np.float32), len(quads), axis=0), rim)


def _disc(hull: Hull, psi: float, t: float, radius: float, colour: Colour) -> Patch:
    """A round patch, flat on the skin at (psi, t)."""
    step = 0.01
    at = hull.at(np.array([psi, psi + step, psi]), np.array([t, t, t + step]))
    right = (at[1] - at[0]) / np.linalg.norm(at[1] - at[0])
    out = np.cross(right, at[2] - at[0])
    out /= np.linalg.norm(out)
    up = np.cross(out, right)
    angle = np.linspace(0, 2 * np.pi, 21, dtype=np.float32)[:, None]
    rim = (at[0] + 0.006 * out + radius * (np.cos(angle) * right + np.sin(angle) * up)).astype(np.float32)
    grid = np.stack([rim, np.broadcast_to(at[0] + 0.006 * out, rim.shape)])
    quads = facets_of(grid)
    return Patch(quads, np.repeat(np.array([colour], np.float32), len(quads), axis=0), rim[:-1])


def _twin(of: Patch) -> Patch:
    """The mirror image of a patch, on the other side of the car."""
    return Patch(_mirrored(of.quads, -1)[:, ::-1], of.colours, _mirrored(of.rim, -1))


def _both(
    into: list[Patch | Line],
    surface: Hull | Cabin,
    corners: Sequence[tuple[float, float]],
    colour: Colour,
    steps: tuple[int, int] = (10, 2),
) -> None:
    """Lay a patch on the left and its mirror image on the right."""
    left = patch(surface, corners, colour, steps)
    into.extend([left, _twin(left)])


def _line(points: Floats, colour: Colour, width: float, faces: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Line:
    return Line(points.astype(np.float32), colour, width, faces)


def _side_lines(
    parts: Parts, hull: Hull, *, x: Sequence[float], z: Sequence[float], colour: Colour, width: float
) -> None:
    way = np.linspace(0, 1, 6 * len(x))
    knots = np.linspace(0, 1, len(x))
    fine_x = np.interp(way, knots, x).astype(np.float32)
    fine_z = np.interp(way, knots, z).astype(np.float32)
    for side in SIDES:
        parts.hull.append(_line(hull.side(fine_x, fine_z, side), colour, width, (0.0, side, 0.0)))


def _cladding(parts: Parts, hull: Hull, rng: np.random.Generator) -> None:
    """The dark lower edge all around; on many an SUV also around the wheel arches."""
    tough = hull.shape.kind == "suv" and rng.random() < 0.45
    high = 0.16 if tough else 0.065
    tone: Colour = (44, 44, 46) if tough else TRIM
    bottom = [(0.0, 0.0), (2 * np.pi, 0.0), (2 * np.pi, high), (0.0, high)]
    parts.hull.append(patch(hull, bottom, tone, (120, 2)))
    if tough:
        for axle in (hull.front_axle, hull.back_axle):
            _arch_trim(parts, hull, axle, tone)


def _arch_trim(parts: Parts, hull: Hull, axle: float, tone: Colour) -> None:
    angle = np.linspace(-0.25, np.pi + 0.25, 24, dtype=np.float32)
    wheel = hull.shape.wheel
    inner, outer = (
        hull.side(axle + reach * np.cos(angle), wheel + reach * np.sin(angle), 1)
        for reach in (wheel * 1.08, wheel * 1.30)
    )
    trim = _sheet_of(np.stack([inner, outer]), tone)
    parts.hull.extend([trim, _twin(trim)])


def _darker(paint: Paint, factor: float) -> Colour:
    """The paint's colour in less light; of black paint a grey, because joints show on it by their bright edge."""
    tone = display(paint.linear * np.float32(factor) + np.float32(0.004 if paint.linear.max() > 0.03 else 0.03))
    return float(tone[0]), float(tone[1]), float(tone[2])


def _seams(parts: Parts, hull: Hull, cabin: Cabin, paint: Paint, rng: np.random.Generator) -> None:
    """Joints of doors, bonnet, boot and bumpers, and the fuel door."""
    shape, dark = hull.shape, _darker(paint, 0.16)
    front = hull.cowl - 0.10
    pillar, rear = _door_lines(cabin)
    sill = hull.low(np.array([0.0], np.float32))[0] + 0.10
    for x, foot in ((front, front - 0.02), (pillar, pillar + 0.02), (rear, rear + 0.10)):
        if x > hull.back_axle - 0.3:
            top = float(hull.top(np.array([x], np.float32))[0])
            foot_x = max(foot, hull.back_axle + shape.wheel * 1.25)
            heights = [top, (top + sill) / 2 + 0.1, sill]
            _side_lines(parts, hull, x=[x, x, foot_x], z=heights, colour=dark, width=0.006)
    ends = [front - 0.02, hull.back_axle + shape.wheel * 1.25]
    _side_lines(parts, hull, x=ends, z=[sill, sill], colour=dark, width=0.006)
    along = np.linspace(hull.cowl, shape.length / 2 - 0.40, 12, dtype=np.float32)
    for side in SIDES:
        parts.hull.append(_line(hull.lid(along, np.full_like(along, 0.86 * side)), dark, 0.005))
    edge = np.linspace(-0.86, 0.86, 16, dtype=np.float32)
    parts.hull.append(_line(hull.lid(np.full_like(edge, shape.length / 2 - 0.40), edge), dark, 0.005))
    angle = np.linspace(0, 2 * np.pi, 25, dtype=np.float32)
    cap_x = hull.back_axle - 0.20 + 0.085 * np.cos(angle)
    cap_z = (shape.wheel * 2 + shape.deck) / 2 + 0.03 + 0.08 * np.sin(angle)
    left = 1 if rng.random() < 0.5 else -1
    points = hull.side(cap_x.astype(np.float32), cap_z.astype(np.float32), left)
    parts.hull.append(_line(points, dark, 0.005, (0.0, left, 0.0)))


def _door_lines(cabin: Cabin) -> tuple[float, float]:
    """The x of the joint between the doors and of the back door's end."""
    shape = cabin.shape
    if shape.kind == "pickup":
        return cabin.hull.back_base + 0.95, cabin.hull.back_base + 0.06
    pillar = cabin.screen_top - 0.52 * (cabin.screen_top - cabin.roof_end) / (
        1.0 if shape.kind in ("sedan", "hatchback") else 1.45
    )
    return pillar, max(pillar - 0.95, cabin.hull.back_axle - 0.15)


def _face(parts: Parts, hull: Hull, paint: Paint, rng: np.random.Generator) -> None:
    """Grille, lower intake, fog lamps and headlamps."""
    del paint
    tall = hull.shape.kind in ("suv", "pickup")
    wide = float(rng.uniform(0.38, 0.55))
    low, high = (0.42, 0.86) if tall else (float(rng.uniform(0.40, 0.52)), 0.80)
    inner = wide + 0.05
    _grille(parts, hull, rng, wide=wide, low=low, high=high)
    intake = hull.psi_across(0.62)
    lower = (0.09, 0.27)
    parts.hull.append(
        patch(hull, [(-intake, lower[0]), (intake, lower[0]), (intake * 0.92, lower[1]), (-intake * 0.92, lower[1])],
              BLACK, (16, 2))
    )  # fmt: skip
    fog_in, fog_out = hull.psi_across(0.70), hull.psi_across(0.86)
    _both(parts.hull, hull, [(fog_in, 0.13), (fog_out, 0.13), (fog_out, 0.27), (fog_in, 0.25)], BLACK, (5, 2))
    _both(parts.hull, hull, [(fog_in * 1.05, 0.16), (fog_out * 0.95, 0.16), (fog_out * 0.95, 0.24),
                             (fog_in * 1.05, 0.23)], LAMP, (4, 1))  # fmt: skip
    _headlamps(parts, hull, inner, rng)


def _grille(parts: Parts, hull: Hull, rng: np.random.Generator, *, wide: float, low: float, high: float) -> None:
    edge, foot = hull.psi_across(wide), hull.psi_across(wide * float(rng.uniform(0.75, 1.0)))
    rim = 1.06
    parts.hull.append(
        patch(hull, [(-foot * rim, low - 0.025), (foot * rim, low - 0.025), (edge * rim, high + 0.025),
                     (-edge * rim, high + 0.025)], CHROME, (14, 2))
    )  # fmt: skip
    parts.hull.append(patch(hull, [(-foot, low), (foot, low), (edge, high), (-edge, high)], BLACK, (14, 3)))
    bars = int(rng.integers(3, 7))
    tone = CHROME if rng.random() < 0.6 else (70.0, 70.0, 72.0)
    for bar in range(1, bars):
        t = low + (high - low) * bar / bars
        half = foot + (edge - foot) * bar / bars
        parts.hull.append(
            patch(hull, [(-half, t - 0.012), (half, t - 0.012), (half, t + 0.012), (-half, t + 0.012)], tone, (12, 1))
        )
    parts.hull.append(_disc(hull, 0.0, high - 0.3 * (high - low), 0.055, CHROME))
    parts.hull.append(_disc(hull, 0.0, high - 0.3 * (high - low), 0.042, (52, 66, 96)))


def _headlamps(parts: Parts, hull: Hull, inner: float, rng: np.random.Generator) -> None:
    tall = hull.shape.kind in ("suv", "pickup")
    low, high = (0.60, 0.90) if tall else (0.56, 0.84)
    start, corner = hull.psi_across(inner), hull.psi_at(float(rng.uniform(0.79, 0.86)))
    lift = -0.05 if tall else 0.03
    outline = [(start, low + 0.06), (corner, low + lift + 0.03), (corner, high + lift - 0.02), (start, high - 0.04)]
    _both(parts.hull, hull, outline, (40, 41, 44), (16, 3))

    def inside(u0: float, u1: float, v0: float, v1: float) -> list[tuple[float, float]]:
        def mix(u: float, v: float) -> tuple[float, float]:
            bottom = [outline[0][k] + u * (outline[1][k] - outline[0][k]) for k in (0, 1)]
            top = [outline[3][k] + u * (outline[2][k] - outline[3][k]) for k in (0, 1)]
            return bottom[0] + v * (top[0] - bottom[0]), bottom[1] + v * (top[1] - bottom[1])

        return [mix(u0, v0), mix(u1, v0), mix(u1, v1), mix(u0, v1)]

    _both(parts.hull, hull, inside(0.04, 0.97, 0.12, 0.92), (122, 126, 132), (14, 2))
    _both(parts.hull, hull, inside(0.10, 0.95, 0.70, 0.90), LAMP, (14, 1))
    _both(parts.hull, hull, inside(0.85, 0.95, 0.24, 0.66), AMBER, (4, 1))
    (psi_a, t_a), _, (psi_b, t_b), _ = inside(0.24, 0.42, 0.30, 0.55)
    size = 0.5 * (high - low) * (hull.shape.nose - hull.shape.clearance)
    for share, u in ((0.62, 0.0), (0.42, 1.5)):
        psi, t = psi_a + u * (psi_b - psi_a), t_a + u * 0.35 * (t_b - t_a) + 0.5 * (t_b - t_a)
        for radius, tone in (
            (1.0, (88, 92, 98)),
            (0.84, (44, 47, 52)),
            (0.55, (176, 182, 190)),
            (0.3, (244, 246, 248)),
        ):
            lens = _disc(hull, psi, t, share * size * radius, tone)
            parts.hull.extend([lens, _twin(lens)])


def _back(parts: Parts, hull: Hull, paint: Paint, rng: np.random.Generator) -> None:
    """Tail lamps, the boot's or tailgate's joints, the lower bumper."""
    kind = hull.shape.kind
    upright = kind in ("suv", "van", "pickup") or (kind == "hatchback" and rng.random() < 0.5)
    inner = {"sedan": 0.52, "hatchback": 0.66, "suv": 0.72, "van": 0.80, "pickup": 0.83}[kind]
    low, high = (0.50, 0.90) if upright else (0.60, 0.84)
    start = np.pi - hull.psi_across(inner)
    corner = np.pi - hull.psi_at({"sedan": 0.88, "hatchback": 0.90, "pickup": 0.955}.get(kind, 0.92))
    outline = [(start, low), (corner, low + 0.04), (corner, high - 0.03), (start, high)]
    middle_psi, middle_t = (start + corner) / 2, (low + high) / 2
    for share, tone in ((1.0, (96, 10, 16)), (0.92, RED)):
        inner_outline = [
            (middle_psi + share * (p - middle_psi), middle_t + share * (t - middle_t)) for p, t in outline
        ]
        _both(parts.hull, hull, list(reversed(inner_outline)), tone, (12, 3))
    middle = low + 0.45 * (high - low)
    stripe = [(start, middle), (corner, middle), (corner, middle + 0.06), (start, middle + 0.06)]
    _both(parts.hull, hull, list(reversed(stripe)), (222, 196, 196), (10, 1))
    glow = [(start, high - 0.13), (corner, high - 0.13), (corner, high - 0.06), (start, high - 0.04)]
    _both(parts.hull, hull, list(reversed(glow)), (214, 58, 62), (10, 1))
    _back_joints(parts, hull, inner, _darker(paint, 0.16))


def _back_joints(parts: Parts, hull: Hull, inner: float, dark: Colour) -> None:
    half = hull.shape.length / 2
    low, top = (float(f(np.array([-half + 0.1], np.float32))[0]) for f in (hull.low, hull.top))
    y = np.linspace(-0.78, 0.78, 24, dtype=np.float32) * hull.shape.width / 2
    bumper = np.full_like(y, low + 0.47 * (top - low))
    parts.hull.append(_line(hull.end(y, bumper, -1), dark, 0.006, (-1.0, 0.0, 0.0)))
    edge = inner * hull.shape.width / 2 * 0.90
    for side in SIDES:
        z = np.linspace(low + 0.47 * (top - low), top - 0.02, 8, dtype=np.float32)
        parts.hull.append(_line(hull.end(np.full_like(z, side * edge), z, -1), dark, 0.005, (-1.0, 0.0, 0.0)))
    corner = hull.psi_at(0.93)
    bands: tuple[tuple[float, float, Colour], ...] = ((0.0, 0.15, TRIM),)
    if hull.shape.kind == "pickup":
        bands = ((0.0, 0.08, TRIM), (0.08, 0.17, (112, 114, 118)), (0.17, 0.30, (176, 179, 183)), (0.30, 0.33, TRIM))
    for low_t, high_t, tone in bands:
        ring = [(np.pi - corner, low_t), (np.pi + corner, low_t), (np.pi + corner, high_t), (np.pi - corner, high_t)]
        parts.hull.append(patch(hull, ring, tone, (40, 2)))
    if hull.shape.kind != "pickup":  # the bumper's dark foot runs out into the sill
        flank = np.pi - hull.psi_at(0.80)
        _both(parts.hull, hull, [(flank, 0.0), (np.pi - corner, 0.0), (np.pi - corner, 0.15), (flank, 0.06)], TRIM)


def _handles(parts: Parts, hull: Hull, cabin: Cabin, paint: Paint, rng: np.random.Generator) -> None:
    tone: Colour = CHROME if rng.random() < 0.3 else _darker(paint, 0.75)
    pillar, rear = _door_lines(cabin)
    places = [pillar + 0.10, max(rear, hull.back_axle + 0.12) + 0.10]
    if places[0] - places[1] < 0.55:  # too short for a back door
        places.pop()
    for x in places:
        z = float(hull.top(np.array([x], np.float32))[0]) - 0.11
        _side_lines(parts, hull, x=[x, x + 0.19], z=[z - 0.018, z - 0.018], colour=_darker(paint, 0.2), width=0.016)
        _side_lines(parts, hull, x=[x, x + 0.19], z=[z, z], colour=tone, width=0.024)


def _plates(parts: Parts, hull: Hull) -> None:
    half = hull.shape.length / 2
    tail_top = float(hull.top(np.array([-half + 0.1], np.float32))[0])
    high = {"sedan": tail_top - 0.26, "hatchback": tail_top - 0.25, "suv": tail_top - 0.28, "van": tail_top - 0.28}
    places = ((1, hull.shape.clearance + 0.21), (-1, high.get(hull.shape.kind, hull.shape.clearance + 0.22)))
    for front, z in places:
        for width, height, tone in ((0.335, 0.18, (40, 41, 43)), (0.315, 0.16, PLATE)):
            parts.hull.append(_plate(hull, front, z, size=(width, height), tone=tone, offset=0.0))
        parts.hull.append(_plate(hull, front, z, size=(0.05, 0.05), tone=(62, 150, 208), offset=-0.105))
        for letter in range(7):
            ink = (0.009 + 0.005 * (letter % 3), 0.026)
            parts.hull.append(_plate(hull, front, z, size=ink, tone=(96, 99, 104), offset=-0.045 + 0.026 * letter))


def _plate(hull: Hull, front: int, z: float, *, size: tuple[float, float], tone: Colour, offset: float) -> Patch:
    """A flat rectangle before the skin, `offset` metres to the reader's right of the middle."""
    width, height = size
    middle = front * offset
    y = middle + front * np.array([-1, 1, 1, -1], np.float32) * width / 2
    rise = z + np.array([-1, -1, 1, 1], np.float32) * height / 2
    skin = hull.end(np.array([middle], np.float32), np.array([z], np.float32), front)[0, 0] + front * 0.012
    quad = np.stack([np.full_like(y, skin), y, rise], axis=1)[None]
    return Patch(quad.astype(np.float32), np.array([tone], np.float32), quad[0].astype(np.float32))


def _outline(surface: Cabin, corners: Sequence[tuple[float, float]], side: int) -> Floats:
    """The closed outline through (psi, t) corners, with corners a little rounded, densely sampled."""
    knots = np.array(corners, np.float32)
    pieces = []
    for k in range(len(knots)):
        before, here, after = knots[k - 1], knots[k], knots[(k + 1) % len(knots)]
        for way in np.linspace(0, 1, 6, dtype=np.float32):
            # A quadratic curve from near the corner on one edge to near it on the other.
            enter, leave = here + 0.14 * (before - here), here + 0.14 * (after - here)
            pieces.append((1 - way) ** 2 * enter + 2 * way * (1 - way) * here + way**2 * leave)
        pieces.extend(here + way * (after - here) for way in np.linspace(0.2, 0.8, 7, dtype=np.float32))
    fine = np.array(pieces, np.float32)
    return _mirrored(surface.at(fine[:, 0], fine[:, 1]), side)


def _windows(parts: Parts, cabin: Cabin, rng: np.random.Generator) -> None:
    """Windscreen, back window, the black band along each side and the side windows in it."""
    kind = cabin.shape.kind
    screen, flank = _CORNER - 0.055, _CORNER + 0.045
    end = np.pi - _CORNER - {"sedan": 0.23, "hatchback": 0.17, "suv": 0.075, "van": 0.06, "pickup": 0.06}[kind]
    privacy = 0.78 if kind in ("suv", "van", "pickup") and rng.random() < 0.75 else float(rng.uniform(0.2, 0.45))
    clear = float(rng.uniform(0.15, 0.35))
    strip = [(-screen - 0.02, 0.0), (screen + 0.02, 0.0), (screen + 0.02, 0.07), (-screen - 0.02, 0.07)]
    parts.cabin.append(patch(cabin, strip, BLACK, (24, 1)))
    band = [(flank - 0.012, 0.05), (end + 0.015, 0.05), (end - 0.01, 0.90), (flank - 0.012, 0.90)]
    _both(parts.cabin, cabin, band, BLACK, (40, 4))
    if rng.random() < 0.4:
        sill = [(flank - 0.012, 0.04), (end + 0.015, 0.04), (end + 0.015, 0.065), (flank - 0.012, 0.065)]
        _both(parts.cabin, cabin, sill, CHROME, (40, 1))
    parts.panes.append(Pane(_outline(cabin, [(-screen, 0.06), (screen, 0.06), (screen, 0.93), (-screen, 0.93)], 1),
                            0, clear * 0.8))  # fmt: skip
    back = (np.pi - screen + 0.06, np.pi + screen - 0.06)
    low = 0.12 if kind == "sedan" else 0.16
    back_outline = [(back[0], low), (back[1], low), (back[1], 0.90), (back[0], 0.90)]
    parts.panes.append(Pane(_outline(cabin, back_outline, 1), 0, privacy))
    for start, stop, tint in _side_panes(cabin, flank, end, clear, privacy):
        lift = 0.07
        corners = [(start[0], lift), (stop[0], lift), (stop[1], 0.87), (start[1], 0.87)]
        parts.panes.extend(Pane(_outline(cabin, corners, side), side, tint) for side in SIDES)


def _side_panes(
    cabin: Cabin, flank: float, end: float, clear: float, privacy: float
) -> list[tuple[tuple[float, float], tuple[float, float], float]]:
    """Each window's front and back edge, as psi at the bottom and at the top, and its tint."""
    pillar, rear = _door_lines(cabin)

    def upright(x: float) -> tuple[float, float]:
        found = []
        for t in (0.07, 0.87):
            front, back = cabin.ends(np.array([t], np.float32))
            a = (2 * x - front - back) / (front - back)
            found.append(float(np.clip(cabin.psi_at(float(np.clip(a[0], -1, 1))), flank, end)))
        return found[0], found[1]

    def shifted(edge: tuple[float, float], by: float) -> tuple[float, float]:
        return edge[0] + by, edge[1] + by

    edges = [(flank, flank), upright(pillar)]
    if cabin.shape.kind != "pickup":
        third = upright(rear)
        if end - max(third) > 0.12:
            edges.append(third)
    edges.append((end, end - 0.02))
    panes = []
    for k, (first, last) in enumerate(pairwise(edges)):
        panes.append((shifted(first, 0.012), shifted(last, -0.012), clear if k == 0 else privacy))
    return panes


def _bed(parts: Parts, hull: Hull) -> None:
    """A pick-up's load bed, seen from above: dark inside the rails."""
    if hull.shape.kind != "pickup":
        return
    x = np.linspace(hull.back_base - 0.02, -hull.shape.length / 2 + 0.16, 10, dtype=np.float32)
    grid = np.stack([hull.lid(x, np.full_like(x, across)) for across in (0.9, 0.45, 0.0, -0.45, -0.9)])
    parts.hull.append(_sheet_of(grid, (26, 26, 27)))
    tall = np.linspace(0.12, 1.0, 8, dtype=np.float32)
    gap = np.full_like(tall, hull.back_base - 0.03)
    low, top = hull.low(gap), hull.top(gap)
    for side in SIDES:
        points = hull.side(gap, low + tall * (top - low), side)
        parts.hull.append(_line(points, (12, 12, 13), 0.02, (0.0, side, 0.0)))


def _lettering(parts: Parts, hull: Hull, rng: np.random.Generator) -> None:
    """A model's name on the back, too small to read."""
    half, pickup = hull.shape.length / 2, hull.shape.kind == "pickup"
    z = float(hull.top(np.array([-half + 0.1], np.float32))[0]) - (0.24 if pickup else 0.13)
    start, tall, pitch = (-0.21, 0.06, 0.085) if pickup else (0.30, 0.03, 0.034)
    for letter in range(int(rng.integers(3, 7))):
        ink = (pitch * float(rng.uniform(0.45, 0.75)), tall)
        parts.hull.append(_plate(hull, -1, z, size=ink, tone=CHROME, offset=start + pitch * letter))


def _exhaust(parts: Parts, hull: Hull, rng: np.random.Generator) -> None:
    """One or two tail pipes below the bumper."""
    half = hull.shape.length / 2
    z = float(hull.low(np.array([-half + 0.15]))[0]) - 0.005
    sides = SIDES if rng.random() < 0.4 else (1,)
    for side in sides:
        y = 0.52 * side * hull.shape.width / 2
        for start, stop, width, tone in ((0.4, 0.18, 0.08, (128, 128, 130)), (0.18, 0.17, 0.055, BLACK)):
            ends = np.array([(-half + start, y, z), (-half + stop, y, z)], np.float32)
            parts.under.append(_line(ends, tone, width, (-1.0, 0.0, 0.0)))


def _wipers(parts: Parts, cabin: Cabin) -> None:
    """Two wipers at rest on the windscreen, one on a steep back window."""
    for start, stop in ((-0.60, 0.05), (0.02, 0.66)):
        b = np.linspace(start, stop, 8, dtype=np.float32)
        points = cabin.end(b, np.linspace(0.04, 0.13, 8, dtype=np.float32), 1)
        parts.glass.append(_line(points, (18, 18, 18), 0.016, (1.0, 0.0, 0.5)))
    if cabin.shape.kind in ("suv", "van", "hatchback"):
        b = np.linspace(-0.05, 0.42, 6, dtype=np.float32)
        points = cabin.end(b, np.linspace(0.17, 0.20, 6, dtype=np.float32), -1)
        parts.glass.append(_line(points, (14, 14, 14), 0.018, (-1.0, 0.0, 0.3)))


def _sunroof(parts: Parts, cabin: Cabin, rng: np.random.Generator) -> None:
    if rng.random() < 0.65:
        return
    x = np.linspace(cabin.screen_top - 0.28, cabin.screen_top - 0.78, 6, dtype=np.float32)
    grid = np.stack([cabin.lid(x, np.full_like(x, across)) for across in np.linspace(0.62, -0.62, 7)])
    parts.cabin.append(_sheet_of(grid, (24, 25, 27)))


def _step_bars(parts: Parts, hull: Hull, rng: np.random.Generator) -> None:
    """Tubes below the doors of some pick-ups."""
    if hull.shape.kind != "pickup" or rng.random() < 0.5:
        return
    tone: Colour = (178, 180, 183) if rng.random() < 0.6 else TRIM
    x = np.linspace(hull.front_axle - 0.62, hull.back_base - 0.05, 12, dtype=np.float32)
    drop = 0.05 * np.minimum(1, np.minimum(np.arange(12), np.arange(12)[::-1]))
    for side in SIDES:
        y = np.full_like(x, side * hull.shape.width / 2 * 0.985)
        parts.rails.append(_line(np.stack([x, y, hull.shape.clearance + 0.04 - drop], axis=1), tone, 0.065))


def _mirrors(parts: Parts, hull: Hull, cabin: Cabin) -> None:
    big = 1.25 if hull.shape.kind in ("pickup", "suv", "van") else 1.0
    x = hull.cowl - 0.32
    z = float(hull.top(np.array([x], np.float32))[0]) + 0.055 * big
    y = hull.shape.width / 2 + 0.035
    del cabin
    u = np.linspace(0, 2 * np.pi, 41, dtype=np.float32)[None]
    v = np.linspace(-np.pi / 2, np.pi / 2, 21, dtype=np.float32)[:, None]

    def soft(value: Floats) -> Floats:
        return np.asarray(np.sign(value) * np.abs(value) ** 0.7, np.float32)

    ball = np.stack(
        [
            x + 0.075 * big * np.where(np.cos(u) > 0, 1.1, 0.5) * soft(np.cos(u)) * soft(np.cos(v)),
            y + 0.11 * big * soft(np.sin(u)) * soft(np.cos(v)),
            z + 0.066 * big * soft(np.sin(v)) * np.ones_like(u),
        ],
        axis=-1,
    ).astype(np.float32)
    for side in SIDES:
        parts.mirrors.append((ball if side == 1 else _mirrored(ball, -1)[:, ::-1].copy(), side))


def _roof_rails(parts: Parts, cabin: Cabin, rng: np.random.Generator) -> None:
    if cabin.shape.kind not in ("suv", "van") or rng.random() < 0.3:
        return
    tone: Colour = (170, 172, 175) if rng.random() < 0.5 else TRIM
    x = np.linspace(cabin.screen_top - 0.25, cabin.roof_end + 0.12, 24, dtype=np.float32)
    for side in SIDES:
        rail = cabin.lid(x, np.full_like(x, 0.93 * side))
        lift = 0.045 * np.minimum(1, np.minimum(np.arange(24), np.arange(24)[::-1]) / 2.0)
        rail[:, 2] += lift
        parts.rails.append(_line(rail, tone, 0.026))
        for post in (1, 12, 22):
            foot = rail[post].copy()
            foot[2] -= 0.06
            parts.rails.append(_line(np.stack([foot, rail[post]]), tone, 0.03))


def _aerial(parts: Parts, hull: Hull, cabin: Cabin, rng: np.random.Generator) -> None:
    """A mast on the roof or the wing, or a fin."""
    style = rng.random()
    if hull.shape.kind == "pickup" and style < 0.6:
        foot = hull.lid(np.array([hull.cowl + 0.12], np.float32), np.array([-0.9], np.float32))[0]
        tip = foot + np.array([-0.12, 0.0, 0.72], np.float32)
        parts.antenna.append(_line(np.stack([foot, tip]), BLACK, 0.006))
        return
    foot = cabin.lid(np.array([cabin.roof_end + 0.14], np.float32), np.array([0.0], np.float32))[0]
    if style < 0.55:
        tip = foot + np.array([-0.22, 0.0, float(rng.uniform(0.18, 0.34))], np.float32)
        parts.antenna.append(_line(np.stack([foot, 0.9 * foot + 0.1 * tip]), BLACK, 0.03))
        parts.antenna.append(_line(np.stack([foot, tip]), BLACK, 0.0065))
    elif style < 0.85:
        fin = np.array([[0.11, 0, 0], [0.02, 0, 0.022], [-0.05, 0, 0.06], [-0.075, 0, 0.0]], np.float32)
        parts.antenna.append(_line(foot + fin, TRIM, 0.022))
