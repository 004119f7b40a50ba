"""A few photos of one generated car, without a data folder."""

from collections.abc import Sequence

import numpy as np

from competition.studio.camera import FRAME, camera_of_shoot
from competition.studio.car import build
from competition.studio.catalogue import entry_of
from competition.studio.render import render
from competition.studio.room import Picture, room_of_shoot


def photos_of_a_car(views: Sequence[int], seed: int = 1, width: int = FRAME[0] // 4) -> list[Picture]:
    """Photos in the proportions of the competition: each (H, W, 3) uint8 RGB; see ``pairs_of_a_car``."""
    return [photo for photo, _ in pairs_of_a_car(views, seed, width)]


def pairs_of_a_car(views: Sequence[int], seed: int = 1, width: int = FRAME[0] // 4) -> list[tuple[Picture, Picture]]:
    """Photos, each (H, W, 3) uint8 RGB, and their masks, each (H, W) of 0 and 1.

    Args:
        views: from 1 to 16.
        seed: of the car, the room and the noise.
        width: of the photos in pixels.
    """
    rng = np.random.default_rng(seed)
    camera = camera_of_shoot(rng, width, round(width * FRAME[1] / FRAME[0]))
    entry = entry_of(rng)
    room = room_of_shoot(rng, camera)
    car = build(entry.kind, rng, detail=min(1.0, camera.scale * 2))
    return [render(car, room, camera, view, rng) for view in views]
