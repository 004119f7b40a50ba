"""Projects points of the car to pixels of view 01..16.

The car's axes, in metres: x towards its nose, y to its left, z up; the origin is on the floor below its middle.
The camera stands still and the turntable turns: view 01 shows the front, 05 the driver's side with the nose to
the left, 09 the back, 13 the other side.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

VIEWS = 16
FRAME = (1918, 1280)  # width x height of the photos of the competition, in pixels
FOCAL = 2230.0  # pixels at that width


@dataclass(frozen=True)
class Camera:
    """The pinhole camera of one shoot: photo size, `shift` and `focal` in pixels, `pitch` in radians (downwards).

    `shift` and `focal` are for a photo that is 1918 pixels wide.
    """

    width: int
    height: int
    eye_height: float
    distance: float
    pitch: float
    shift: float
    focal: float = FOCAL

    @property
    def scale(self) -> float:
        """The width of the photo relative to 1918 pixels."""
        return self.width / FRAME[0]

    @property
    def eye(self) -> Floats:
        """The position of the lens in the room, (3,) metres: x to the right, y away from the camera, z up."""
        return np.array([0.0, -self.distance, self.eye_height], np.float32)

    @property
    def horizon(self) -> float:
        """The row of the horizon."""
        return self.height / 2 - self.focal * self.scale * float(np.tan(self.pitch))

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """The pixels (..., 2) and depths (...) in metres of points (..., 3) in the room."""
        away = points[..., 1] + np.float32(self.distance)
        up = points[..., 2] - np.float32(self.eye_height)
        cos, sin = np.float32(np.cos(self.pitch)), np.float32(np.sin(self.pitch))
        depth = away * cos - up * sin
        focal = np.float32(self.focal * self.scale)
        column = self.width / 2 + self.shift * self.scale + focal * points[..., 0] / depth
        row = self.height / 2 - focal * (away * sin + up * cos) / depth
        return np.stack([column, row], axis=-1).astype(np.float32), depth.astype(np.float32)


def camera_of_shoot(rng: np.random.Generator, width: int, height: int) -> Camera:
    """A random camera; its aim and height differ a little between shoots."""
    return Camera(
        width=width,
        height=height,
        eye_height=float(rng.uniform(1.58, 1.72)),
        distance=float(rng.uniform(7.15, 7.6)),
        pitch=float(np.radians(rng.uniform(6.2, 9.2))),
        shift=float(rng.uniform(-35, 15)),
    )


def turn(points: Floats, view: float) -> Floats:
    """Points or directions (..., 3) from the car's axes to the room's, with the turntable at `view`, 1 to 16."""
    angle = 2 * np.pi * (view - 1) / VIEWS
    sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    x, y = points[..., 0], points[..., 1]
    return np.stack([-sin * x + cos * y, -cos * x - sin * y, points[..., 2]], axis=-1).astype(np.float32)
