"""The turntable's camera: where a point of the car lands in view 01..16.

A car's own axes are metres: x towards its nose, y to its left, z up, the origin on the floor under its middle.
The camera stands still and the turntable turns: view 01 is the front, 05 the driver's side with the nose to
the left, 09 the back, 13 the other side.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

VIEWS = 16
FRAME = (1918, 1280)  # width x height of the competition's photos, in pixels
FOCAL = 2230.0  # pixels at that width


@dataclass(frozen=True)
class Camera:
    """A pinhole camera of one photo shoot; `width` and `height` in pixels, `pitch` in radians (down)."""

    width: int
    height: int
    eye_height: float
    distance: float
    pitch: float
    shift: float

    @property
    def scale(self) -> float:
        """Pixels of this picture for one pixel of the real 1918 pixels wide photo."""
        return self.width / FRAME[0]

    @property
    def eye(self) -> Floats:
        """The lens in the room, (3,) float32 metres: x to the right, y away from the camera, z up."""
        return np.array([0.0, -self.distance, self.eye_height], np.float32)

    @property
    def horizon(self) -> float:
        """The row of the horizon in pixels."""
        return self.height / 2 - FOCAL * self.scale * float(np.tan(self.pitch))

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Points in the room (..., 3) in metres to pixels (..., 2) and depths (...) in metres."""
        away = points[..., 1] + np.float32(self.distance)
        up = points[..., 2] - np.float32(self.eye_height)
        cos, sin = np.float32(np.cos(self.pitch)), np.float32(np.sin(self.pitch))
        depth = away * cos - up * sin
        focal = np.float32(FOCAL * self.scale)
        column = self.width / 2 + self.shift * self.scale + focal * points[..., 0] / depth
        row = self.height / 2 - focal * (away * sin + up * cos) / depth
        return np.stack([column, row], axis=-1).astype(np.float32), depth.astype(np.float32)


def camera_of_shoot(rng: np.random.Generator, width: int, height: int) -> Camera:
    """The camera as it stood for one car: its aim and height change a little from shoot to shoot."""
    return Camera(
        width=width,
        height=height,
        eye_height=float(rng.uniform(1.58, 1.72)),
        distance=float(rng.uniform(7.15, 7.6)),
        pitch=float(np.radians(rng.uniform(6.2, 9.2))),
        shift=float(rng.uniform(-35, 15)),
    )


def turn(points: Floats, view: int) -> Floats:
    """Points or directions (..., 3) of the car's axes, into the room, with the turntable at `view` (1..16)."""
    angle = 2 * np.pi * (view - 1) / VIEWS
    sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    x, y = points[..., 0], points[..., 1]
    return np.stack([-sin * x + cos * y, -cos * x - sin * y, points[..., 2]], axis=-1).astype(np.float32)
