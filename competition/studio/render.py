"""A car in a room, photographed: the picture and its exact mask."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from competition.studio import wheels
from competition.studio.body import facets_of, normals_of
from competition.studio.camera import FOCAL, Camera, Floats, turn
from competition.studio.car import Car
from competition.studio.paint import shade
from competition.studio.parts import Line, Pane, Patch
from competition.studio.room import Picture, Room, empty, noise_tile

_BITS = 4  # of sub-pixel position
_ONE = 1 << _BITS


class Sheet:
    """A part of the frame as RGBA: what is drawn becomes opaque, and opaque pixels are the mask."""

    def __init__(self, camera: Camera, view: int, left: int, top: int, pixels: Picture) -> None:
        self.camera = camera
        self.view = view
        self.origin = np.array([left, top], np.float32)
        self.pixels = pixels

    def like(self) -> "Sheet":
        """An empty, transparent sheet of the same place."""
        x, y = self.origin
        return Sheet(self.camera, self.view, int(x), int(y), np.zeros_like(self.pixels))

    def place(self, points: Floats) -> Floats:
        """Points (..., 3) of the car, to pixels of the sheet (..., 2)."""
        pixels, _ = self.camera.project(turn(points, self.view))
        return pixels - self.origin

    def distance(self, points: Floats) -> Floats:
        """Depths (...) of points (..., 3) of the car in metres."""
        return self.camera.project(turn(points, self.view))[1]

    def pixels_wide(self, metres: float, depth: float) -> float:
        """How wide something of that size is at that depth, in pixels."""
        return metres * FOCAL * self.camera.scale / depth

    def fill(self, points: Floats, colour: Iterable[float], smooth: bool = False) -> None:
        """Fill a polygon of the car's axes (n, 3)."""
        polygon = _fixed(self.place(points))
        cv2.fillPoly(self.pixels, [polygon], _rgba(colour), cv2.LINE_AA if smooth else cv2.LINE_8, _BITS)

    def fill_hull(self, points: Floats, colour: Iterable[float]) -> None:
        """Fill the convex hull, in the picture, of points (n, 3)."""
        cv2.fillConvexPoly(self.pixels, cv2.convexHull(_fixed(self.place(points))), _rgba(colour), cv2.LINE_8, _BITS)

    def stroke(self, line: Line, smooth: bool) -> None:
        """Draw a line, at least a pixel wide."""
        depth = float(self.distance(line.points).mean())
        thick = max(1, round(self.pixels_wide(line.width, depth)))
        kind = cv2.LINE_AA if smooth else cv2.LINE_8
        cv2.polylines(self.pixels, [_fixed(self.place(line.points))], False, _rgba(line.colour), thick, kind, _BITS)

    def faces(self, normal: Floats, at: Floats) -> bool:
        """Whether something facing `normal` (3,) at `at` (3,), in the car's axes, shows to the camera."""
        away = self.camera.eye - turn(at, self.view)
        return bool(np.dot(away, turn(normal, self.view)) > 0)


def _fixed(pixels: Floats) -> NDArray[np.int32]:
    return np.round(pixels * _ONE).astype(np.int32)


def _rgba(colour: Iterable[float]) -> tuple[int, int, int, int]:
    red, green, blue = (min(255, round(float(value))) for value in colour)
    return red, green, blue, 255


