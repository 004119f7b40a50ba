import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from competition.command import Failure
from competition.exif import TAG, turned
from competition.images import orientation_of, read_halved, read_rgb, shape_of

H, W = 101, 150
# Orientations that do not reverse the stored rows, and the stored columns.
WHOLE = ({1, 2, 5, 8}, {1, 4, 5, 6})


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Smooth, so that JPEG changes it little, and different when mirrored, rotated, or with swapped channels."""
    y, x = np.mgrid[:H, :W]
    return np.stack([255 * x // W, 255 * y // H, 120 - x // 2], axis=2).astype(np.uint8)


def save(path: Path, picture: NDArray[np.uint8], **options: object) -> Path:
    Image.fromarray(picture).save(path, **options)
    return path


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_photos_are_read_as_rgb(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    read = read_rgb(save(tmp_path / "a.png", picture))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, picture)
    halved, divisor = read_halved(tmp_path / "a.png", at_least=(10, 10))
    assert (halved.shape, divisor) == ((H, W, 3), 1), "only a JPEG is halved"


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[TAG] = orientation
    return made


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_exif_orientation_is_applied_or_ignored(
    tmp_path: Path, picture: NDArray[np.uint8], suffix: str, orientation: int
) -> None:
    options = {"quality": 95} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", picture, exif=exif(orientation), **options)
    displayed = np.asarray(ImageOps.exif_transpose(Image.fromarray(picture) if suffix == "tif" else Image.open(path)))
    if suffix == "tif":
        displayed = turned(picture, orientation)
    assert orientation_of(path) == orientation
    assert shape_of(path) == picture.shape[:2]
    assert shape_of(path, upright=True) == displayed.shape[:2]
    for upright, expected in ((False, picture), (True, displayed)):
        read = read_rgb(path, upright=upright)
        assert read.shape == expected.shape
        assert difference(read, expected) < (2 if suffix == "jpg" else 0.001)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(96, 144), (95, 144), (96, 143), (95, 143)])
def test_halving_keeps_the_partial_row_and_column_last(
    tmp_path: Path, picture: NDArray[np.uint8], size: tuple[int, int], orientation: int
) -> None:
    """Where turning would make it the first one, the photo is not halved."""
    path = save(tmp_path / "a.jpg", picture[: size[0], : size[1]], quality=95, exif=exif(orientation))
    displayed = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    height, width = displayed.shape[:2]
    for needed in ((height // 2, 5), (5, width // 2)):
        read, divisor = read_halved(path, needed, upright=True)
        first_is_whole = tuple(side % 2 == 0 or orientation in whole for side, whole in zip(size, WHOLE, strict=True))
        assert divisor == (2 if all(first_is_whole) else 1)
        assert read.shape[:2] == (-(-height // divisor), -(-width // divisor))
        whole = np.pad(displayed, [(0, height % divisor), (0, width % divisor), (0, 0)], mode="edge")
        assert difference(read, cv2.resize(whole, read.shape[1::-1], interpolation=cv2.INTER_AREA)) < 3
    assert read_halved(path, (height // 2 + 1, 5), upright=True)[1] == 1
    assert read_halved(path, (5, 5))[1] == 2, "stored pixels are always halved"


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_none(tmp_path: Path, picture: NDArray[np.uint8], value: int) -> None:
    assert orientation_of(save(tmp_path / "a.jpg", picture, exif=exif(value))) == 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK"])
def test_other_kinds_of_photo_become_rgb(tmp_path: Path, picture: NDArray[np.uint8], mode: str) -> None:
    image = Image.fromarray(picture).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    read = read_rgb(path)
    assert read.shape == (H, W, 3)
    assert difference(read, np.asarray(image.convert("RGB"))) < 6


@pytest.mark.parametrize(
    ("size", "at_least", "divisor"),
    [
        ((96, 144), (96, 144), 1),
        ((96, 144), (48, 72), 2),
        ((96, 144), (49, 72), 1),
        ((96, 144), (48, 73), 1),
        ((96, 144), (500, 10), 1),
        ((96, 141), (48, 70), 2),
        ((93, 144), (46, 72), 2),
        ((93, 141), (10, 10), 2),
    ],
)
def test_a_jpeg_is_halved_but_never_smaller_than_needed(
    tmp_path: Path, picture: NDArray[np.uint8], size: tuple[int, int], at_least: tuple[int, int], divisor: int
) -> None:
    cut = picture[: size[0], : size[1]]
    read, by = read_halved(save(tmp_path / "a.jpg", cut, quality=95), at_least)
    assert by == divisor
    assert read.shape[:2] == tuple(-(-side // divisor) for side in size)
    beyond = [(0, len_ * divisor - side) for len_, side in zip(read.shape, size, strict=False)]
    whole = np.pad(cut, [*beyond, (0, 0)], mode="edge")
    assert difference(read, cv2.resize(whole, read.shape[1::-1], interpolation=cv2.INTER_AREA)) < 3


def jpeg(picture: NDArray[np.uint8], **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
def test_a_truncated_jpeg_is_rejected(
    tmp_path: Path, picture: NDArray[np.uint8], part: float, progressive: bool
) -> None:
    content = jpeg(picture, progressive=progressive)
    path = tmp_path / "a.jpg"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(Failure, match=f"{path} is .*; copy it again from its source"):
        read_rgb(path)


@pytest.mark.parametrize("tail", [100, 100_000])
def test_a_jpeg_that_ends_in_zeros_is_rejected(tmp_path: Path, picture: NDArray[np.uint8], tail: int) -> None:
    """An interrupted copy may leave such a file; decoders read the zeros as image data."""
    content = jpeg(picture)
    path = tmp_path / "a.jpg"
    path.write_bytes(content[: len(content) // 2] + bytes(tail))
    with pytest.raises(Failure, match=f"{path} is damaged"):
        read_rgb(path)


@pytest.mark.parametrize("trailer", [bytes(5000), b"maker's note" * 500, b"\n"])
def test_data_after_the_end_of_a_jpeg_is_ignored(tmp_path: Path, picture: NDArray[np.uint8], trailer: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(picture) + trailer)
    assert difference(read_rgb(path), picture) < 2


@pytest.mark.parametrize("part", [0.01, 0.5, 0.9])
def test_a_truncated_png_is_rejected(tmp_path: Path, part: float) -> None:
    path = save(tmp_path / "a.png", np.random.default_rng(1).integers(0, 2, (H, W), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(Failure, match=f"{path} is .*; copy it again"):
        read_rgb(path)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_png_that_ends_in_zeros_is_rejected(tmp_path: Path, part: float) -> None:
    mask = np.zeros((H, W), np.uint8)
    mask[H // 4 : H // 2, W // 5 :: 2] = 255
    path = save(tmp_path / "a.png", np.dstack([mask] * 3))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))].ljust(len(content), b"\0"))
    with pytest.raises(Failure, match=f"{path} is (damaged|not an image)"):
        read_rgb(path)


def test_a_header_with_far_too_many_pixels_is_rejected(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    path = tmp_path / "a.png"
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    for read in (read_rgb, shape_of):
        with pytest.raises(Failure, match=f"{path} is 100000 x 100000, 10000 megapixels; photos of up to 250 are"):
            read(path)


@pytest.mark.parametrize("read", [read_rgb, shape_of])
def test_missing_empty_and_not_an_image(tmp_path: Path, read: object) -> None:
    missing, empty, text = (tmp_path / name for name in ("missing.jpg", "empty.jpg", "text.jpg"))
    empty.touch()
    text.write_text("<html>404</html>")
    for path, reason in (
        (missing, f"cannot read {missing}: no such file or folder"),
        (empty, f"{empty} is empty; copy it again"),
        (text, f"{text} is (damaged or )?not .*image; copy it again"),
        (tmp_path, f"cannot read {tmp_path}: "),
    ):
        with pytest.raises(Failure, match=reason):
            read(path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_damage_anywhere_is_a_failure_or_an_image(tmp_path: Path, picture: NDArray[np.uint8], suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", picture)
    content, rng = path.read_bytes(), np.random.default_rng(1)
    for position, value in zip(rng.integers(0, len(content), 60), rng.integers(0, 256, 60), strict=True):
        path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
        for read in (read_rgb, shape_of):
            try:
                read(path)
            except Failure as failure:
                assert str(path) in str(failure)


def test_a_file_that_was_replaced_has_its_new_size(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    for height in (H, 50):
        path = save(tmp_path / "a.png", picture[:height])
        os.utime(path, ns=(1, 1))
        assert shape_of(path) == (height, W)
