"""Renders a car in a room: the photo and its exact mask."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from competition.studio import wheels
from competition.studio.body import facets_of
from competition.studio.camera import Camera, Floats, turn
from competition.studio.car import Car, Skin
from competition.studio.paint import Paint, shade
from competition.studio.parts import Line, Pane, Patch
from competition.studio.room import Picture, Room, empty, noise_tile
from competition.studio.shadow import cast_shadow

_BITS = 4  # OpenCV's fractional bits of a pixel position
_CLEAR = (0, 0, 0, 0)


class Canvas:
    """A rectangle of the photo as RGBA, (h, w, 4) uint8. What is drawn becomes opaque; opaque pixels are the mask."""

    def __init__(self, camera: Camera, view: float, left: int, top: int, pixels: Picture) -> None:
        self.camera = camera
        self.view = view
        self.left = left
        self.top = top
        self.pixels = pixels

    def blank(self) -> "Canvas":
        """A transparent canvas for the same rectangle."""
        return Canvas(self.camera, self.view, self.left, self.top, np.zeros_like(self.pixels))

    def place(self, points: Floats) -> Floats:
        """Points (..., 3) in the car's axes to pixels of the canvas (..., 2)."""
        pixels, _ = self.camera.project(turn(points, self.view))
        return pixels - np.array([self.left, self.top], np.float32)

    def depth(self, points: Floats) -> Floats:
        """Distances (...) in metres along the optical axis of points (..., 3) in the car's axes."""
        return self.camera.project(turn(points, self.view))[1]

    def fill(self, points: Floats, colour: Iterable[float], smooth: bool = False) -> None:
        """Fill a polygon (n, 3)."""
        kind = cv2.LINE_AA if smooth else cv2.LINE_8
        cv2.fillPoly(self.pixels, [_fixed(self.place(points))], _rgba(colour), kind, _BITS)

    def fill_hull(self, points: Floats, colour: Iterable[float]) -> None:
        """Fill the convex hull, in the photo, of points (n, 3)."""
        cv2.fillConvexPoly(self.pixels, cv2.convexHull(_fixed(self.place(points))), _rgba(colour), cv2.LINE_8, _BITS)

    def stroke(self, line: Line) -> None:
        """Draw a line, at least one pixel wide."""
        width = line.width * self.camera.focal * self.camera.scale / float(self.depth(line.points).mean())
        thick = max(1, round(width))
        polyline = [_fixed(self.place(line.points))]
        cv2.polylines(self.pixels, polyline, False, _rgba(line.colour), thick, cv2.LINE_8, _BITS)

    def shows(self, normal: Iterable[float], at: Floats) -> bool:
        """Whether a surface at `at` (3,) with this normal faces the camera."""
        to_camera = self.camera.eye - turn(at, self.view)
        return bool(np.dot(to_camera, turn(np.array(list(normal), np.float32), self.view)) > 0)


def _fixed(pixels: Floats) -> NDArray[np.int32]:
    return np.round(pixels * (1 << _BITS)).astype(np.int32)


def _rgba(colour: Iterable[float]) -> tuple[int, int, int, int]:
    red, green, blue = (min(255, round(float(value))) for value in colour)
    return red, green, blue, 255


