"""Foreground colours: opaque pixels are unchanged, edges lose the background, tiles leave no seams."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from competition.images import Pixels
from inference.cutouts import foreground as module
from inference.cutouts.foreground import Floats, foreground

BLUE, ORANGE = np.array([20, 40, 200], np.float32), np.array([230, 120, 10], np.float32)


def disk(shape: tuple[int, int], radius: float, softness: float = 2.0) -> Floats:
    """The opacity of a disk in the middle, with a soft edge so many pixels wide on both sides."""
    y, x = (np.arange(side) - (side - 1) / 2 for side in shape)
    distance = radius - np.hypot(y[:, None], x)
    return np.clip(0.5 + distance / (2 * softness), 0, 1).astype(np.float32)


def mixed(front: np.ndarray, back: np.ndarray, alpha: Floats) -> Pixels:
    """A photo of a foreground before a background."""
    part = alpha[..., None]
    return np.rint(part * front + (1 - part) * back).astype(np.uint8)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Pixels, Floats]:
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    photo = draw(arrays(np.uint8, (*shape, 3)))
    alpha = draw(arrays(np.float32, shape, elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])))
    return photo, alpha


@settings(max_examples=50, deadline=None)
@given(pictures())
def test_opaque_pixels_keep_their_colours(picture: tuple[Pixels, Floats]) -> None:
    photo, alpha = picture
    before = photo.copy()
    cleaned = foreground(photo, alpha)
    assert (cleaned.shape, cleaned.dtype) == (photo.shape, np.uint8)
    assert np.array_equal(cleaned[alpha == 1], photo[alpha == 1])
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 60)])
def test_everything_or_nothing_opaque(shape: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).integers(1, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(foreground(photo, np.ones(shape, np.float32)), photo)
    assert not foreground(photo, np.zeros(shape, np.float32)).any()


def test_one_soft_pixel_has_its_own_colour() -> None:
    photo = np.array([[[10, 100, 200]]], np.uint8)
    assert np.abs(foreground(photo, np.full((1, 1), 0.5, np.float32)).astype(int) - photo).max() <= 1


@pytest.mark.parametrize("softness", [0.5, 1, 2])
def test_the_background_is_removed_from_soft_pixels(softness: float) -> None:
    alpha = disk((120, 160), 40, softness)
    photo = mixed(ORANGE, BLUE, alpha)
    soft = (alpha > 0) & (alpha < 1)
    cleaned = np.abs(foreground(photo, alpha)[soft] - ORANGE).mean()
    assert cleaned < 6 < 0.2 * np.abs(photo[soft] - ORANGE).mean()


@pytest.mark.parametrize("inside", [0, 255])
def test_colours_do_not_overflow(inside: int) -> None:
    """The detail of a soft pixel like the object itself would lead beyond black or white."""
    alpha = np.zeros((20, 20), np.float32)
    alpha[:, :10], alpha[:, 10] = 1, 0.5
    photo = np.full((20, 20, 3), 255 - inside, np.uint8)
    photo[:, :11] = inside
    assert np.abs(foreground(photo, alpha)[:, 10].astype(int) - inside).max() <= 1


def test_the_estimates_explain_the_photo() -> None:
    """Composed over the background that was estimated with it, the foreground gives the photo again."""
    rng = np.random.default_rng(1)
    alpha = disk((90, 90), 25, 3)
    image = mixed(ORANGE, BLUE + rng.normal(0, 10, (90, 90, 3)), alpha).astype(np.float32)
    front, back = module._fuse(image, image, image, alpha, 31)
    front, back = module._fuse(image, front, back, alpha, 7)
    part = alpha[..., None]
    soft = (alpha > 0.05) & (alpha < 0.95)
    # The detail that the smooth colours leave over is explained in the part of the pixel that is opaque.
    left = np.abs(part * front + (1 - part) * back - image)[soft].mean()
    assert left < 0.35 * np.abs(part * ORANGE[::-1] + (1 - part) * BLUE - image)[soft].mean()
    assert left < 5


def test_transparent_pixels_beside_an_edge_have_its_colours_and_others_none() -> None:
    alpha = disk((200, 200), 40)
    cleaned = foreground(mixed(ORANGE, BLUE, alpha), alpha)
    near, far = disk((200, 200), 43.5, 0.5) * (alpha == 0) == 1, disk((200, 200), 50, 0.5) == 0
    assert near.any()
    assert np.abs(cleaned[near] - ORANGE).max() < 25
    assert not cleaned[far].any()


def test_tiles_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    alpha = disk((300, 400), 110, 4)
    photo = mixed(ORANGE + rng.normal(0, 8, (300, 400, 3)), BLUE, alpha)
    monkeypatch.setattr(module, "SMALLEST_TILE", 1000)
    whole = foreground(photo, alpha)
    monkeypatch.setattr(module, "SMALLEST_TILE", 64)
    assert np.abs(foreground(photo, alpha).astype(int) - whole).max() <= 1


def test_only_tiles_with_soft_pixels_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory and time for a large photo depend on its edges."""
    seen: list[tuple[int, ...]] = []
    estimate = module._estimate

    def watched(photo: Pixels, alpha: Floats, windows: list[int]) -> Pixels:
        seen.append(alpha.shape)
        return estimate(photo, alpha, windows)

    monkeypatch.setattr(module, "_estimate", watched)
    alpha = np.zeros((1300, 1918), np.float32)
    alpha[:, :900] = 1
    alpha[:, 900:903] = 0.5
    foreground(np.full((1300, 1918, 3), 90, np.uint8), alpha)
    assert len(seen) == 6
    assert max(max(shape) for shape in seen) < 300


def test_the_windows_follow_the_size_of_the_photo() -> None:
    """The colours reach into the transparent pixels as far as the second window, scaled."""
    for side, window in ((100, 7), (1918, 7), (4 * 1918, 25)):
        alpha = np.zeros((9, side), np.float32)
        alpha[:, :50], alpha[:, 50] = 1, 0.5
        cleaned = foreground(np.full((9, side, 3), 90, np.uint8), alpha)
        assert np.flatnonzero(cleaned[4].any(axis=-1)).max() == 50 + window // 2