def render(car: Car, room: Room, camera: Camera, view: int, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Photograph a car.

    Args:
        car: from `car.build`.
        room: from `room.room_of_shoot`, for the same camera.
        camera: from `camera.camera_of_shoot`.
        view: 1..16.
        rng: for the sensor's noise.

    Returns:
        The picture, (H, W, 3) uint8 RGB, and the mask, (H, W) uint8 of 0 and 1.
    """
    picture = empty(room, camera, view)
    _cast_shadow(picture, car, camera, view)
    sheet = _sheet_of(picture, car, camera, view)
    _draw_car(sheet, car)
    left, top = (int(value) for value in sheet.origin)
    height, width = sheet.pixels.shape[:2]
    mask = np.zeros(picture.shape[:2], np.uint8)
    mask[top : top + height, left : left + width] = sheet.pixels[..., 3] >> 7
    picture[top : top + height, left : left + width] = sheet.pixels[..., :3]
    return develop(picture, room, camera, rng), mask


def develop(picture: Picture, room: Room, camera: Camera, rng: np.random.Generator) -> Picture:
    """What lens and sensor do to a picture (H, W, 3) uint8: softness, vignetting, noise."""
    soft = cv2.GaussianBlur(picture, (0, 0), max(0.35, 0.85 * camera.scale))
    soft = cv2.multiply(soft, room.gain, scale=1 / 255)
    plus, minus = noise_tile(camera.width, camera.height)
    row, column = (int(value) for value in rng.integers(0, 64, 2))
    area = np.s_[row : row + camera.height, column : column + camera.width]
    return np.asarray(cv2.subtract(cv2.add(soft, plus[area]), minus[area]), np.uint8)


def _sheet_of(picture: Picture, car: Car, camera: Camera, view: int) -> Sheet:
    """The part of the frame that the car can touch, with the background in it, transparent."""
    shape = car.shape
    half, side, top = shape.length / 2 + 0.1, shape.width / 2 + 0.3, shape.height + 0.15
    corners = np.array([(x, y, z) for x in (-half, half) for y in (-side, side) for z in (0, top)], np.float32)
    tips = [line.points for line in car.parts.antenna]
    pixels, _ = camera.project(turn(np.concatenate([corners, *tips]), view))
    low = np.maximum(np.floor(pixels.min(axis=0)) - 4, 0).astype(int)
    high = np.minimum(np.ceil(pixels.max(axis=0)) + 4, (camera.width, camera.height)).astype(int)
    crop = picture[low[1] : high[1], low[0] : high[0]]
    paper = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2RGBA), np.uint8)
    paper[..., 3] = 0
    return Sheet(camera, view, int(low[0]), int(low[1]), paper)


def _draw_car(sheet: Sheet, car: Car) -> None:
    """Draw what is behind the body, the body with its arches cut out, and what stands before it."""
    _draw_rails(sheet, car, before=False)
    _draw_under(sheet, car)
    _draw_mirrors(sheet, car, before=False)
    _draw_antenna(sheet, car, before=False)
    body = sheet.like()
    _draw_skin(body, car, car.hull_skin, car.hull_normals)
    _soften(body)
    _draw_parts(body, car.parts.hull)
    _cut_arches(body, car)
    cabin = sheet.like()
    _draw_skin(cabin, car, car.cabin_skin, car.cabin_normals)
    _soften(cabin)
    _draw_parts(cabin, car.parts.cabin)
    _glaze(cabin, sheet, car)
    _draw_parts(cabin, car.parts.glass)
    _lay(body, cabin)
    _lay(sheet, body)
    _draw_rails(sheet, car, before=True)
    _draw_mirrors(sheet, car, before=True)
    _draw_antenna(sheet, car, before=True)


def _lay(below: Sheet, above: Sheet) -> None:
    cv2.copyTo(above.pixels, above.pixels[..., 3], below.pixels)


def _draw_skin(sheet: Sheet, car: Car, skin: Floats, normals: Floats) -> None:
    """Draw a painted skin's facets that face the camera, far ones first."""
    points = turn(skin, sheet.view)
    pixels, depth = sheet.camera.project(points)
    colours = shade(points, turn(normals, sheet.view), sheet.camera.eye, car.paint)
    quads = facets_of(pixels - sheet.origin)
    tones = facets_of(colours).mean(axis=1)
    order = np.argsort(-facets_of(depth[..., None]).mean(axis=(1, 2)), kind="stable")
    _fill_quads(sheet, quads[order], tones[order])


def _fill_quads(sheet: Sheet, quads: Floats, tones: Floats) -> int:
    """Fill those quadrilaterals (n, 4, 2) of the sheet that turn their outer face to the camera; how many."""
    one, other = quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1]
    front = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0] < 0
    if front.mean() < 0.08:  # a part on the far side, with a fold
        return 0
    corners = _fixed(quads[front])
    colours = np.concatenate([tones[front], np.full((int(front.sum()), 1), 255)], axis=1)
    for quad, colour in zip(corners, np.minimum(colours, 255).round().tolist(), strict=True):
        cv2.fillConvexPoly(sheet.pixels, quad, colour, cv2.LINE_8, _BITS)
    return len(corners)


def _soften(sheet: Sheet) -> None:
    """Melt the facets into one surface, mixing nothing from beyond its outline."""
    reach = max(1, round(6 * sheet.camera.scale))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    x, y, width, height = cv2.boundingRect(sheet.pixels[..., 3])
    area = sheet.pixels[y : y + height, x : x + width]
    alpha = area[..., 3].copy()
    # Beyond its border the area goes on transparent, as the sheet does.
    blurred = cv2.blur(area, kernel.shape, borderType=cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED)
    cv2.copyTo(blurred, alpha, area)
    # Near the outline the mean took in transparent black: divide by the share that was car.
    inside = cv2.erode(alpha, kernel, borderType=cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED, borderValue=0)
    found = cv2.findNonZero(alpha - inside)
    if found is not None:
        columns, rows = found.reshape(-1, 2).T
        mixed = blurred[rows, columns].astype(np.float32)
        area[rows, columns] = np.minimum(mixed * 255 / np.maximum(mixed[:, 3:], 1), 255)
    area[..., 3] = alpha


