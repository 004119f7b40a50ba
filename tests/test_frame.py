"""The frame: photos to the input size of the network, and predictions back to full size."""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from competition import metrics, rle
from competition.command import Failure
from competition.data_folder import photo_at
from competition.images import Pixels, read_rgb
from competition.settings.schema import Input, Settings
from folds.frame import Frame

FULL = (1280, 1918)


def write_photo(path: Path, shape: tuple[int, int], seed: int = 0) -> Pixels:
    """A lossless photo of noise; returns its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return pixels


def car_like(shape: tuple[int, int]) -> Pixels:
    """A body, wheels, a mirror and a thin antenna, at the scale of Carvana's photos."""
    height, width = shape
    mask = np.zeros(shape, dtype=np.uint8)
    at = (np.array([width, height]) / 1000).tolist()

    def point(x: float, y: float) -> tuple[int, int]:
        return round(x * at[0]), round(y * at[1])

    body = [point(150, 480), point(300, 460), point(380, 330), point(640, 320), point(760, 470), point(860, 520)]
    outline = np.array([*body, point(870, 700), point(140, 700)], dtype=np.int32)
    cv2.fillPoly(mask, [outline], 1)
    for x in (280, 720):
        cv2.circle(mask, point(x, 700), round(0.075 * height), 1, -1)
    cv2.ellipse(mask, point(370, 470), (round(0.02 * width), round(0.02 * height)), 20, 0, 360, 1, -1)
    cv2.line(mask, point(600, 320), point(630, 250), 1, 2)
    return mask


def test_the_settings_describe_the_frame() -> None:
    assert Frame.of(Settings().input) == Frame(256, 384, "resize")
    assert Frame.of(Input(height=1280, width=1920, fit="pad")) == Frame(1280, 1920, "pad")


def test_padding_keeps_every_pixel_and_is_cropped_exactly(tmp_path: Path) -> None:
    photo, frame = write_photo(tmp_path / "car.png", (60, 93)), Frame(64, 96, "pad")
    seen = frame.read(photo_at(tmp_path / "car.png"))
    assert (seen.shape, seen.dtype) == ((64, 96, 3), np.uint8)
    assert np.array_equal(seen[:60, :93], photo)
    assert np.array_equal(seen[:60, 93:], photo[:, [-1, -1, -1]])
    assert np.array_equal(seen[60:, :93], photo[[-1, -1, -1, -1]])
    assert np.array_equal(frame.full_size(seen[..., 0], (60, 93)), photo[..., 0])
    mask = (photo[..., 0] > 127).astype(np.uint8)
    target = frame.target(mask)
    assert (target.shape, target.dtype) == ((64, 96), np.uint8)
    assert np.array_equal(frame.full_size(target, (60, 93)), mask * 255)