def render(car: Car, room: Room, camera: Camera, view: float, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """The photo, (H, W, 3) uint8 RGB, and the mask, (H, W) uint8 of 0 and 1, of a car at `view` (1..16).

    `room` was made for the same `camera`; `rng` gives the noise of the sensor.
    """
    photo, car_in_front = layers(car, room, camera, view)
    opaque = car_in_front[..., 3]
    cv2.copyTo(car_in_front[..., :3], opaque, photo)
    return develop(photo, room, camera, rng), opaque >> np.uint8(7)


def layers(car: Car, room: Room, camera: Camera, view: float) -> tuple[Picture, Picture]:
    """The room with the car's shadow, (H, W, 3) uint8 RGB, and the car, (H, W, 4) uint8 RGBA.

    The car is where its alpha is 128 or more.
    """
    photo = empty(room, camera, view)
    cast_shadow(photo, car, camera, view)
    canvas = _canvas_around(photo, car, camera, view)
    _draw_car(canvas, car)
    height, width = canvas.pixels.shape[:2]
    whole = np.zeros((*photo.shape[:2], 4), np.uint8)
    whole[canvas.top : canvas.top + height, canvas.left : canvas.left + width] = canvas.pixels
    return photo, whole


def develop(photo: Picture, room: Room, camera: Camera, rng: np.random.Generator) -> Picture:
    """Add the blur and vignetting of the lens and the noise of the sensor to a photo (H, W, 3) uint8."""
    soft = cv2.GaussianBlur(photo, (0, 0), max(0.35, 0.85 * camera.scale))
    soft = cv2.multiply(soft, room.gain, scale=1 / 255)
    plus, minus = noise_tile(camera.width, camera.height)
    row, column = (int(value) for value in rng.integers(0, 64, 2))
    area = np.s_[row : row + camera.height, column : column + camera.width]
    return np.asarray(cv2.subtract(cv2.add(soft, plus[area]), minus[area]), np.uint8)


def _canvas_around(photo: Picture, car: Car, camera: Camera, view: float) -> Canvas:
    """The part of the photo that the car can cover, with the room in it, transparent."""
    shape = car.shape
    half, side, top = shape.length / 2 + 0.1, shape.width / 2 + 0.3, shape.height + 0.15
    corners = np.array([(x, y, z) for x in (-half, half) for y in (-side, side) for z in (0, top)], np.float32)
    tips = [line.points for line in car.parts.antenna]
    pixels, _ = camera.project(turn(np.concatenate([corners, *tips]), view))
    left, top = np.maximum(np.floor(pixels.min(axis=0)) - 4, 0).astype(int)
    right, bottom = np.minimum(np.ceil(pixels.max(axis=0)) + 4, (camera.width, camera.height)).astype(int)
    background = np.asarray(cv2.cvtColor(photo[top:bottom, left:right], cv2.COLOR_RGB2RGBA), np.uint8)
    background[..., 3] = 0
    return Canvas(camera, view, int(left), int(top), background)


def _draw_car(canvas: Canvas, car: Car) -> None:
    """Draw from back to front: parts behind the body, wheels, body with its wheel arches cut out, parts before it."""
    _draw_thin_parts(canvas, car, before=False)
    _draw_underside(canvas, car)
    body = canvas.blank()
    _draw_skin(body, car.hull_skin, car.paint)
    _smooth_facets(body)
    _draw_parts(body, car.parts.hull)
    for arch in _arches(body, car):
        cv2.fillPoly(body.pixels, [_fixed(body.place(arch))], _CLEAR, cv2.LINE_8, _BITS)
    cabin = canvas.blank()
    _draw_skin(cabin, car.cabin_skin, car.roof or car.paint)
    _smooth_facets(cabin)
    _draw_parts(cabin, car.parts.cabin)
    _draw_windows(cabin, canvas, car)
    _overlay(body, cabin)
    _overlay(canvas, body)
    _draw_thin_parts(canvas, car, before=True)


def _overlay(below: Canvas, above: Canvas) -> None:
    cv2.copyTo(above.pixels, above.pixels[..., 3], below.pixels)


def _draw_skin(canvas: Canvas, skin: Skin, paint: Paint) -> None:
    """Draw the facets of a painted surface that face the camera, the farthest first."""
    points = turn(skin.points, canvas.view)
    pixels, depth = canvas.camera.project(points)
    colours = shade(points, turn(skin.normals, canvas.view), canvas.camera.eye, paint)
    quads = facets_of(pixels - np.array([canvas.left, canvas.top], np.float32))
    tones = facets_of(colours).mean(axis=1)
    order = np.argsort(-facets_of(depth[..., None]).mean(axis=(1, 2)), kind="stable")
    quads, tones = quads[order], tones[order]
    front = _front_facing(quads)
    colours = np.concatenate([tones[front], np.full((int(front.sum()), 1), 255)], axis=1)
    for quad, colour in zip(_fixed(quads[front]), np.minimum(colours, 255).round().tolist(), strict=True):
        cv2.fillConvexPoly(canvas.pixels, quad, colour, cv2.LINE_8, _BITS)


def _front_facing(quads: Floats) -> NDArray[np.bool_]:
    """Which quadrilaterals (n, 4, 2) of pixels show their outer face."""
    one, other = quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1]
    return np.asarray(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0] < 0)


