"""Pictures of a prediction: soft edges, kinds, colours, crops."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from competition.command import Failure
from competition.images import Pixels
from inference.cutouts import rendering
from inference.cutouts.foreground import foreground
from inference.cutouts.rendering import EDGE, KINDS, Renderer, alpha_of, crop_box, render, require_kind
from inference.engine.host_masks import level_of

SHAPE = (60, 90)
LEVELS = arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)))
THRESHOLDS = st.sampled_from([0.01, 0.3, 0.5, 0.77, 0.99])


def photo_of(shape: tuple[int, int], seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def ramp(shape: tuple[int, int], slope: float) -> Pixels:
    """Levels that rise to the right and cross level 127.5 in the middle."""
    columns = np.arange(shape[1]) - (shape[1] - 1) / 2
    return np.broadcast_to(np.clip(np.rint(127.5 + slope * columns), 0, 255), shape).astype(np.uint8)


def ellipse(shape: tuple[int, int]) -> Pixels:
    """Levels of an ellipse, as a small network gives them: soft and enlarged."""
    mask = np.zeros((shape[0] // 4, shape[1] // 4), np.uint8)
    middle = mask.shape[1] // 2, mask.shape[0] // 2
    cv2.ellipse(mask, middle, (middle[0] // 2, middle[1] // 2), 0, 0, 360, 255, -1)
    return np.asarray(cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_LINEAR_EXACT))


@settings(max_examples=100, deadline=None)
@given(LEVELS, THRESHOLDS)
def test_opacity_is_a_multiple_of_a_level(levels: Pixels, threshold: float) -> None:
    alpha = alpha_of(levels, threshold)
    assert (alpha.dtype, alpha.shape) == (np.float32, levels.shape)
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert np.array_equal(alpha, np.rint(alpha * 255).astype(np.float32) / np.float32(255))
    assert np.array_equal(
        render(photo_of(levels.shape), levels, threshold, "mask"), (levels >= level_of(threshold)) * 255
    )


@settings(max_examples=50, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))), THRESHOLDS)
def test_the_mask_of_steep_levels_is_what_is_at_least_half_opaque(mask: np.ndarray, threshold: float) -> None:
    mask = np.kron(mask, np.ones((3, 3), np.bool_))
    alpha = alpha_of(mask.astype(np.uint8) * np.uint8(255), threshold)
    assert np.array_equal(np.rint(alpha * 255) >= 128, mask)


@pytest.mark.parametrize("times", [3, 10])
def test_the_outline_of_enlarged_levels_has_no_steps(times: int) -> None:
    """A slanted edge, predicted by a small network that is less sure of some pixels than of others."""
    y, x = np.mgrid[:40, :60]
    noise = np.random.default_rng(4).normal(0, 40, (40, 60))
    small = np.clip(128 + 90 * (y - 12 - 0.23 * x) + noise, 0, 255).astype(np.uint8)
    levels = np.asarray(cv2.resize(small, (60 * times, 40 * times), interpolation=cv2.INTER_LINEAR_EXACT))
    outline = alpha_of(levels, 0.5).sum(axis=0)[5 * times : -5 * times]
    steps = (levels >= 128).sum(axis=0)[5 * times : -5 * times]
    positions = np.arange(len(outline))

    def roughness(rows: np.ndarray) -> float:
        return float(np.abs(rows - np.polyval(np.polyfit(positions, rows, 1), positions)).mean())

    assert roughness(outline) < 0.85 * roughness(steps)


def test_a_smoothed_outline_stays_in_place() -> None:
    levels = ellipse((320, 480))
    mask, opaque = levels >= 128, alpha_of(levels, 0.5) > 0.5
    assert (mask != opaque).sum() < 0.005 * mask.sum()
    assert opaque.sum() == pytest.approx(mask.sum(), rel=0.002)


@pytest.mark.parametrize("slope", [4, 10, 30])
def test_an_edge_has_the_same_width_however_soft_the_levels_are(slope: float) -> None:
    alpha = alpha_of(ramp((9, 90), slope), 0.5)[4]
    soft = np.flatnonzero((alpha > 0) & (alpha < 1))
    assert EDGE - 1 <= len(soft) <= EDGE + 1
    assert soft.mean() == pytest.approx(44.5, abs=0.51)
    assert (np.diff(alpha) >= 0).all()


def test_an_edge_is_half_opaque_between_the_mask_and_the_rest() -> None:
    """Level 128 is in the mask and level 127 is not, so the outline is at 127.5."""
    levels = ramp((9, 90), 5)
    assert levels[4, 44:46].tolist() == [125, 130]
    assert alpha_of(levels, 0.5)[4, 44:46].sum() == pytest.approx(1, abs=0.005)


def test_a_large_photo_has_a_wider_edge() -> None:
    alpha = alpha_of(ramp((3, 4 * 1918), 2), 0.5)[1]
    assert ((alpha > 0) & (alpha < 1)).sum() == pytest.approx(4 * EDGE, abs=1)


def test_a_step_stays_sharp() -> None:
    levels = np.zeros((9, 20), np.uint8)
    levels[:, 10:] = 255
    alpha = alpha_of(levels, 0.5)[4]
    assert (alpha[:9] == 0).all()
    assert (alpha[11:] == 1).all()


@pytest.mark.parametrize(("value", "opacity"), [(0, 0), (60, 0), (255, 1), (190, 1)])
def test_even_levels_are_opaque_or_empty(value: int, opacity: int) -> None:
    assert (alpha_of(np.full(SHAPE, value, np.uint8), 0.5) == opacity).all()


@settings(max_examples=25, deadline=None)
@given(LEVELS, st.sampled_from([*KINDS, "white", "#123456"]))
def test_every_kind_fits_the_photo(levels: Pixels, kind: str) -> None:
    photo = photo_of(levels.shape)
    given_photo, given_levels = photo.copy(), levels.copy()
    picture = render(photo, levels, 0.5, kind)
    channels = {"rgba": (4,), "mask": (), "soft": ()}.get(kind, (3,))
    assert (picture.dtype, picture.shape) == (np.uint8, (*levels.shape, *channels))
    assert np.array_equal(photo, given_photo)
    assert np.array_equal(levels, given_levels)


def test_rgba_has_the_cleaned_colours_and_the_soft_edge() -> None:
    photo, levels = photo_of(SHAPE), ellipse(SHAPE)
    alpha = alpha_of(levels, 0.5)
    picture = render(photo, levels, 0.5, "rgba")
    assert np.array_equal(picture[..., :3], foreground(photo, alpha))
    assert np.array_equal(picture[..., 3], np.rint(alpha * 255))
    opaque = picture[..., 3] == 255
    assert opaque.any()
    assert np.array_equal(picture[opaque][:, :3], photo[opaque])


def test_a_thin_part_is_translucent_where_its_probability_is_low() -> None:
    """Its ridge is neither opaque nor lost, although the levels do not rise there."""
    heights = np.linspace(100, 160, SHAPE[0])
    across = np.exp(-((np.arange(SHAPE[1]) - 45) ** 2) / 4)
    alpha = alpha_of(np.rint(np.outer(heights, across)).astype(np.uint8), 0.5)[:, 45]
    assert np.diff(alpha).min() >= 0
    assert np.diff(alpha).max() < 0.1
    assert 0 < alpha[0] < 0.5 < alpha[-1] < 1


def test_pictures_of_one_photo_share_opacity_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, levels = photo_of(SHAPE), ellipse(SHAPE)
    kinds = [*KINDS, "white", "black"]
    apart = [render(photo, levels, 0.5, kind) for kind in kinds]
    calls: list[int] = []
    monkeypatch.setattr(rendering, "foreground", lambda *arguments: calls.append(1) or foreground(*arguments))
    renderer = Renderer(photo, levels, 0.5)
    assert all(np.array_equal(renderer.render(kind), picture) for kind, picture in zip(kinds, apart, strict=True))
    assert len(calls) == 1


def test_soft_is_the_levels() -> None:
    levels = ellipse(SHAPE)
    assert np.array_equal(render(photo_of(SHAPE), levels, 0.5, "soft"), levels)


@pytest.mark.parametrize(
    ("name", "colour"), [("white", (255, 255, 255)), ("Gray", (128, 128, 128)), ("#ff8800", (255, 136, 0))]
)
def test_a_colour_is_what_a_viewer_shows_behind_the_cut_out(name: str, colour: tuple[int, int, int]) -> None:
    photo, levels = photo_of(SHAPE), ellipse(SHAPE)
    shown = Image.new("RGBA", SHAPE[::-1], colour)
    shown.alpha_composite(Image.fromarray(render(photo, levels, 0.5, "rgba")))
    picture = render(photo, levels, 0.5, name)
    assert np.abs(picture.astype(int) - np.asarray(shown)[..., :3]).max() <= 1
    assert (picture[levels == 0] == colour).all()


@pytest.mark.parametrize("shade", [0, 255])
@pytest.mark.parametrize("shape", [(50, 80), (640, 960)])
def test_an_overlay_is_visible_on_black_and_on_white(shade: int, shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), shade, np.uint8)
    levels = ellipse(shape)
    picture = render(photo, levels, 0.5, "overlay")
    mask = levels >= 128
    inside = cv2.erode(mask.astype(np.uint8), np.ones((15, 15), np.uint8), borderValue=0) > 0
    changed = np.abs(picture.astype(int) - photo).max(axis=-1)
    assert (changed[inside] >= 30).all()
    outside = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) == 0
    assert not changed[outside].any()
    outline = mask & ~inside
    assert (picture[outline].max(axis=-1) > 200).any()
    assert (picture[outline].min(axis=-1) < 20).any()


@pytest.mark.parametrize("kind", [*KINDS, "white", "black", "red", "#ff8800", "#f80"])
def test_a_kind_or_a_colour_is_accepted(kind: str) -> None:
    require_kind(kind)


@pytest.mark.parametrize("kind", ["", "RGBA", "jpg", "#ff880", "#ff880080", "masks", "transparent"])
def test_another_kind_is_an_error_that_lists_them(kind: str) -> None:
    with pytest.raises(Failure, match=r"TYPE=.*rgba, mask, soft, overlay, or a colour such as white"):
        require_kind(kind)


def test_a_crop_contains_the_object_with_a_margin() -> None:
    levels = np.zeros((200, 300), np.uint8)
    levels[50:90, 100:200] = 255
    assert crop_box(levels, 0.5, 0.1) == (slice(40, 100), slice(90, 210))
    rows, columns = crop_box(levels, 0.5, 0)
    assert (alpha_of(levels, 0.5)[rows, columns] > 0).sum() == (alpha_of(levels, 0.5) > 0).sum()
    assert crop_box(levels, 0.5, 5) == (slice(0, 200), slice(0, 300))


@settings(max_examples=50, deadline=None)
@given(LEVELS, st.sampled_from([0.0, 0.05, 1.0]))
def test_a_crop_loses_nothing(levels: Pixels, margin: float) -> None:
    box = crop_box(levels, 0.5, margin)
    mask = levels >= 128
    assert mask[box].sum() == mask.sum()
    assert levels[box].size > 0
    if not mask.any():
        assert levels[box].shape == levels.shape


def test_starts_without_torch_and_pandas() -> None:
    code = "import sys, inference.cutouts.rendering\n"
    code += "assert not {'torch', 'pandas', 'pydantic', 'tqdm', 'yaml'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
