"""Masks of every kind of image file."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import save_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from competition.command import Failure
from competition.images import shape_of
from competition.mask_file import MaskFile, read_mask

H, W = 101, 150
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def mask() -> Pixels:
    y, x = np.mgrid[:H, :W]
    return ((y - 50) ** 2 + (x - 70) ** 2 < 40**2).astype(np.uint8)


@pytest.fixture(scope="module")
def photo() -> Pixels:
    y, x = np.mgrid[:H, :W]
    smooth = np.stack([255 * x // W, 255 * y // H, 120 - x // 2], axis=2)
    return (smooth + np.random.default_rng(1).integers(-5, 6, smooth.shape)).clip(0, 255).astype(np.uint8)


def save(path: Path, values: NDArray[np.generic], **options: object) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def with_palette(indices: Pixels, *colors: tuple[int, int, int]) -> Image.Image:
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette([channel for color in colors for channel in color])
    return image


def reads_as(path: Path, mask: Pixels, values: str) -> bool:
    read = read_mask(path)
    same = read.labels.dtype == np.uint8 and read.labels.shape == mask.shape and bool((read.labels == mask).all())
    return same and str(read.values) == values


def test_carvanas_masks_are_palette_gifs_of_0_and_1(tmp_path: Path, mask: Pixels) -> None:
    save_mask(tmp_path / "a.gif", mask)
    assert reads_as(tmp_path / "a.gif", mask, "0/255")
    assert shape_of(tmp_path / "a.gif") == (H, W)


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif", "webp"])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 2), (0, 20), (0, 26), (0, 100), (0, 127), (0, 128), (0, 254), (0, 255), (7, 9)]
)
def test_any_two_levels_are_labels(tmp_path: Path, mask: Pixels, low: int, high: int, suffix: str) -> None:
    levels = np.where(mask, np.uint8(high), np.uint8(low))
    assert reads_as(save(tmp_path / f"a.{suffix}", levels, lossless=True), mask, f"{low}/{high}")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_masks_of_every_mode(tmp_path: Path, mask: Pixels, mode: str, suffix: str) -> None:
    deep = mode == "I;16"
    image = Image.fromarray(mask * np.uint16(65535)) if deep else Image.fromarray(mask * 255).convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    assert reads_as(tmp_path / f"a.{suffix}", mask, "0/65535" if deep else "0/255")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 300), (256, 512), (65534, 65535)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_not_reduced_to_8(tmp_path: Path, mask: Pixels, low: int, high: int, channels: int) -> None:
    levels = np.where(mask, np.uint16(high), np.uint16(low))
    pixels = levels if channels == 1 else np.dstack([levels] * 3 + [np.full_like(levels, 65535)] * (channels - 3))
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert reads_as(tmp_path / "a.png", mask, f"{low}/{high}")


def test_rows_of_16_bytes_are_not_16_bits(tmp_path: Path, mask: Pixels) -> None:
    part = mask[40:60, 28:33]
    assert reads_as(save(tmp_path / "a.bmp", np.dstack([part * 255] * 3)), part, "0/255")


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "bmp"])
@pytest.mark.parametrize("white_first", [False, True])
@pytest.mark.parametrize("inside", [0, 1])
def test_the_brighter_color_of_a_palette_is_car(
    tmp_path: Path, mask: Pixels, suffix: str, white_first: bool, inside: int
) -> None:
    mask = mask if inside else 1 - mask
    colors = [(0, 0, 0), (255, 255, 255)]
    with_palette(mask ^ white_first, *(colors[::-1] if white_first else colors)).save(tmp_path / f"a.{suffix}")
    assert reads_as(tmp_path / f"a.{suffix}", mask, "0/255")


@pytest.mark.parametrize(
    ("colors", "values"),
    [
        ([(9, 9, 9), (0, 0, 0), (0, 200, 0)], "0/#00c800"),
        ([(9, 9, 9), (255, 0, 0), (0, 255, 0)], "#ff0000/#00ff00"),
        ([(9, 9, 9), (5, 5, 5), (5, 5, 5)], "1/2"),
        ([(5, 5, 5)] * 256, "1/2"),
    ],
)
def test_the_higher_index_of_equally_bright_colors_is_car(
    tmp_path: Path, mask: Pixels, colors: list[tuple[int, int, int]], values: str
) -> None:
    with_palette(mask + 1, *colors).save(tmp_path / "a.png")
    assert reads_as(tmp_path / "a.png", mask, values)


def test_the_brighter_of_two_colors_is_car(tmp_path: Path, mask: Pixels) -> None:
    for channel in range(3):
        painted = np.zeros((H, W, 3), dtype=np.uint8)
        painted[..., channel] = 40 * mask
        assert reads_as(save(tmp_path / "a.png", painted), mask, f"0/#{40 << 8 * (2 - channel):06x}")


def test_the_alpha_channel_of_a_cut_out_is_the_label(tmp_path: Path, mask: Pixels, photo: Pixels) -> None:
    assert reads_as(save(tmp_path / "a.png", np.dstack([photo, mask * 255])), mask, "alpha 0/255")
    gray = np.dstack([photo[..., 0], mask * 20])
    assert reads_as(save(tmp_path / "a.png", gray), mask, "alpha 0/20")
    flat = np.dstack([np.full_like(photo, 200), mask * 255])
    assert reads_as(save(tmp_path / "a.webp", flat, lossless=True, exact=True), mask, "alpha 0/255")


def test_colors_under_an_alpha_channel_must_not_be_another_mask(tmp_path: Path, mask: Pixels) -> None:
    same = np.dstack([mask * 255] * 4)
    assert reads_as(save(tmp_path / "a.png", same), mask, "alpha 0/255")
    other = np.dstack([(1 - mask) * 255] * 3 + [mask * 255])
    message = r"has an alpha channel \(0/255\) and colors \(0/255\) that are different masks"
    with pytest.raises(Failure, match=message):
        read_mask(save(tmp_path / "a.png", other))
    with_palette(mask, (255, 255, 255), (0, 0, 0)).save(tmp_path / "a.gif", transparency=0)
    with pytest.raises(Failure, match=message):
        read_mask(tmp_path / "a.gif")


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_a_transparent_color_is_background(tmp_path: Path, mask: Pixels, transparency: int | bytes) -> None:
    with_palette(mask, (0, 0, 0), (255, 255, 255)).save(tmp_path / "a.png", transparency=transparency)
    assert reads_as(tmp_path / "a.png", mask, "alpha 0/255")
    assert reads_as(save(tmp_path / "a.png", mask * 255, transparency=0), mask, "alpha 0/255")


@pytest.mark.parametrize(("value", "paletted"), [(0, False), (1, False), (255, False), (0, True), (255, True)])
def test_a_mask_of_one_value_has_no_car(tmp_path: Path, value: int, paletted: bool) -> None:
    image = Image.fromarray(np.full((4, 6), 0 if paletted else value, dtype=np.uint8))
    if paletted:
        image = with_palette(np.zeros((4, 6), np.uint8), (value,) * 3, (7, 7, 7))
    image.save(tmp_path / "a.png")
    assert reads_as(tmp_path / "a.png", np.zeros((4, 6), np.uint8), f"only {value}")


def reduced(mask: Pixels, high: int = 255) -> Pixels:
    return np.asarray(cv2.resize(mask * np.uint8(high), (W // 3, H // 3), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(
    "make",
    [
        lambda path, mask: save(path.with_suffix(".png"), reduced(mask)),
        lambda path, mask: save(path.with_suffix(".png"), reduced(mask).astype(np.uint16) * 257),
        lambda path, mask: save(path.with_suffix(".tif"), reduced(mask).astype(np.float32) / 255),
        lambda path, mask: save(path.with_suffix(".png"), np.dstack([reduced(mask)] * 3)),
        lambda path, mask: save(
            path.with_suffix(".png"), np.dstack([reduced(mask), 0 * reduced(mask, 1)] * 2)[..., :3]
        ),
        lambda path, mask: save(path.with_suffix(".png"), np.dstack([200 + 0 * reduced(mask)] * 3 + [reduced(mask)])),
        lambda path, mask: Image.fromarray(reduced(mask)).quantize(64).save(path.with_suffix(".gif")),
    ],
)
def test_smooth_edges_are_thresholded_at_half(
    tmp_path: Path, mask: Pixels, make: Callable[[Path, Pixels], object]
) -> None:
    make(tmp_path / "a", mask)
    [path] = tmp_path.iterdir()
    read = read_mask(path)
    assert read.values.smooth
    differ = (read.labels == 1) != (reduced(mask) >= 128)
    assert np.count_nonzero(differ) == 0 if path.suffix != ".gif" else differ.mean() < 0.01


@pytest.mark.parametrize(("high", "quality"), [(255, 95), (255, 75), (255, 30), (200, 90), (100, 75)])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_masks_with_compression_noise(tmp_path: Path, mask: Pixels, high: int, quality: int, suffix: str) -> None:
    read = read_mask(save(tmp_path / f"a.{suffix}", mask * np.uint8(high), quality=quality))
    assert read.values.smooth
    assert (read.labels != mask).mean() < 0.005


def class_map(mask: Pixels, *values: int) -> Pixels:
    """Background, the upper part, the lower part and a wheel, of the given values."""
    y, x = np.mgrid[:H, :W]
    parts = mask + mask * (y > 60)
    parts[(y - 80) ** 2 + (x - 70) ** 2 < 6**2] = 3
    return np.array(values, np.uint8)[parts]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0, 1, 2, 3), "0, 1, 2, 3"),
        ((0, 2, 2, 1), "0, 1, 2"),
        ((0, 1, 1, 255), "0, 1, 255"),
        ((0, 255, 254, 255), "0, 254, 255"),
        ((0, 255, 255, 128), "0, 128, 255"),
        ((255, 7, 7, 9), "7, 9, 255"),
        ((10, 20, 30, 40), "10, 20, 30, 40"),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "gif", "tif"])
def test_several_classes_are_refused(
    tmp_path: Path, mask: Pixels, values: tuple[int, ...], shown: str, suffix: str
) -> None:
    path = save(tmp_path / f"a.{suffix}", class_map(mask, *values))
    with pytest.raises(Failure) as caught:
        read_mask(path)
    assert str(caught.value) == (
        f"{path} looks like a mask of several classes (values {shown}); this project segments car or not; write "
        "masks of two values, such as 0 and 255 for car"
    )


@pytest.mark.parametrize("quality", [60, 95])
def test_several_classes_in_a_jpeg_are_refused(tmp_path: Path, mask: Pixels, quality: int) -> None:
    with pytest.raises(Failure, match="that are not the smooth edge of a mask, like a photo"):
        read_mask(save(tmp_path / "a.jpg", class_map(mask, 0, 80, 160, 255), quality=quality))


def test_a_photo_is_refused(tmp_path: Path, photo: Pixels) -> None:
    for pixels in (photo, photo[..., 0]):
        with pytest.raises(Failure, match=r"a.png has [0-9]+ (colors|values) that are not the smooth edge of a mask"):
            read_mask(save(tmp_path / "a.png", pixels))


def test_classes_of_other_colors_are_refused(tmp_path: Path, mask: Pixels) -> None:
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [255, 255, 0]], np.uint8)
    with pytest.raises(Failure, match=r"several classes \(colors 0, #00ff00, #ff0000\)"):
        read_mask(save(tmp_path / "a.png", colors[class_map(mask, 0, 1, 2, 2)]))
    with_palette(class_map(mask, 0, 1, 2, 2), *map(tuple, colors.tolist())).save(tmp_path / "b.png")
    with pytest.raises(Failure, match=r"several classes \(colors 0, #00ff00, #ff0000\)"):
        read_mask(tmp_path / "b.png")
    with_palette(class_map(mask, 0, 1, 2, 2), (0, 0, 0), (9, 9, 9), (9, 9, 9)).save(tmp_path / "b.png")
    with pytest.raises(Failure, match=r"several classes \(values 0, 1, 2\)"):
        read_mask(tmp_path / "b.png")
    with pytest.raises(Failure, match="has two colors of the same brightness, #ff0000 and #00ff00"):
        read_mask(save(tmp_path / "a.png", colors[1 + mask]))


def test_several_pictures_and_other_pixels_are_refused(tmp_path: Path, mask: Pixels) -> None:
    image = Image.fromarray(mask * 255)
    for suffix in ("gif", "tif", "png", "webp"):
        path = tmp_path / f"a.{suffix}"
        image.save(path, save_all=True, append_images=[Image.fromarray(255 - mask * 255)])
        with pytest.raises(Failure, match=f"{path} holds several pictures, frames or pages"):
            read_mask(path)
    image.convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(Failure, match=r"a.jpg has pixels of type CMYK; save it as gray PNG"):
        read_mask(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "bmp", "webp", "jpg"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.9])
def test_a_truncated_mask_is_rejected(tmp_path: Path, part: float, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", np.random.default_rng(1).integers(0, 2, (H, W), dtype=np.uint8) * 255)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(Failure, match=f"{path} is .*; copy it again"):
        read_mask(path)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_png_that_ends_in_zeros_is_rejected(tmp_path: Path, mask: Pixels, part: float) -> None:
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


MODES = ["L", "1", "P", "P white first", "RGB", "LA", "RGBA", "alpha", "I;16"]


def encoded(labels: Pixels, mode: str, low: int, high: int, suffix: str) -> bytes | None:
    """A file in which 1 in the labels has the higher value; None if the format does not have the mode."""
    levels = np.where(labels == 1, np.uint8(high), np.uint8(low))
    if mode.startswith("P"):
        first = mode != "P"
        colors = [(low, low, low), (high, 0, 0)]
        image = with_palette(labels ^ first, *(colors[::-1] if first else colors))
    elif mode == "alpha":
        noise = np.random.default_rng(low).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
        image = Image.fromarray(np.dstack([noise, levels]))
    elif mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 255)
    else:
        image = Image.fromarray(labels * 255 if mode == "1" else levels).convert(mode)
    if (suffix == "gif" and mode in ("RGB", "LA", "RGBA", "alpha")) or (suffix == "bmp" and mode == "alpha"):
        return None  # Pillow makes a palette with loss, and leaves the alpha channel out
    if mode == "I;16" and suffix not in ("png", "tif"):
        return None
    file = io.BytesIO()
    try:
        image.save(file, {"tif": "TIFF"}.get(suffix, suffix), lossless=True, exact=True)
    except (OSError, ValueError):
        return None
    return file.getvalue()


labels_of_any_kind = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))
suffixes = st.sampled_from(["png", "gif", "tif", "bmp", "webp"])
pairs = st.lists(st.integers(0, 255), min_size=2, max_size=2, unique=True).map(sorted)
steady = settings(derandomize=True, deadline=None, max_examples=150)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "mask"


def read_bytes(path: Path, content: bytes) -> MaskFile | None:
    """The mask in a file; None if it is refused by one line that names it. Any other exception ends the test."""
    path.write_bytes(content)
    try:
        return read_mask(path)
    except Failure as failure:
        assert str(path) in str(failure)
        return None


@steady
@given(labels_of_any_kind, st.sampled_from(MODES), pairs, suffixes)
def test_any_file_of_two_values_is_read_right(
    fuzzed: Path, labels: Pixels, mode: str, pair: list[int], suffix: str
) -> None:
    content = encoded(labels, mode, *pair, suffix)
    if content is None or (mode == "alpha" and labels.min() == labels.max()):
        return  # a cut-out without transparency is a photo
    read = read_bytes(fuzzed.with_suffix(f".{suffix}"), content)
    assert read is not None
    if labels.min() < labels.max():
        np.testing.assert_array_equal(read.labels, labels)
    else:
        assert not read.labels.any()
        assert read.values.car is None


@steady
@given(arrays(np.uint8, (24, 32), elements=st.sampled_from([0, 1, 2, 128, 255])), suffixes)
def test_noise_of_several_values_is_refused(fuzzed: Path, levels: Pixels, suffix: str) -> None:
    levels = np.tile(levels[:6, :8], (4, 4)).repeat(2, axis=0)
    if len(np.unique(levels)) > 2:
        file = io.BytesIO()
        Image.fromarray(levels).save(file, {"tif": "TIFF"}.get(suffix, suffix), lossless=True)
        read = read_bytes(fuzzed.with_suffix(f".{suffix}"), file.getvalue())
        assert read is None or read.values.smooth


@steady
@given(labels_of_any_kind, st.sampled_from(MODES), suffixes, st.data())
def test_damaged_bytes_are_refused_or_read(
    fuzzed: Path, labels: Pixels, mode: str, suffix: str, data: st.DataObject
) -> None:
    content = encoded(labels, mode, 0, 20, suffix)
    if content is None:
        return
    position = data.draw(st.integers(0, len(content) - 1))
    kept = content[position + 1 :] if data.draw(st.booleans()) else b""
    damaged = content[:position] + data.draw(st.binary(min_size=1, max_size=4)) + kept
    read = read_bytes(fuzzed.with_suffix(f".{suffix}"), damaged)
    if read is not None and suffix == "png" and labels.min() < labels.max() and mode != "alpha":
        np.testing.assert_array_equal(read.labels, labels)  # a PNG has checksums
