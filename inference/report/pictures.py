"""Pictures in the page itself: JPEG and PNG as data URIs, and outlines of masks as SVG paths."""

import base64
import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from competition.images import Pixels
from competition.photo import Photo

# Orange and blue are distinct for every type of colour vision. page.css has the same values.
MISSED_COLOUR, EXTRA_COLOUR = (255, 94, 0), (0, 110, 255)
OPACITY = 160  # of wrong pixels, of 255: the car is seen through them


def photo_at(photo: Photo, width: int, quality: int) -> str:
    """A photo, reduced to a width in pixels, as a JPEG data URI."""
    rgb, _ = photo.read_halved(at_least=(photo.shape[0] * width // photo.shape[1], width))
    return jpeg(narrowed(rgb, width), quality)


def jpeg(rgb: Pixels, quality: int) -> str:
    """An (H, W, 3) RGB image as a JPEG data URI."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return _data_uri("jpeg", lambda file: image.save(file, "JPEG", quality=quality, optimize=True))


def overlay(wrong: Pixels) -> str:
    """(H, W) of ``mistakes`` as a PNG data URI: wrong pixels are coloured and translucent, right ones invisible."""
    image = Image.fromarray(wrong)
    image.putpalette([0, 0, 0, *MISSED_COLOUR, *EXTRA_COLOUR])
    opacity = bytes([0, OPACITY, OPACITY])
    return _data_uri("png", lambda file: image.save(file, "PNG", transparency=opacity, bits=2, optimize=True))


def outline(mask: Pixels, tolerance: float) -> str:
    """The outlines of an (H, W) mask and its holes as an SVG path in pixels; "" for an empty mask.

    Args:
        mask: non-zero is car.
        tolerance: largest distance in pixels of the drawn outline from that of the mask.
    """
    borders, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    paths = []
    for border in borders:
        corners = cv2.approxPolyDP(border, tolerance, closed=True).reshape(-1, 2).tolist()
        paths.append("M" + "L".join(f"{x} {y}" for x, y in corners) + "Z")
    return "".join(paths)


def narrowed(rgb: Pixels, width: int) -> Pixels:
    """The image reduced to a width; a narrower image stays as it is."""
    if rgb.shape[1] <= width:
        return rgb
    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    reduced: Pixels = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return reduced


def _data_uri(kind: str, save: Callable[[io.BytesIO], None]) -> str:
    file = io.BytesIO()
    save(file)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
