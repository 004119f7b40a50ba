"""Decode an image file without loss: the levels, palette and alpha channel as they are stored, of 8 or 16 bits."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from competition.command import Failure
from competition.exif import orientation_in, turned_back
from competition.images import DAMAGE, FORMATS, Pixels, shape_of, unreadable

Levels = NDArray[Any]


class Decoded(NamedTuple):
    """The stored pixels of an image, without loss.

    Attributes:
        pixels: (H, W) levels or indices of the palette, or (H, W, 3) colors.
        palette: (256, 3) uint8, or None.
        alpha: (H, W), or None.
        lossy: whether the format compresses with loss.
    """

    pixels: Levels
    palette: Levels | None = None
    alpha: Levels | None = None
    lossy: bool = False


def decode(path: Path) -> Decoded:
    """The pixels of an image file of one of ``FORMATS`` with a single picture, gray, RGB or with a palette."""
    shape_of(path)  # refuses a size that does not fit into memory
    try:
        return _decode(path, path.read_bytes())
    except DAMAGE as error:
        raise unreadable(path, error) from error


def _decode(path: Path, content: bytes) -> Decoded:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.format == "PNG":
            _verify(content)
        if getattr(image, "is_animated", False):
            raise Failure(f"{path} holds several pictures, frames or pages; save one of them alone")
        orientation = orientation_in(image, io.BytesIO(content))  # Pillow forgets that of a TIFF when it decodes
        lossy = image.format == "JPEG" or (image.format == "WEBP" and b"VP8L" not in content)
        if image.mode in ("RGB", "RGBA", "LA") and ";16" in _coding(image):
            if image.format != "PNG":
                raise Failure(f"{path} has colors of 16 bits; save it as gray PNG")
            decoded = _decode_with_opencv(content)
        elif image.format == "BMP" and (image.mode, content[28]) in (("1", 8), ("1", 4), ("L", 4)):
            decoded = _decode_with_opencv(content)  # Pillow takes the pixels for those of another size
        else:
            decoded = _decode_with_pillow(path, image)
        if isinstance(image, TiffImageFile):  # Pillow has turned it
            pixels, palette, alpha, _ = decoded
            decoded = Decoded(
                turned_back(pixels, orientation), palette, None if alpha is None else turned_back(alpha, orientation)
            )
        return decoded._replace(lossy=lossy)


def _decode_with_pillow(path: Path, image: ImageFile.ImageFile) -> Decoded:
    mode, key = image.mode, image.info.get("transparency")
    if mode in ("1", "L", "I", "F") or mode.startswith("I;16"):
        pixels = np.asarray(image)
        pixels = pixels.astype(np.uint8) * 255 if mode == "1" else pixels
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise Failure(f"{path} has pixels that are not finite numbers; save it as gray PNG")
        # The key of a PNG with 1, 2 or 4 bits counts these, and Pillow scales the pixels to 8 bits.
        return Decoded(pixels, alpha=None if key is None else _unlike(pixels, key * _scale(image)))
    if mode == "P":
        indices = np.asarray(image)
        palette = np.zeros((256, 3), np.uint8)
        colors = np.frombuffer(bytes(image.getpalette("RGB") or []), np.uint8).reshape(-1, 3)
        palette[: len(colors)] = colors
        if isinstance(key, bytes):
            opaque = np.frombuffer(key.ljust(256, b"\xff"), np.uint8)
            return Decoded(indices, palette, opaque[indices])
        return Decoded(indices, palette, None if key is None else _unlike(indices, key))
    if mode in ("RGB", "RGBX"):
        pixels = np.asarray(image)[..., :3]
        return Decoded(pixels, alpha=None if key is None else _unlike(pixels, key))
    if mode in ("LA", "La"):
        both = np.asarray(image.convert("LA"))
        return Decoded(both[..., 0], alpha=both[..., 1])
    if mode in ("RGBA", "RGBa", "PA"):
        both = np.asarray(image.convert("RGBA"))
        return Decoded(both[..., :3], alpha=both[..., 3])
    raise Failure(f"{path} has pixels of type {mode}; save it as gray PNG")


def _decode_with_opencv(content: bytes) -> Decoded:
    """What Pillow does not decode without loss, such as a PNG with 16 bits per color."""
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(error.err) from error
    if image is None:
        raise ValueError("its pixels cannot be decoded")
    if image.ndim == 2:
        return Decoded(image)
    return Decoded(image[..., 2::-1], alpha=image[..., 3] if image.shape[2] == 4 else None)


def _verify(content: bytes) -> None:
    """Check the checksums of a PNG; Pillow's decoder does not, and accepts zeros in place of the end."""
    with Image.open(io.BytesIO(content)) as image:
        image.verify()


def _unlike(pixels: Levels, key: Any) -> Pixels:
    """The alpha channel of an image in which one level or color is transparent: 255 where a pixel is unlike it."""
    unlike: Pixels = (pixels != np.asarray(key)).reshape(*pixels.shape[:2], -1).any(axis=2).astype(np.uint8) * 255
    return unlike


def _scale(image: ImageFile.ImageFile) -> int:
    if image.mode == "1":
        return 255
    return {"L;2": 85, "L;4": 17}.get(_coding(image), 1)


def _coding(image: ImageFile.ImageFile) -> str:
    """Pillow's name of the coding of the pixels in the file, such as ``RGB;16B``."""
    args = image.tile[0][3] if image.tile else ""  # the field has a name only from Pillow 11 on
    return str(args[0] if isinstance(args, tuple) else args)
