"""Read photos from image files."""

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
# What Pillow raises for damaged files; it depends on the format and the place of the damage.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
# The callers have their own threads and processes. OpenCV's threads would compete with them, and its thread pool does
# not survive a fork: a worker process would wait for it forever.
cv2.setNumThreads(0)


def read_rgb(path: Path) -> Pixels:
    """A JPEG or PNG photo as (H, W, 3) uint8 RGB.

    EXIF rotation is ignored, because Carvana's masks were drawn on the stored pixels. A damaged file is a Failure.
    """
    return _decode(path, _content(path), cv2.IMREAD_COLOR)


def read_halved(path: Path, at_least: Shape) -> tuple[Pixels, int]:
    """A photo like ``read_rgb``, or at half its size if it is a JPEG and half is large enough.

    libjpeg decodes at half size from the DCT coefficients, in a third of the time. A quarter is possible too, but
    resizing from it is less sharp: networks at 384 x 256 lose 0.0001 to 0.0003 Dice.

    Args:
        path: a JPEG or PNG file.
        at_least: (height, width) that is needed.

    Returns:
        (ceil(H / divisor), ceil(W / divisor), 3) uint8 RGB, and the divisor, 1 or 2. If a side is odd, the last row
        or column lies partly outside the photo; ignoring this shifts the image against its mask.
    """
    content = _content(path)
    if content.startswith(START_OF_JPEG):
        height, width = shape_of(path)
        if height >= 2 * at_least[0] and width >= 2 * at_least[1]:
            return _decode(path, content, cv2.IMREAD_REDUCED_COLOR_2), 2
    return _decode(path, content, cv2.IMREAD_COLOR), 1


def shape_of(path: Path) -> Shape:
    """(height, width) of an image or mask file, read from its header and cached until the file changes."""
    try:
        status = path.stat()
        return _shape_of(path, status.st_mtime_ns, status.st_size)
    except DAMAGE as error:
        raise unreadable(path, error) from error


@lru_cache(maxsize=200_000)
def _shape_of(path: Path, _modified: int, _size: int) -> Shape:
    with Image.open(path) as image:
        return image.height, image.width


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    if not content:
        raise Failure(f"{path} is empty; copy it again from its source")
    return content


def _decode(path: Path, content: bytes, flag: int) -> Pixels:
    # Some versions of OpenCV fill the missing part of a JPEG with gray without an error. Zeros at the end, which an
    # interrupted copy may leave, decode to nonsense.
    if content.startswith(START_OF_JPEG) and END_OF_JPEG not in content[-1024:]:
        _decode_strictly(path, content)
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # for example, a damaged header with more pixels than OpenCV accepts
        image = None
    if image is None:
        raise Failure(f"{path} is damaged or not a JPEG or PNG image; copy it again from its source")
    rgb: Pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return rgb


def _decode_strictly(path: Path, content: bytes) -> None:
    """Fail unless a JPEG is complete; some cameras append data after the end marker, so it may come early."""
    if END_OF_JPEG not in content:
        raise Failure(f"{path} is damaged (it ends early); copy it again from its source")
    try:
        with Image.open(path) as image:
            image.load()
    except DAMAGE as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> Failure:
    """The Failure for an image file that Pillow cannot read."""
    if isinstance(error, UnidentifiedImageError):
        if path.stat().st_size == 0:
            return Failure(f"{path} is empty; copy it again from its source")
        return Failure(f"{path} is not an image; copy it again from its source")
    if isinstance(error, OSError) and error.errno is not None:
        return Failure(f"cannot read {path}: {os_reason(error)}")
    return Failure(f"{path} is damaged ({error}); copy it again from its source")
