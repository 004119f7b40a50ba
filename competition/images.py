"""Reading photos and masks from files, as Kaggle means them."""

import struct
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from competition.command import Failure, os_reason
from competition.rle import Shape

Pixels = NDArray[np.uint8]

START_OF_JPEG = b"\xff\xd8"
END_OF_JPEG = b"\xff\xd9"
# What Pillow raises for a damaged file, by format and by where the damage is.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
# We bring our own threads and processes. OpenCV's would fight them, and its pool does not survive a fork: a worker
# process that waits for it waits for ever.
cv2.setNumThreads(0)


def read_rgb(path: Path) -> Pixels:
    """A photo as (H, W, 3) uint8 RGB, its pixels where the file has them: EXIF rotation is ignored,
    because Carvana's masks were drawn on the stored pixels.

    Args:
        path: a JPEG or PNG file.

    Raises:
        Failure: the file is missing, is not an image, or ends early.
    """
    return _decode(path, _content(path), cv2.IMREAD_COLOR)


def read_halved(path: Path, at_least: Shape) -> tuple[Pixels, int]:
    """A photo as ``read_rgb`` reads it, or at half its size, if it is a JPEG and that is enough.

    libjpeg decodes at half the size straight from the DCT coefficients, in a third of the time. It also can at a
    quarter, but what is resized from there is less sharp: networks at 384 x 256 lose 0.0001 to 0.0003 of Dice by it.

    Args:
        path: a JPEG or PNG file.
        at_least: (height, width) that is needed.

    Returns:
        (ceil(H / divisor), ceil(W / divisor), 3) uint8 RGB, and the divisor, 1 or 2. Half of an odd side is no whole
        number, and the last row or column then lies partly beyond the photo; who ignores that moves every pixel
        away from its mask.

    Raises:
        Failure: the file is missing, is not an image, or ends early.
    """
    content = _content(path)
    if content.startswith(START_OF_JPEG):
        height, width = shape_of(path)
        if height >= 2 * at_least[0] and width >= 2 * at_least[1]:
            return _decode(path, content, cv2.IMREAD_REDUCED_COLOR_2), 2
    return _decode(path, content, cv2.IMREAD_COLOR), 1


def read_mask(path: Path) -> Pixels:
    """A mask file as (H, W) uint8 of 0 and 1, 1 is car.

    Carvana's are palette GIFs with indices 0 and 1. Others use 0 and 255, perhaps smoothed at the edges, or a
    colour on black, or a palette that has white first: where values above 1 occur, the middle of the 8-bit range
    separates.

    Raises:
        Failure: the file is missing, is not an image, or ends early.
    """
    try:
        with Image.open(path) as image:
            if image.format == "PNG":
                _verify(path)
            values = np.asarray(image if image.mode in ("P", "L", "1") else _brightness(image))
            # Two indices of a palette are the labels themselves, by the order of their colours; more are no labels.
            if image.mode == "P" and (values.max() > 1 or _brighter_first(image)):
                values = _brightness(image)
            return (values if values.max() <= 1 else values >= 128).astype(np.uint8)
    except DAMAGE as error:
        raise _unreadable(path, error) from error


def shape_of(path: Path) -> Shape:
    """(height, width) of an image or mask file, from its header alone; remembered while the file stays the same.

    Raises:
        Failure: the file is missing or is not an image.
    """
    try:
        status = path.stat()
        return _shape_of(path, status.st_mtime_ns, status.st_size)
    except DAMAGE as error:
        raise _unreadable(path, error) from error


@lru_cache(maxsize=200_000)
def _shape_of(path: Path, _modified: int, _size: int) -> Shape:
    with Image.open(path) as image:
        return image.height, image.width


def _brighter_first(image: Image.Image) -> bool:
    """Whether the first colour of a palette is brighter than the second."""
    colours = image.getpalette("RGB") or []
    return max(colours[:3], default=0) > max(colours[3:6], default=0)


def _brightness(image: Image.Image) -> Pixels:
    """The brightest channel of each pixel, so that a mask painted in red is as good as a white one."""
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip it, not scale it
        values = np.asarray(image)
        return (values if values.max() <= 255 else values >> 8).astype(np.uint8)
    brightest: Pixels = np.asarray(image.convert("RGB")).max(axis=2)
    return brightest


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    if not content:
        raise Failure(f"{path} is empty; copy it again from its source")
    return content


def _decode(path: Path, content: bytes, flag: int) -> Pixels:
    # Some versions of OpenCV fill the missing part of a JPEG with grey and say nothing a program could hear; and the
    # zeros that a broken copy may leave in its place decode well, to nonsense.
    if content.startswith(START_OF_JPEG) and END_OF_JPEG not in content[-1024:]:
        _decode_strictly(path, content)
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # such as a damaged header that claims more pixels than OpenCV accepts
        image = None
    if image is None:
        raise Failure(f"{path} is damaged or not a JPEG or PNG image; copy it again from its source")
    rgb: Pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return rgb


def _decode_strictly(path: Path, content: bytes) -> None:
    """Raise unless a JPEG decodes to its last row: some cameras append data behind the end marker."""
    # The zeros that a broken copy may leave at the end decode well, to nonsense; so the marker has to be somewhere.
    if END_OF_JPEG not in content:
        raise Failure(f"{path} is damaged (it ends early); copy it again from its source")
    try:
        with Image.open(path) as image:
            image.load()
    except DAMAGE as error:
        raise _unreadable(path, error) from error


def _verify(path: Path) -> None:
    """Compare the checksums of a PNG, which Pillow's decoder does not: zeros in the place of its end look well."""
    with Image.open(path) as image:
        image.verify()


def _unreadable(path: Path, error: Exception) -> Failure:
    if isinstance(error, UnidentifiedImageError):
        if path.stat().st_size == 0:
            return Failure(f"{path} is empty; copy it again from its source")
        return Failure(f"{path} is not an image; copy it again from its source")
    if isinstance(error, OSError) and error.errno is not None:
        return Failure(f"cannot read {path}: {os_reason(error)}")
    return Failure(f"{path} is damaged ({error}); copy it again from its source")
