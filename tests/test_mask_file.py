"""Masks of every kind of image file."""

from pathlib import Path

import numpy as np
import pytest
from conftest import save_mask
from numpy.typing import NDArray
from PIL import Image

from competition.command import Failure
from competition.images import shape_of
from competition.mask_file import read_mask

H, W = 101, 150


def save(path: Path, values: NDArray[np.uint8]) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.fixture(scope="module")
def mask() -> NDArray[np.uint8]:
    y, x = np.mgrid[:H, :W]
    return ((y - 50) ** 2 + (x - 70) ** 2 < 40**2).astype(np.uint8)


def is_mask(read: NDArray[np.uint8], mask: NDArray[np.uint8]) -> bool:
    return read.dtype == np.uint8 and read.shape == mask.shape and bool((read == mask).all())


def test_carvanas_masks_are_palette_gifs_of_0_and_1(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    save_mask(tmp_path / "a.gif", mask)
    assert is_mask(read_mask(tmp_path / "a.gif"), mask)
    assert shape_of(tmp_path / "a.gif") == (H, W)


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1", "I;16"])
def test_masks_of_every_kind(tmp_path: Path, mask: NDArray[np.uint8], mode: str, value: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16) * (value * 257 if value == 255 else 1))
    else:
        image = Image.fromarray(mask * 255 if mode == "1" else mask * value).convert(mode)
    image.save(tmp_path / "a.png")
    assert is_mask(read_mask(tmp_path / "a.png"), mask)


@pytest.mark.parametrize("suffix", ["gif", "png"])
@pytest.mark.parametrize("white_first", [False, True])
@pytest.mark.parametrize("inside", [0, 1])
def test_a_palette_says_which_index_is_car(
    tmp_path: Path, mask: NDArray[np.uint8], suffix: str, white_first: bool, inside: int
) -> None:
    mask = mask if inside else 1 - mask
    image = Image.frombytes("P", (W, H), (mask ^ white_first).tobytes())
    image.putpalette([255, 255, 255, 0, 0, 0] if white_first else [0, 0, 0, 255, 255, 255])
    image.save(tmp_path / f"a.{suffix}")
    assert is_mask(read_mask(tmp_path / f"a.{suffix}"), mask)


@pytest.mark.parametrize(("value", "paletted"), [(0, False), (1, False), (255, False), (0, True), (255, True)])
def test_a_mask_of_one_value(tmp_path: Path, value: int, paletted: bool) -> None:
    image = Image.fromarray(np.full((4, 6), 0 if paletted else value, dtype=np.uint8))
    if paletted:
        image.putpalette([value] * 3)
    image.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[min(value, 1)] * 6] * 4


@pytest.mark.parametrize("paletted", [False, True])
def test_smoothed_edges_are_thresholded_at_half(tmp_path: Path, paletted: bool) -> None:
    levels = np.array([[0, 1, 100, 127, 128, 200, 255]], dtype=np.uint8)
    image = Image.fromarray(levels)
    if paletted:  # the indices are not gray levels: they follow a descending order
        order = np.unique(levels)[::-1]
        image = Image.frombytes("P", (7, 1), bytes(order.tolist().index(level) for level in levels[0]))
        image.putpalette([int(grey) for grey in order for _ in range(3)])
    image.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def test_every_color_is_car(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    for channel in range(3):
        painted = np.zeros((H, W, 3), dtype=np.uint8)
        painted[..., channel] = 255 * mask
        assert is_mask(read_mask(save(tmp_path / "a.png", painted)), mask)


@pytest.mark.parametrize("suffix", ["png", "gif"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.9])
def test_a_truncated_mask_is_rejected(tmp_path: Path, part: float, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    save_mask(path, np.random.default_rng(1).integers(0, 2, (H, W), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(Failure, match=f"{path} is .*; copy it again"):
        read_mask(path)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_png_that_ends_in_zeros_is_rejected(tmp_path: Path, mask: NDArray[np.uint8], part: float) -> None:
    path = save(tmp_path / "a.png", 255 * mask)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))].ljust(len(content), b"\0"))
    with pytest.raises(Failure, match=f"{path} is (damaged|not an image)"):
        read_mask(path)


def test_missing_empty_and_not_an_image(tmp_path: Path) -> None:
    missing, empty, text = (tmp_path / name for name in ("missing.png", "empty.png", "text.png"))
    empty.touch()
    text.write_text("<html>404</html>")
    for path, reason in (
        (missing, f"cannot read {missing}: no such file or folder"),
        (empty, f"{empty} is empty; copy it again"),
        (text, f"{text} is not an image; copy it again"),
        (tmp_path, f"cannot read {tmp_path}: "),
    ):
        with pytest.raises(Failure, match=reason):
            read_mask(path)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_damage_anywhere_is_a_failure_or_a_mask(tmp_path: Path, mask: NDArray[np.uint8], suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", 255 * mask)
    content, rng = path.read_bytes(), np.random.default_rng(1)
    for position, value in zip(rng.integers(0, len(content), 60), rng.integers(0, 256, 60), strict=True):
        path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
        try:
            read_mask(path)
        except Failure as failure:
            assert str(path) in str(failure)