def _smooth_facets(canvas: Canvas) -> None:
    """Blur the colours inside the outline, without mixing in what lies outside."""
    x, y, width, height = cv2.boundingRect(canvas.pixels[..., 3])
    area = canvas.pixels[y : y + height, x : x + width]
    alpha = area[..., 3].copy()
    size = 2 * max(1, round(9 * canvas.camera.scale)) + 1
    # The blur mixes in transparent black near the outline: divide by the blurred alpha.
    blurred = cv2.blur(area, (size, size), borderType=cv2.BORDER_CONSTANT | cv2.BORDER_ISOLATED)
    edge = np.nonzero((alpha > 0) & (blurred[..., 3] < 255))
    mixed = blurred[edge].astype(np.float32)
    blurred[edge] = np.minimum(mixed * 255 / np.maximum(mixed[:, 3:], 1), 255)
    cv2.copyTo(blurred, alpha, area)
    area[..., 3] = alpha


def _draw_parts(canvas: Canvas, parts: Iterable[Patch | Line]) -> None:
    """Draw parts on a surface, within its outline."""
    alpha = canvas.pixels[..., 3].copy()
    for part in parts:
        if isinstance(part, Line):
            if canvas.shows(part.faces, part.points.mean(axis=0)):
                canvas.stroke(part)
            continue
        quads = canvas.place(part.quads)
        front = _front_facing(quads)
        if front.mean() > 0.08:  # with less, the patch is on the far side
            cv2.fillPoly(canvas.pixels, list(_fixed(quads[front])), _rgba(part.colour), cv2.LINE_8, _BITS)
    canvas.pixels[..., 3] = alpha


def _arches(canvas: Canvas, car: Car) -> list[Floats]:
    """The outlines (n, 3) of the wheel arches that face the camera."""
    wheel = car.shape.wheel
    reach = wheel * 1.12
    angle = np.linspace(-0.5, np.pi + 0.5, 40, dtype=np.float32)
    found = []
    for x, y, _ in car.wheels:
        side = 1 if y > 0 else -1
        if canvas.shows((0, side, 0), np.array([x, side * car.shape.width / 2, 0.4], np.float32)):
            found.append(car.hull.side(x + reach * np.cos(angle), wheel + 0.01 + reach * np.sin(angle), side))
    return found


def _draw_underside(canvas: Canvas, car: Car) -> None:
    """The floor pan, the dark inside of the wheel arches, and the wheels, the farthest first."""
    bottom = car.hull.at(car.hull.angles(64), np.zeros(1, np.float32))
    canvas.fill_hull(bottom * np.array([0.96, 0.9, 1], np.float32), (14, 14, 15))
    for arch in _arches(canvas, car):
        canvas.fill(arch[arch[:, 2] > car.shape.clearance], (12, 12, 13))
    for index in np.argsort(-canvas.depth(car.wheels)):
        centre = car.wheels[index]
        side = 1 if centre[1] > 0 else -1
        canvas.fill_hull(wheels.tyre(centre, car.shape.wheel, side), (23, 23, 24))
        if canvas.shows((0, side, 0), centre):
            for points, colour in wheels.face(centre, car.shape.wheel, side, car.rim, car.wheel_angles[index]):
                canvas.fill(points, colour, smooth=True)


