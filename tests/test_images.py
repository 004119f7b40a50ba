import io
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from competition import images
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


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    """A PNG without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiff(pixels: NDArray[np.generic], tags: dict[int, list[int]], endian: str = "<") -> bytes:
    """An uncompressed TIFF of any type of pixels; Pillow and OpenCV cannot write all of them."""
    height, width, channels = (*pixels.shape, 1)[:3]
    data = pixels.astype(pixels.dtype.newbyteorder(endian)).tobytes()
    entries = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * channels, 262: [2 if channels > 2 else 1]}
    entries |= {259: [1], 273: [0], 277: [channels], 278: [height], 279: [len(data)]}
    entries |= ({338: [2]} if channels == 4 else {}) | tags
    end = 8 + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack(endian + "H", len(entries)), b""
    entries[273] = [end + sum(2 * len(values) for values in entries.values() if len(values) > 2)]
    for tag, values in sorted(entries.items()):
        kind, code = (4, "I") if tag in (256, 257, 273, 278, 279) else (3, "H")
        value = struct.pack(f"{endian}{len(values)}{code}", *values)
        if len(value) > 4:
            value, extra = struct.pack(endian + "I", end + len(extra)), extra + value
        directory += struct.pack(endian + "HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    start = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", 8)
    return start + directory + bytes(4) + extra + data


def animation(picture: NDArray[np.uint8], kind: str) -> bytes:
    buffer = io.BytesIO()
    first, second = Image.fromarray(picture), Image.fromarray(255 - picture)
    first.save(buffer, kind, save_all=True, append_images=[second])
    return buffer.getvalue()


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


def test_the_orientation_of_a_png_may_follow_its_pixels(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = save(tmp_path / "a.png", picture)
    content, tag = path.read_bytes(), exif(6).tobytes()[6:]
    path.write_bytes(content[:-12] + chunk(b"eXIf", tag) + content[-12:])
    np.testing.assert_array_equal(read_rgb(path, upright=True), turned(picture, 6))


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "bmp", "jpg"])
def test_other_kinds_of_photo_become_rgb(tmp_path: Path, picture: NDArray[np.uint8], mode: str, suffix: str) -> None:
    image = Image.fromarray(picture).convert(mode)
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    if (mode, suffix) in {
        ("CMYK", "png"),
        ("LA", "bmp"),
        ("CMYK", "bmp"),
        *((m, "jpg") for m in ("RGBA", "LA", "P")),
    }:
        return  # there is no such file
    image.save(path, **options)
    read = read_rgb(path)
    assert read.shape == (H, W, 3)
    assert difference(read, np.asarray(image.convert("RGB"))) < (6 if suffix == "jpg" else 0.5)


def test_transparency_is_ignored(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    """The colors are those of the file, however transparent: the background would be a choice of the viewer."""
    cutout = np.dstack([picture, picture[..., 1]])
    for suffix, options in (("png", {}), ("webp", {"lossless": True, "exact": True}), ("tif", {"exif": exif(6)})):
        read = read_rgb(save(tmp_path / f"a.{suffix}", cutout, **options))
        np.testing.assert_array_equal(read, picture)


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bits_are_scaled_to_8(tmp_path: Path, picture: NDArray[np.uint8], endian: str, orientation: int) -> None:
    deep = picture.astype(np.uint16) * 257
    for pixels, expected in (
        (deep, picture),
        (deep[..., 0], np.dstack([picture[..., 0]] * 3)),
        (np.dstack([deep, deep[..., 1]]), picture),
    ):
        (tmp_path / "a.tif").write_bytes(tiff(pixels, {TAG: [orientation]}, endian))
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), expected)
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif", upright=True), turned(expected, orientation))
        channels = [2, 1, 0, 3][: pixels.shape[-1]]
        cv2.imwrite(str(tmp_path / "a.png"), pixels if pixels.ndim == 2 else pixels[..., channels])
        np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_may_store_white_as_zero(tmp_path: Path, picture: NDArray[np.uint8], dtype: type) -> None:
    gray = picture[..., 0]
    (tmp_path / "a.tif").write_bytes(
        tiff((255 - gray).astype(dtype) * (257 if dtype == np.uint16 else 1), {262: [0]})
    )
    assert difference(read_rgb(tmp_path / "a.tif"), np.dstack([gray] * 3)) < 1


def test_of_a_tiff_with_several_pages_the_first_is_read(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    first, *rest = (Image.fromarray(page) for page in (picture, 255 - picture, picture[:50]))
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    assert shape_of(tmp_path / "a.tif") == (H, W)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), picture)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_the_content_decides_not_the_suffix(tmp_path: Path, picture: NDArray[np.uint8], kind: str) -> None:
    gray = picture[..., 0]
    for suffix in ("jpg", "png", "tif"):
        Image.fromarray(gray).save(tmp_path / f"a.{suffix}", kind)
        assert difference(read_rgb(tmp_path / f"a.{suffix}"), np.dstack([gray] * 3)) < 2
        assert shape_of(tmp_path / f"a.{suffix}") == (H, W)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            lambda picture: tiff((picture / 255).astype(np.float32)[..., 0], {339: [3]}),
            "has pixels of a type that cannot",
        ),
        (
            lambda picture: tiff(picture.astype(np.int16)[..., 0], {339: [2]}),
            "has pixels of a type that cannot be read",
        ),
        (lambda picture: tiff(picture, {262: [8]}), r"has pixels of a type that cannot be read \(LAB\); save it as"),
        (lambda picture: tiff(picture, {254: [1]}), "is a raw photo of a camera; save it as JPEG or PNG"),
        (lambda picture: tiff(picture, {262: [32803]}), "is a TIFF of an unusual kind, which cannot be read"),
        (
            lambda _: b"\0\0\0\x1cftypavif" + bytes(50),
            "is an AVIF image, which cannot be read; save it as JPEG or PNG",
        ),
        (lambda _: b"8BPS" + bytes(50), "is a Photoshop document, which cannot be read"),
        (lambda picture: animation(picture, "GIF"), "is an animation; save one of its pictures as JPEG or PNG"),
        (lambda picture: animation(picture, "PNG"), "is an animation"),
        (lambda picture: animation(picture, "WEBP"), "is an animation"),
    ],
)
def test_what_cannot_be_read_correctly_is_named(
    tmp_path: Path, picture: NDArray[np.uint8], content: Callable[[NDArray[np.uint8]], bytes], reason: str
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content(picture))
    with pytest.raises(Failure, match=f"{path} {reason}"):
        read_rgb(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_one_limit_of_the_size_for_all(
    tmp_path: Path, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = save(tmp_path / f"a.{suffix}", picture)
    monkeypatch.setattr(images, "MOST_PIXELS", H * W)
    assert read_rgb(path).shape[:2] == shape_of(path) == (H, W)
    path = save(tmp_path / f"b.{suffix}", picture)
    monkeypatch.setattr(images, "MOST_PIXELS", H * W - 1)
    for read in (read_rgb, shape_of, orientation_of, lambda path: read_halved(path, (5, 5))):
        with pytest.raises(Failure, match=f"{path} is {W} x {H}, 0 megapixels; photos of up to 0 are read: scale it"):
            read(path)


def test_pillows_limit_of_the_size_does_not_apply(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Pillow warns from 90 megapixels on, and fails from 180."""
    path = tmp_path / "a.png"
    path.write_bytes(png_header(20_000, 10_000))
    with warnings.catch_warnings(record=True) as caught:
        assert shape_of(path) == (10_000, 20_000)
    assert not caught
    assert capfd.readouterr() == ("", "")


