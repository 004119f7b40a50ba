"""Read photos from image files.

The content decides, not the suffix: a PNG named ``.jpg`` is read as a PNG. The pixels become 8-bit RGB: gray, palette
and CMYK are converted, 16 bits are scaled, and transparency is ignored, because the color behind a transparent photo
is a choice of the viewer and its own colors are not. Of a TIFF with several pages the first is read. Animations are
refused.
"""

import io
import logging
import re
import struct
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from competition.command import Failure, os_reason
from competition.exif import orientation_in, reversed_sides, turned, turned_back, turned_shape
from competition.rle import Shape

Pixels = NDArray[np.uint8]

# Suffixes of files that can be read, and of images that cannot. A list of the photos in a folder takes the first and
# must name the second, so that no photo is missing without a word. Compare with `path.suffix.lower()`.
PHOTO_TYPES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif")
UNREADABLE_TYPES = (
    *(
        ".gif",
        ".avif",
        ".jxl",
        ".jp2",
        ".j2k",
        ".svg",
        ".psd",
        ".xcf",
        ".tga",
        ".ppm",
        ".exr",
        ".hdr",
        ".pdf",
        ".raw",
    ),
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    *(".rwl", ".3fr", ".iiq", ".x3f", ".kdc", ".dcr", ".mrw", ".erf"),
)
# Phones and cameras have at most 200 megapixels. A photo of 250 takes 0.75 GB as RGB, in each worker that reads one;
# while Pillow decodes it, up to three times as much.
MOST_PIXELS = 250_000_000

