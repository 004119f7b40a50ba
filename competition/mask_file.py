"""Read masks from image files."""

from pathlib import Path

import numpy as np
from PIL import Image

from competition.images import DAMAGE, Pixels, shape_of, unreadable

MASK_TYPES = (".gif", ".png")


def read_mask(path: Path) -> Pixels:
    """A mask file as (H, W) uint8 of 0 and 1, 1 is car.

    Carvana's masks are palette GIFs with indices 0 and 1. Other masks use 0 and 255, possibly with smoothed edges, or
    a color on black, or a palette with white first. If values above 1 occur, 128 and above is car.
    """
    shape_of(path)  # refuses a size that does not fit into memory
    try:
        with Image.open(path) as image:
            if image.format == "PNG":
                _verify(path)
            values = np.asarray(image if image.mode in ("P", "L", "1") else _brightness(image))
            # Two palette indices are the labels, unless the brighter color comes first; more indices are not labels.
            if image.mode == "P" and (values.max() > 1 or _brighter_first(image)):
                values = _brightness(image)
            return (values if values.max() <= 1 else values >= 128).astype(np.uint8)
    except DAMAGE as error:
        raise unreadable(path, error) from error


def _brighter_first(image: Image.Image) -> bool:
    """Whether the first color of a palette is brighter than the second."""
    colors = image.getpalette("RGB") or []
    return max(colors[:3], default=0) > max(colors[3:6], default=0)


def _brightness(image: Image.Image) -> Pixels:
    """The brightest channel of each pixel, so that a red mask equals a white one."""
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip rather than scale
        values = np.asarray(image)
        return (values if values.max() <= 255 else values >> 8).astype(np.uint8)
    brightest: Pixels = np.asarray(image.convert("RGB")).max(axis=2)
    return brightest


def _verify(path: Path) -> None:
    """Check the checksums of a PNG; Pillow's decoder does not, and accepts zeros in place of the end."""
    with Image.open(path) as image:
        image.verify()