def test_heic_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for read in (read_rgb, shape_of):
        with pytest.raises(
            Failure, match=f"{path} is a HEIC photo; `pip install pillow-heif` to read it, or save it as"
        ):
            read(path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_upright(tmp_path: Path, picture: NDArray[np.uint8], orientation: int) -> None:
    """The decoder applies the orientation, so the stored photo is the displayed one."""
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    heif.from_pillow(Image.fromarray(picture[:100])).save(path, quality=95, exif=exif(orientation).tobytes())
    displayed = np.asarray(ImageOps.exif_transpose(heif.open_heif(path).to_pillow()))
    for upright in (False, True):
        assert shape_of(path, upright=upright) == displayed.shape[:2]
        assert difference(read_rgb(path, upright=upright), displayed) < 1
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(Failure, match=f"{path} is (damaged|not an image)"):
        read_rgb(path)


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
    path = tmp_path / "a.png"
    path.write_bytes(png_header(100_000, 100_000))
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


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "lzw", "gif"])
def test_damage_anywhere_is_a_failure_or_an_image(
    tmp_path: Path, picture: NDArray[np.uint8], capfd: pytest.CaptureFixture[str], suffix: str
) -> None:
    """OpenCV, Pillow and the libraries that they call print nothing; only libjpeg does, which cannot be silenced."""
    path = tmp_path / f"a.{suffix}"
    kind = {"jpg": "jpeg", "tif": "tiff", "lzw": "tiff"}.get(suffix, suffix)
    options = (
        {"compression": "tiff_lzw"} if suffix == "lzw" else {} if suffix in ("gif", "bmp") else {"exif": exif(6)}
    )
    Image.fromarray(picture).save(path, kind, **options)
    content, rng = path.read_bytes(), np.random.default_rng(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # pytest has replaced the filters
        for number, position in enumerate([*rng.integers(0, len(content), 60), *range(1, 300, 5)]):
            damaged = content[: position + 1] if number % 4 == 0 else content
            path.write_bytes(damaged[:position] + rng.bytes(1 + number % 3) + damaged[position + 3 :])
            for upright in (False, True):
                try:
                    assert read_rgb(path, upright=upright).shape[:2] == shape_of(path, upright=upright)
                except Failure as failure:
                    assert str(path) in str(failure)
    assert not caught
    assert suffix == "jpg" or capfd.readouterr() == ("", "")


def test_a_file_that_was_replaced_has_its_new_size(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    for height in (H, 50):
        path = save(tmp_path / "a.png", picture[:height])
        os.utime(path, ns=(1, 1))
        assert shape_of(path) == (height, W)
