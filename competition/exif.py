"""EXIF orientation: how a camera was held, and how the stored pixels are turned for display."""

import struct
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from competition.rle import Shape

TAG = 274
UPRIGHT = 1
# Orientations 5 to 8 swap rows and columns. All others, and these before the swap, are flips: the code of cv2.flip,
# where 0 reverses the rows, 1 the columns and -1 both.
FLIPS = {2: 1, 3: -1, 4: 0, 6: 0, 7: -1, 8: 1}
INVERSE = {6: 8, 8: 6}
DAMAGE = (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error)


def orientation_in(image: Image.Image, file: IO[bytes]) -> int:
    """The orientation in an opened image, 1 to 8; 1, not turned, if there is none or it is invalid.

    Args:
        image: just opened; its pixels are not decoded.
        file: what it was opened from.
    """
    try:
        if image.format == "TIFF":
            found = image.getexif().get(TAG)
        elif image.format == "HEIF":  # pillow-heif turns the pixels itself
            found = UPRIGHT
        else:
            # Not image.getexif(): it decodes the pixels of a PNG, because the tag may follow them.
            exif = Image.Exif()
            exif.load(_exif_of_png(file) if image.format == "PNG" else image.info.get("exif", b""))
            found = exif.get(TAG)
    except DAMAGE:
        return UPRIGHT
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Stored pixels, (H, W) or (H, W, C), as they are displayed."""
    if orientation in FLIPS:
        pixels = cv2.flip(pixels, FLIPS[orientation])
    return cv2.transpose(pixels) if swaps_sides(orientation) else pixels


def turned_back(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Displayed pixels as they are stored: the inverse of ``turned``."""
    return turned(pixels, INVERSE.get(orientation, orientation))


def turned_shape(shape: Shape, orientation: int) -> Shape:
    """The (height, width) of the displayed image, from that of the stored one, or the other way round."""
    return (shape[1], shape[0]) if swaps_sides(orientation) else shape


def swaps_sides(orientation: int) -> bool:
    """Whether rows of the stored image are columns of the displayed one."""
    return orientation >= 5


def reversed_sides(orientation: int) -> tuple[bool, bool]:
    """Whether the order of the stored rows and of the stored columns is reversed for display."""
    flip = FLIPS.get(orientation)
    return flip in (0, -1), flip in (1, -1)


def _exif_of_png(file: IO[bytes]) -> bytes:
    """The eXIf chunk of a PNG, which may come before or after the pixels."""
    position = file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            return file.read(length)
        position = file.seek(position + 12 + length)
    return b""
