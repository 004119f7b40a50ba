"""Photos to learn from: deterministic, and with exact masks in any place."""

import numpy as np
import pytest

from competition.studio.camera import turn
from competition.studio.variety import photo_of, photo_of_scene, scene_of

SIZE = (192, 128)


def test_a_seed_is_one_photo() -> None:
    first, again, other = (photo_of((7, number), *SIZE) for number in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("seed", range(8))
def test_the_mask_covers_the_car_and_not_the_floor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = scene_of(rng, *SIZE, border=0.5)
    photo, mask = photo_of_scene(scene, rng)
    assert (photo.shape, photo.dtype, mask.shape) == ((*SIZE[::-1], 3), np.uint8, SIZE[::-1])
    assert set(np.unique(mask)) == {0, 1}
    assert 0.02 < mask.mean() < 0.8

    def covered(points: np.ndarray) -> np.ndarray:
        pixels, _ = scene.camera.project(turn(points.reshape(-1, 3), scene.view))
        column, row = np.round(pixels).astype(int).T
        inside = (column >= 0) & (column < SIZE[0]) & (row >= 0) & (row < SIZE[1])
        return mask[row[inside], column[inside]]

    car = scene.car
    for points in (car.hull_skin.points, car.cabin_skin.points, car.wheels):
        assert covered(points).mean() > 0.95
    around = np.linspace(0, 2 * np.pi, 40)
    circle = 4.5 * np.stack([np.cos(around), np.sin(around), 0 * around], axis=1).astype(np.float32)
    near = circle[turn(circle, scene.view)[:, 1] < 0]
    assert not covered(near).any()
