"""The shadow of a car on the floor, and its faint reflection there."""

import cv2
import numpy as np
from numpy.typing import NDArray

from competition.studio.camera import Camera, Floats, turn
from competition.studio.car import Car
from competition.studio.room import Picture

_BITS = 4  # OpenCV's fractional bits of a pixel position
_SHRINK = 8  # the shadow is computed at this fraction of the photo's size


def cast_shadow(photo: Picture, car: Car, camera: Camera, view: float) -> None:
    """Darken the floor under and around a car, and add the reflection of its sides, in place."""
    rows, columns = -(-photo.shape[0] // _SHRINK), -(-photo.shape[1] // _SHRINK)
    outline = car.hull.at(car.hull.angles(48), np.zeros(1, np.float32)) * np.array([1, 1, 0], np.float32)
    corners = np.array([(-0.12, 0.02), (0.12, 0.02), (0.12, -0.2), (-0.12, -0.2)], np.float32)
    treads = [
        np.stack([x + corners[:, 0], y + np.sign(y) * corners[:, 1], np.zeros(4)], axis=1) for x, y, _ in car.wheels
    ]
    light = np.ones((rows, columns), np.float32)
    metre = camera.focal / camera.distance * camera.scale  # in pixels
    for shapes, darkness, blur in (
        ([outline * 1.12], 0.20, 0.20),
        ([outline * 0.97], 0.42, 0.085),
        ([outline * 0.86], 0.40, 0.04),
        (treads, 0.45, 0.02),
    ):
        polygons = [_coarse(camera, turn(shape, view)) for shape in shapes]
        light *= 1 - darkness * _blurred(polygons, (rows, columns), blur * metre)
    skin = car.hull_skin.points[::4, ::4].reshape(-1, 3) * np.array([1, 1, -0.5], np.float32)
    flipped = cv2.convexHull(_coarse(camera, turn(skin, view)))
    share = 0.07 * _blurred([flipped], (rows, columns), 60 * camera.scale, squeeze=1.0)
    touched = np.flatnonzero(((light < 0.997) | (share > 0.003)).any(axis=1))
    if not len(touched):
        return
    top, bottom = int(touched[0]) * _SHRINK, min((int(touched[-1]) + 1) * _SHRINK, photo.shape[0])

    def enlarged(coarse: Floats) -> Picture:
        values = np.round(255 * coarse).astype(np.uint8)
        full = cv2.resize(values, (columns * _SHRINK, rows * _SHRINK), interpolation=cv2.INTER_LINEAR)
        return np.asarray(full[top:bottom, : photo.shape[1]], np.uint8)

    gain = enlarged((light * (1 - share))[..., None] * np.ones(3, np.float32))
    reflection = enlarged(share[..., None] * np.array(car.paint.colour, np.float32) / 255 * 0.8)
    photo[top:bottom] = cv2.add(cv2.multiply(photo[top:bottom], gain, scale=1 / 255), reflection)


def _coarse(camera: Camera, points: Floats) -> NDArray[np.int32]:
    pixels, _ = camera.project(points)
    return np.round(pixels / _SHRINK * (1 << _BITS)).astype(np.int32)


def _blurred(
    polygons: list[NDArray[np.int32]], size: tuple[int, int], radius: float, squeeze: float = 0.45
) -> Floats:
    """Filled polygons as coverage (rows, columns) in [0, 1], blurred by `radius` full-size pixels."""
    layer = np.zeros(size, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(layer, [polygon], 255, cv2.LINE_AA, _BITS)
    radius /= _SHRINK
    soft = cv2.GaussianBlur(layer, (0, 0), max(radius, 0.3), sigmaY=max(radius * squeeze, 0.3))
    return np.asarray(soft, np.float32) / 255