def _draw_windows(cabin: Canvas, behind: Canvas, car: Car) -> None:
    """Draw the windows that face the camera: the seats, and the room through the windows on the far side."""
    near = [pane for pane in car.parts.panes if cabin.shows(pane.faces, pane.outline.mean(axis=0))]
    far = [pane for pane in car.parts.panes if not cabin.shows(pane.faces, pane.outline.mean(axis=0))]
    inside = cabin.blank()
    x, y, width, height = cv2.boundingRect(cabin.pixels[..., 3])
    area = np.s_[y : y + height, x : x + width]
    inside.pixels[area] = (74, 77, 77, 255)
    through = np.zeros(inside.pixels.shape[:2], np.uint8)
    for pane in far:
        cv2.fillPoly(through, [_fixed(cabin.place(pane.outline))], 255, cv2.LINE_8, _BITS)
    room = cv2.convertScaleAbs(behind.pixels[area], alpha=0.75, beta=8)
    inside.pixels[area] = np.where(through[area][..., None] > 0, room, inside.pixels[area])
    for seat in car.seats:
        inside.fill_hull(seat, (44, 44, 44))
    for pane in near:
        _draw_pane(cabin, inside, pane)


def _draw_pane(cabin: Canvas, inside: Canvas, pane: Pane) -> None:
    """Draw the inside through one window: tinted, with a reflection that is brightest at the top."""
    outline = cabin.place(pane.outline)
    x, y, width, height = cv2.boundingRect(np.round(outline).astype(np.int32))
    rows, columns = cabin.pixels.shape[:2]
    top, bottom, left, right = max(y, 0), min(y + height, rows), max(x, 0), min(x + width, columns)
    if top >= bottom or left >= right:
        return
    stencil = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(stencil, [_fixed(outline - np.array([left, top], np.float32))], 255, cv2.LINE_8, _BITS)
    area = cabin.pixels[top:bottom, left:right]
    fade = np.linspace(1.0, 0.35, bottom - top, dtype=np.float32)[:, None, None]
    reflection = np.array([41, 44, 45], np.float32) * fade + np.float32(21 * pane.tint)
    seen = inside.pixels[top:bottom, left:right, :3] * np.float32(0.96 * (1 - pane.tint))
    glass = np.minimum(seen + reflection, 255).astype(np.uint8)
    visible = (stencil & area[..., 3]) > 0
    area[visible, :3] = glass[visible]


def _draw_thin_parts(canvas: Canvas, car: Car, before: bool) -> None:
    """Draw the roof rails, mirrors and antenna that are before, or else behind, the body."""
    for line in car.parts.rails:
        side = np.sign(line.points[0, 1])
        if canvas.shows((0, side, 0), line.points.mean(axis=0)) == before:
            canvas.stroke(line)
    for skin, side in car.mirror_skins:
        middle = skin.points.mean(axis=(0, 1))
        if canvas.shows((0, side, 0), middle) == before:
            stalk = np.array([[0.05, 0, -0.05], [-0.05, 0, -0.05], [0.0, -0.16 * side, -0.09]], np.float32)
            canvas.fill_hull(
                middle + np.concatenate([stalk, stalk + np.array([0, 0, 0.05], np.float32)]), (26, 26, 27)
            )
            _draw_skin(canvas, skin, car.paint)
    for line in car.parts.antenna:
        # The cabin hides a rod on the far wing; nothing hides one on the roof.
        foot = line.points[0]
        far = float(canvas.depth(foot)) > float(canvas.depth(np.zeros(3, np.float32))) + 0.2
        hidden = far and float(foot[2]) < car.shape.height - 0.3
        if hidden != before:
            canvas.stroke(line)
            if len(line.points) > 2:  # a fin
                canvas.fill_hull(line.points, line.colour)