START_OF_JPEG = b"\xff\xd8"
END_OF_JPEG = b"\xff\xd9"
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Images that are often found under the suffix of a photo, by their first bytes.
OTHER_KINDS = (
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "an AVIF image"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL image"),
    (re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  "), "a JPEG 2000 image"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "a TIFF of an unusual kind"),
)
TIFF_WIDTH, TIFF_HEIGHT, TIFF_REDUCED, TIFF_BITS = 256, 257, 254, 258
TIFF_EXTRA_SAMPLES, TIFF_SAMPLE_FORMAT, DNG_VERSION = 338, 339, 50706
COLOR_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
# What Pillow raises for damaged files; it depends on the format and the place of the damage.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
# The callers have their own threads and processes. OpenCV's threads would compete with them, and its thread pool does
# not survive a fork: a worker process would wait for it forever.
cv2.setNumThreads(0)
# A photo is read, or refused by a Failure. OpenCV and Pillow would print remarks of their own to stderr, and Pillow
# would refuse a photo by its own limit of the size.
(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)  # OpenCV 4 or 5
logging.getLogger("PIL").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", module=r"PIL\.")
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of an image file says: (H, W) of the stored pixels, and the EXIF orientation, 1 to 8."""

    stored: Shape
    orientation: int

    def shape(self, *, upright: bool) -> Shape:
        """(H, W) of the stored, or of the displayed image."""
        return turned_shape(self.stored, self.orientation) if upright else self.stored


def read_rgb(path: Path, *, upright: bool = False) -> Pixels:
    """A photo as (H, W, 3) uint8 RGB: as it is stored, or ``upright``, with its EXIF orientation applied."""
    header = _header(path)
    return _as_asked(_decode(path, _content(path))[0], header, upright)


def read_halved(path: Path, at_least: Shape, *, upright: bool = False) -> tuple[Pixels, int]:
    """A photo like ``read_rgb``, or at half its size if it is a JPEG and half is large enough.

    libjpeg decodes at half size from the DCT coefficients, in a third of the time. A quarter is possible too, but
    resizing from it is less sharp: networks at 384 x 256 lose 0.0001 to 0.0003 Dice.

    Args:
        path: the file of a photo.
        at_least: (height, width) that is needed, of the displayed photo if ``upright``.
        upright: apply the EXIF orientation.

    Returns:
        (ceil(H / divisor), ceil(W / divisor), 3) uint8 RGB, and the divisor, 1 or 2. If a side is odd, the last row
        or column lies partly outside the photo; ignoring this shifts the image against its mask.
    """
    header = _header(path)
    height, width = header.shape(upright=upright)
    large = height >= 2 * at_least[0] and width >= 2 * at_least[1]
    photo, divisor = _decode(path, _content(path), halve=large and not (upright and _begins_outside(header)))
    return _as_asked(photo, header, upright), divisor


def shape_of(path: Path, *, upright: bool = False) -> Shape:
    """(height, width) of an image or mask file, read from its header and cached until the file changes.

    With ``upright``, that of the displayed image.
    """
    return _header(path).shape(upright=upright)


def orientation_of(path: Path) -> int:
    """The EXIF orientation of an image or mask file, 1 to 8; 1 if it has none. Cached like ``shape_of``."""
    return _header(path).orientation


def color_profile_of(path: Path) -> bytes | None:
    """The ICC profile of a photo that says what its RGB values mean; None for sRGB without a profile.

    Phones save Display P3. Pixels that were converted to RGB, from gray or CMYK, no longer have their profile.
    """
    try:
        with path.open("rb") as file, _opened(path, file) as image:
            profile = image.info.get("icc_profile")
    except DAMAGE as error:
        raise unreadable(path, error) from error
    return profile if isinstance(profile, bytes) and profile[16:20] == b"RGB " else None


def unreadable(path: Path, error: Exception) -> Failure:
    """The Failure for an image file that cannot be read, from one of ``DAMAGE``."""
    if isinstance(error, UnidentifiedImageError):
        if path.stat().st_size == 0:
            return Failure(f"{path} is empty; copy it again from its source")
        return Failure(f"{path} is not an image; copy it again from its source")
    if isinstance(error, OSError) and error.errno is not None:
        return Failure(f"cannot read {path}: {os_reason(error)}")
    return Failure(f"{path} is damaged ({error}); copy it again from its source")


def _header(path: Path) -> Header:
    try:
        status = path.stat()
        return _cached_header(path, status.st_mtime_ns, status.st_size)
    except DAMAGE as error:
        raise unreadable(path, error) from error


@lru_cache(maxsize=200_000)
def _cached_header(path: Path, _modified: int, _size: int) -> Header:
    with path.open("rb") as file, _opened(path, file) as image:
        shape = image.height, image.width
        if isinstance(image, TiffImageFile):  # Pillow gives the size of the displayed image
            shape = image.tag_v2[TIFF_HEIGHT], image.tag_v2[TIFF_WIDTH]
        if shape[0] * shape[1] > MOST_PIXELS:
            raise Failure(
                f"{path} is {shape[1]} x {shape[0]}, {shape[0] * shape[1] / 1e6:.0f} megapixels; photos of up to "
                f"{MOST_PIXELS // 10**6} are read: scale it down, or copy it again if that is not its size"
            )
        return Header(shape, orientation_in(image, file))


def _opened(path: Path, file: IO[bytes]) -> Image.Image:
    """An image that Pillow has opened but not decoded."""
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS:
        _register_heif(path)
        return Image.open(file, formats=("HEIF",))
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        for start, kind in OTHER_KINDS:
            if start.match(head):
                raise Failure(f"{path} is {kind}, which cannot be read; save it as JPEG or PNG") from None
        raise


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise Failure(f"{path} is a HEIC photo; `pip install pillow-heif` to read it, or save it as JPEG") from error
    pillow_heif.register_heif_opener()


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    if not content:
        raise Failure(f"{path} is empty; copy it again from its source")
    return content


def _as_asked(photo: Pixels, header: Header, upright: bool) -> Pixels:
    return turned(photo, header.orientation) if upright else photo


def _begins_outside(header: Header) -> bool:
    """Whether the last row or column of a halved photo, which lies partly outside, becomes the first one."""
    sides = zip(header.stored, reversed_sides(header.orientation), strict=True)
    return any(side % 2 and is_reversed for side, is_reversed in sides)


def _decode(path: Path, content: bytes, halve: bool = False) -> tuple[Pixels, int]:
    """The stored pixels of a photo, and the divisor of its size."""
    if content.startswith(START_OF_JPEG):
        # Some versions of OpenCV fill the missing part of a JPEG with gray without an error. Zeros at the end, which
        # an interrupted copy may leave, decode to nonsense.
        if END_OF_JPEG not in content[-1024:]:
            _require_end(path, content)
        flag = cv2.IMREAD_REDUCED_COLOR_2 if halve else cv2.IMREAD_COLOR
        photo = _decode_with_opencv(content, flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if photo is not None:
            return photo, 2 if halve else 1
    return _decode_other(path, content), 1


def _decode_with_opencv(content: bytes, flags: int) -> Pixels | None:
    """RGB pixels, in two thirds of the time that Pillow takes for a JPEG; None if OpenCV cannot read the photo."""
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error:
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _require_end(path: Path, content: bytes) -> None:
    """Fail unless a JPEG is complete; some cameras append data after the end marker, so it may come early."""
    if END_OF_JPEG not in content:
        raise Failure(f"{path} is damaged (it ends early); copy it again from its source")
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except DAMAGE as error:
        raise unreadable(path, error) from error


def _decode_other(path: Path, content: bytes) -> Pixels:
    """The stored pixels of a photo that OpenCV does not read as a JPEG.

    Pillow decodes most, because libpng prints warnings if OpenCV calls it. But libtiff prints them if Pillow calls
    it, and Pillow confuses some BMPs of few gray levels.
    """
    try:
        with _opened(path, io.BytesIO(content)) as image:
            if image.format == "PNG":
                _verify(content)
            _require_photo(path, image)
            if isinstance(image, TiffImageFile) or image.format == "BMP":
                return _decode_tiff_or_bmp(path, content, image)
            # Pillow keeps 16 bits of gray, which `convert` would clip. It reduces 16 bits of color to 8 itself.
            if image.mode.startswith("I"):
                return np.dstack([(np.asarray(image) >> 8).astype(np.uint8)] * 3)
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except DAMAGE as error:
        raise unreadable(path, error) from error


def _decode_tiff_or_bmp(path: Path, content: bytes, image: Image.Image) -> Pixels:
    """The stored pixels. OpenCV and Pillow turn those of a TIFF by its orientation, whether asked or not."""
    orientation = orientation_in(image, io.BytesIO(content))
    # OpenCV would blend the transparent pixels of a TIFF with black.
    if isinstance(image, TiffImageFile) and 2 in image.tag_v2.get(TIFF_EXTRA_SAMPLES, ()):
        return turned_back(np.asarray(image.convert("RGB")), orientation)
    displayed = _decode_with_opencv(content, cv2.IMREAD_COLOR)
    if displayed is None:
        raise Failure(f"{path} is damaged or of an unusual kind; copy it again, or save it as JPEG or PNG")
    return turned_back(displayed, orientation)


def _verify(content: bytes) -> None:
    """Check the checksums of a PNG; Pillow's decoder does not, and accepts zeros in place of the end."""
    with Image.open(io.BytesIO(content)) as image:
        image.verify()


def _require_photo(path: Path, image: Image.Image) -> None:
    """Fail for an animation, for the thumbnail in a camera's raw file, and for pixels that are not gray or colors."""
    if image.format in ("PNG", "GIF", "WEBP") and getattr(image, "is_animated", False):
        raise Failure(f"{path} is an animation; save one of its pictures as JPEG or PNG")
    known = image.mode in COLOR_MODES or image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        if tags.get(TIFF_REDUCED, 0) & 1 or DNG_VERSION in tags:
            raise Failure(f"{path} is a raw photo of a camera; save it as JPEG or PNG")
        known &= {*tags.get(TIFF_BITS, (1,))} <= {1, 2, 4, 8, 16} and {*tags.get(TIFF_SAMPLE_FORMAT, (1,))} <= {1, 4}
    if not known:
        raise Failure(f"{path} has pixels of a type that cannot be read ({image.mode}); save it as JPEG or PNG")
