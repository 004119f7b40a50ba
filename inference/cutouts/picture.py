"""The pictures of one photo: drawn, cropped, and encoded as PNG files that keep the photo's color profile."""

import io

from PIL import Image

from competition.images import Pixels, color_profile_of
from competition.photo import Photo
from inference.cutouts.rendering import Renderer, crop_box

MARGIN = 0.05  # of a crop, a fraction of the object's longer side
COMPRESSION = 3  # of zlib: 6, the default, takes twice as long and saves a tenth


def ending_of(kind: str) -> str:
    """What the file name of a kind of picture ends with, before its suffix: nothing for ``rgba``."""
    return "" if kind == "rgba" else f"_{kind.removeprefix('#')}"


def draw(photo: Photo, levels: Pixels, threshold: float, kinds: list[str], *, crop: bool) -> list[bytes]:
    """PNG files of the kinds, in their order.

    Args:
        photo: is read at full size.
        levels: (H, W) uint8, the predicted levels at full size.
        threshold: the lowest probability of the object.
        kinds: of ``inference.cutouts.rendering``.
        crop: cut the pictures to the object and a margin.
    """
    renderer, profile = Renderer(photo.read(), levels, threshold), color_profile_of(photo.path)
    rows, columns = crop_box(levels, threshold, MARGIN) if crop else (slice(None), slice(None))
    files = []
    for kind in kinds:
        picture = renderer.render(kind)[rows, columns]
        files.append(png(picture, profile if picture.ndim == 3 else None))
    return files


def png(picture: Pixels, profile: bytes | None) -> bytes:
    """A PNG file with a color profile."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, format="PNG", compress_level=COMPRESSION, icc_profile=profile)
    return content.getvalue()