def _draw_parts(sheet: Sheet, parts: Iterable[Patch | Line]) -> None:
    """Draw what is fixed to a skin; it never reaches beyond the skin's own outline."""
    alpha = sheet.pixels[..., 3].copy()
    for part in parts:
        if isinstance(part, Patch):
            _draw_patch(sheet, part)
        elif sheet.faces(np.array(part.faces, np.float32), part.points.mean(axis=0)):
            sheet.stroke(part, smooth=True)
    sheet.pixels[..., 3] = alpha


def _draw_patch(sheet: Sheet, part: Patch) -> None:
    """Fill a patch, and where all of it shows smooth its outline."""
    colours = part.colours + _sheen(sheet, part.quads)
    if _fill_quads(sheet, sheet.place(part.quads), colours) == len(part.quads):
        rim = _fixed(sheet.place(part.rim))
        cv2.polylines(sheet.pixels, [rim], True, _rgba(colours.mean(axis=0)), 1, cv2.LINE_AA, _BITS)


def _sheen(sheet: Sheet, quads: Floats) -> Floats:
    """What quads (n, 4, 3) of smooth plastic mirror of the bright room: most at a grazing angle; (n, 1) of 255."""
    normal = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    view = sheet.camera.eye - turn(quads.mean(axis=1), sheet.view)
    view /= np.linalg.norm(view, axis=-1, keepdims=True)
    facing = np.abs(np.sum(view * turn(normal, sheet.view), axis=-1, keepdims=True))
    return np.asarray(12 * np.clip(normal[:, 2:], 0, 1) + 70 * (1 - facing) ** 4)


def _arch(car: Car, axle: float, side: int) -> Floats:
    """The outline of a wheel arch on the skin, open at the bottom."""
    wheel = car.shape.wheel
    reach = wheel * 1.12
    angle = np.linspace(-0.5, np.pi + 0.5, 40, dtype=np.float32)
    x = (axle + reach * np.cos(angle)).astype(np.float32)
    return car.hull.side(x, (wheel + 0.01 + reach * np.sin(angle)).astype(np.float32), side)


def _arches(sheet: Sheet, car: Car) -> list[Floats]:
    found = []
    for axle in (car.hull.front_axle, car.hull.back_axle):
        for side in (1, -1):
            facing = np.array([0, side, 0], np.float32)
            if sheet.faces(facing, np.array([axle, side * car.shape.width / 2, 0.4], np.float32)):
                found.append(_arch(car, axle, side))
    return found


def _cut_arches(sheet: Sheet, car: Car) -> None:
    for arch in _arches(sheet, car):
        cv2.fillPoly(sheet.pixels, [_fixed(sheet.place(arch))], (0, 0, 0, 0), cv2.LINE_8, _BITS)


def _draw_under(sheet: Sheet, car: Car) -> None:
    """The floor pan, the dark of the wheel arches, and the wheels, far ones first."""
    shape = car.shape
    bottom = car.hull.at(car.hull.angles(64), np.zeros(1, np.float32))
    sheet.fill_hull(bottom * np.array([0.96, 0.9, 1], np.float32), (14, 14, 15))
    for arch in _arches(sheet, car):
        high = arch[arch[:, 2] > shape.clearance]
        sheet.fill(high, (12, 12, 13))
    for line in car.parts.under:
        if sheet.faces(np.array(line.faces, np.float32), line.points[-1]):
            sheet.stroke(line, smooth=False)
    order = np.argsort(-sheet.distance(car.wheels))
    for index in order:
        _draw_wheel(sheet, car, int(index))


def _draw_wheel(sheet: Sheet, car: Car, index: int) -> None:
    centre = car.wheels[index]
    side = 1 if centre[1] > 0 else -1
    sheet.fill_hull(wheels.tyre(centre, car.shape.wheel, side), (23, 23, 24))
    if not sheet.faces(np.array([0, side, 0], np.float32), centre):
        return
    for points, colour in wheels.face(centre, car.shape.wheel, side, car.rim, car.wheel_angles[index]):
        sheet.fill(points, colour, smooth=True)