@pytest.mark.parametrize("shape", [(65, 64), (64, 97), (100, 200)])
def test_a_photo_larger_than_a_padding_frame_is_an_error(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_photo(tmp_path / "car.png", shape)
    with pytest.raises(Failure, match=rf"car.png is {shape[1]} x {shape[0]}, larger than the frame of 96 x 64") as no:
        Frame(64, 96, "pad").read(photo_at(tmp_path / "car.png"))
    assert "input.height" in str(no.value)


def test_resizing_gives_the_frames_size_and_colours(tmp_path: Path) -> None:
    pixels = np.zeros((128, 192, 3), dtype=np.uint8)
    pixels[:, :96] = (200, 100, 50)
    cv2.imwrite(str(tmp_path / "car.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    seen = Frame(64, 96, "resize").read(photo_at(tmp_path / "car.png"))
    assert seen.shape == (64, 96, 3)
    assert seen[10, 10].tolist() == [200, 100, 50]
    assert seen[10, 90].tolist() == [0, 0, 0]


def test_a_photo_of_the_frames_size_is_unchanged(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "car.png", (64, 96))
    assert np.array_equal(Frame(64, 96, "resize").read(photo_at(tmp_path / "car.png")), photo)


def test_a_jpeg_read_at_a_fraction_looks_the_same(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(write_photo(tmp_path / "noise.png", (512, 768)), (0, 0), 12)
    cv2.imwrite(str(tmp_path / "car.jpg"), smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])
    seen = Frame(64, 96, "resize").read(photo_at(tmp_path / "car.jpg")).astype(float)
    whole = cv2.resize(read_rgb(tmp_path / "car.jpg"), (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(seen - whole).mean() < 1.5


@pytest.mark.parametrize("size", [(64, 96), (48, 72), (32, 48), (256, 48), (32, 384)])
@pytest.mark.parametrize("columns", [192, 193])
@pytest.mark.parametrize("column", [8, 150])
def test_an_edge_in_a_jpeg_has_the_position_of_its_mask(
    tmp_path: Path, size: tuple[int, int], columns: int, column: int
) -> None:
    """Half of 193 columns is not whole: libjpeg gives 97, which would shift the right end by half a column."""
    # A slanted edge averages over columns; a vertical edge would only show which column a resize samples.
    slanted = column + np.linspace(0, 30, 128)
    photo = (np.arange(columns) < slanted[:, None]).astype(np.uint8) * np.uint8(255)
    frame = Frame(*size, "resize")
    cv2.imwrite(str(tmp_path / "car.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 95])
    cv2.imwrite(str(tmp_path / "car.png"), photo)
    jpeg, png = (
        frame.read(photo_at(tmp_path / name))[..., 0].mean(axis=0).sum() / 255 for name in ("car.jpg", "car.png")
    )
    assert jpeg == pytest.approx(png, abs=0.02)
    assert png == pytest.approx(frame.target(photo // 255).mean(axis=0).sum() / 255, abs=0.02)


def test_a_much_smaller_photo_is_averaged_by_area(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "car.png", (150, 300))
    seen = Frame(64, 96, "resize").read(photo_at(tmp_path / "car.png"))
    assert np.array_equal(seen, cv2.resize(photo, (96, 64), interpolation=cv2.INTER_AREA))


def test_a_slightly_smaller_photo_is_close_to_the_average_by_area(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(write_photo(tmp_path / "noise.png", (120, 180)), (0, 0), 2)
    cv2.imwrite(str(tmp_path / "car.png"), smooth)
    seen = Frame(64, 96, "resize").read(photo_at(tmp_path / "car.png")).astype(float)
    averaged = cv2.resize(read_rgb(tmp_path / "car.png"), (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(seen - averaged).mean() < 1


@pytest.mark.parametrize("size", [(64, 96), (320, 480), (1024, 1024)])
def test_the_target_is_averaged_by_area(size: tuple[int, int]) -> None:
    mask = car_like(FULL)
    target = Frame(*size, "resize").target(mask)
    assert (target.shape, target.dtype) == (size, np.uint8)
    assert target.mean() / 255 == pytest.approx(mask.mean(), abs=2e-4)
    assert ((target > 0) & (target < 255)).any(), "the outline must be soft"


def test_a_target_pixel_is_the_covered_fraction() -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, :3] = 1
    mask[:2, 4] = 1
    target = Frame(32, 32, "resize").target(mask)
    assert target[0, :4].tolist() == [255, 128, 128, 0]
    assert target[1, :4].tolist() == [255, 128, 0, 0]


@pytest.mark.parametrize(
    ("size", "least"), [((320, 480), 0.996), ((512, 512), 0.998), ((1024, 1024), 0.9995), ((256, 384), 0.995)]
)
def test_a_perfect_prediction_has_an_almost_perfect_score(size: tuple[int, int], least: float) -> None:
    mask = car_like(FULL)
    frame = Frame(*size, "resize")
    full = frame.full_size(frame.target(mask), FULL)
    assert (full.shape, full.dtype) == (FULL, np.uint8)
    assert metrics.dice(full >= 128, mask) > least


@pytest.mark.parametrize("size", [(32, 64), (64, 96), (47, 31), (64, 128)])
@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_the_target_of_spans_is_that_of_their_mask(size: tuple[int, int], fit: Literal["resize", "pad"]) -> None:
    frame = Frame(size[0] if fit == "resize" else 64, size[1] if fit == "resize" else 128, fit)
    chance = np.random.default_rng(1)
    y, x = np.mgrid[:64, :96]
    masks = [
        chance.integers(0, 2, (64, 96)),
        (y - 30) ** 2 + (x - 50) ** 2 < 500,
        np.ones((64, 96)),
        np.zeros((64, 96)),
        (y * 96 + x > 700) & (y * 96 + x < 2000),  # a span over many rows
    ]
    for mask in masks:
        spans = rle.from_mask(mask.astype(np.uint8))
        ours, theirs = frame.target_of_spans(spans, (64, 96)), frame.target(mask.astype(np.uint8))
        assert ours.dtype == np.uint8
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