def _shows(sheet: Sheet, pane: Pane) -> bool:
    middle = pane.outline.mean(axis=0)
    normal = [0, pane.side, 0.25] if pane.side else [1 if middle[0] > 0 else -1, 0, 0.5]
    return sheet.faces(np.array(normal, np.float32), middle)


def _glaze(cabin: Sheet, behind: Sheet, car: Car) -> None:
    """Put glass into the windows that face the camera: through it the cabin, and the room beyond."""
    near = [pane for pane in car.parts.panes if _shows(cabin, pane)]
    far = [pane for pane in car.parts.panes if not _shows(cabin, pane)]
    inside = cabin.like()
    inside.pixels[...] = (74, 77, 77, 255)
    through = np.zeros(inside.pixels.shape[:2], np.uint8)
    for pane in far:
        cv2.fillPoly(through, [_fixed(cabin.place(pane.outline))], 255, cv2.LINE_8, _BITS)
    cv2.copyTo(cv2.convertScaleAbs(behind.pixels, alpha=0.75, beta=8), through, inside.pixels)
    for points, tone in _furniture(car):
        inside.fill_hull(points, (tone, tone, tone))
    for pane in near:
        _set_pane(cabin, inside, pane)


def _furniture(car: Car) -> list[tuple[Floats, float]]:
    """Seats with headrests, and the dashboard, as clouds of points with a grey each."""
    hull, cabin, shape = car.hull, car.cabin, car.shape
    floor = shape.belt
    roof = shape.height - 0.10
    front = cabin.screen_top - 0.42
    rows = [front] if shape.kind == "pickup" else [front, front - 0.85]
    if shape.kind == "pickup":
        rows.append(hull.back_base + 0.35)
    found: list[tuple[Floats, float]] = []
    across = shape.width * 0.20
    for x in rows:
        for y in (across, -across):
            found.append((_box((x, y, floor - 0.1), (0.10, 0.24, 0.62 * (roof - floor) + 0.1)), 46))
            found.append((_box((x - 0.06, y, floor + 0.60 * (roof - floor)), (0.06, 0.13, 0.17)), 38))
    found.append((_box((hull.cowl - 0.35, 0.0, floor - 0.15), (0.30, shape.width * 0.40, 0.18)), 40))
    return found


def _box(foot: tuple[float, float, float], size: tuple[float, float, float]) -> Floats:
    x, y, z = foot
    return np.array(
        [(x + dx * (1 - 0.3 * up) - 0.1 * up, y + dy * (1 - 0.12 * up), z + up * size[2])
         for dx in (-size[0], size[0]) for dy in (-size[1], size[1]) for up in (0, 1)],
        np.float32,
    )  # fmt: skip


def _set_pane(cabin: Sheet, inside: Sheet, pane: Pane) -> None:
    """Copy what is seen through one pane, tinted, with a sheen of the bright room growing upwards."""
    outline = cabin.place(pane.outline)
    x, y, width, height = cv2.boundingRect(np.round(outline).astype(np.int32))
    rows, columns = cabin.pixels.shape[:2]
    y0, y1, x0, x1 = max(y, 0), min(y + height, rows), max(x, 0), min(x + width, columns)
    if y0 >= y1 or x0 >= x1:
        return
    stencil = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(stencil, [_fixed(outline - np.array([x0, y0], np.float32))], 255, cv2.LINE_AA, _BITS)
    area = cabin.pixels[y0:y1, x0:x1]
    stencil &= area[..., 3]
    seen = inside.pixels[y0:y1, x0:x1, :3].astype(np.float32)
    sheen = np.linspace(1.0, 0.35, y1 - y0, dtype=np.float32)[:, None, None]
    mirror = np.array([70, 76, 77], np.float32) * (0.9 if pane.side else 1.25)
    glass = seen * np.float32(1 - pane.tint) * np.array([0.94, 0.98, 0.96], np.float32)
    glass = glass + np.array([20, 21, 22], np.float32) * np.float32(pane.tint) + mirror * sheen * 0.55
    cover = stencil.astype(np.float32)[..., None] / 255
    area[..., :3] = area[..., :3] + cover * (np.minimum(glass, 255) - area[..., :3])


def _draw_mirrors(sheet: Sheet, car: Car, before: bool) -> None:
    for ball, side in car.parts.mirrors:
        shows = sheet.faces(np.array([0, side, 0], np.float32), ball.mean(axis=(0, 1)))
        if shows == before:
            middle = ball.mean(axis=(0, 1))
            stalk = np.array([[0.05, 0, -0.05], [-0.05, 0, -0.05], [0.0, -0.16 * side, -0.09]], np.float32)
            sheet.fill_hull(
                middle + np.concatenate([stalk, stalk + np.array([0, 0, 0.05], np.float32)]), (26, 26, 27)
            )
            _draw_skin(sheet, car, ball, normals_of(ball))


def _draw_antenna(sheet: Sheet, car: Car, before: bool) -> None:
    """A mast on the wing hides behind the cabin when it is further away; one on the roof never does."""
    for line in car.parts.antenna:
        foot = line.points[0]
        beyond = sheet.distance(foot) > sheet.distance(np.zeros(3, np.float32)) + 0.2
        hidden = bool(beyond) and float(foot[2]) < car.shape.height - 0.3
        if hidden == before:
            continue
        sheet.stroke(line, smooth=False)
        if len(line.points) > 2:  # a fin
            sheet.fill_hull(line.points, line.colour)


def _draw_rails(sheet: Sheet, car: Car, before: bool) -> None:
    for line in car.parts.rails:
        side = np.sign(line.points[0, 1])
        if sheet.faces(np.array([0, side, 0], np.float32), line.points.mean(axis=0)) == before:
            sheet.stroke(line, smooth=False)


def _cast_shadow(picture: Picture, car: Car, camera: Camera, view: int) -> None:
    """Darken the floor under and around the car, and let it mirror the car a little."""
    shrink = 8
    rows, columns = -(-picture.shape[0] // shrink), -(-picture.shape[1] // shrink)
    light = np.ones((rows, columns), np.float32)
    foot = car.hull.at(car.hull.angles(48), np.zeros(1, np.float32)) * np.array([1, 1, 0], np.float32)
    tyre = np.array([(-0.12, 0.02), (0.12, 0.02), (0.12, -0.2), (-0.12, -0.2)], np.float32)
    treads = []
    for x, y, _ in car.wheels:
        treads.append(np.stack([x + tyre[:, 0], y + np.sign(y) * tyre[:, 1], np.zeros(4)], axis=1))
    for shapes, dark, soft in (
        ([foot * 1.12], 0.20, 0.20),
        ([foot * 0.97], 0.42, 0.085),
        ([foot * 0.86], 0.40, 0.04),
        (treads, 0.45, 0.02),
    ):
        layer = np.zeros((rows, columns), np.uint8)
        for shape in shapes:
            pixels, _ = camera.project(turn(shape, view))
            cv2.fillPoly(layer, [_fixed(pixels / shrink)], 255, cv2.LINE_AA, _BITS)
        radius = soft * FOCAL * camera.scale / camera.distance / shrink
        blurred = cv2.GaussianBlur(layer, (0, 0), max(radius, 0.3), sigmaY=max(radius * 0.45, 0.3))
        light *= 1 - dark * blurred.astype(np.float32) / 255
    share = _mirrored_share(car, camera, view, (rows, columns), shrink)[..., None]
    touched = np.flatnonzero((light < 0.997).any(axis=1) | (share > 0.003).any(axis=(1, 2)))
    if not len(touched):
        return
    top, bottom = int(touched[0]) * shrink, min((int(touched[-1]) + 1) * shrink, picture.shape[0])

    def grown(coarse: Floats) -> Picture:
        values = np.round(255 * coarse).astype(np.uint8)
        full = cv2.resize(values, (columns * shrink, rows * shrink), interpolation=cv2.INTER_LINEAR)
        return np.asarray(full[top:bottom, : picture.shape[1]], np.uint8)

    gain = grown(light[..., None] * (1 - share) * np.ones(3, np.float32))
    tint = grown(share * np.array(car.paint.colour, np.float32) / 255 * 0.8)
    picture[top:bottom] = cv2.add(cv2.multiply(picture[top:bottom], gain, scale=1 / 255), tint)


def _mirrored_share(car: Car, camera: Camera, view: int, size: tuple[int, int], shrink: int) -> Floats:
    """How much of the car the satin floor mirrors (rows, columns): its flanks, upside down, fading."""
    skin = car.hull_skin[:: max(1, len(car.hull_skin) // 8), ::4].reshape(-1, 3)
    pixels, _ = camera.project(turn(skin * np.array([1, 1, -0.5], np.float32), view))
    layer = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(layer, cv2.convexHull(_fixed(pixels / shrink)), 255, cv2.LINE_AA, _BITS)
    radius = max(0.3, 60 * camera.scale / shrink)
    share = cv2.GaussianBlur(layer, (0, 0), radius).astype(np.float32) / 255
    return np.asarray(share * np.float32(0.07))
