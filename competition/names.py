"""The names of images: one form in folders, tables and settings, and what a photo and its mask have in common."""

import posixpath
import unicodedata

# Bytes: file systems allow 255, and `.<name>_mask.png.part` must fit.
LONGEST = 230


def canonical(name: str) -> str:
    """A name in Unicode's form NFC. File systems of macOS store umlauts as two characters (NFD), tables rarely do."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_utf8(name: str) -> bool:
    """Whether a name can be written to a file; Python reads the bytes of other names as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def why_unusable(name: str) -> str | None:
    """Why a file name cannot stand in a CSV file or in a message; None if it can."""
    if name.isascii() and name.isprintable() and len(name) <= LONGEST:
        return None
    if not is_utf8(name):
        return "is not UTF-8"
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        return "has a line break or another control character"
    if len(name.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return None


def without_suffix(img: str) -> str:
    """The name of an image without its suffix, with its folder: ``car/front`` of ``car/front.jpg``."""
    return posixpath.splitext(img)[0]


def suffix(name: str) -> str:
    """The suffix of a file name in lower case, such as ``.jpg``."""
    return posixpath.splitext(name)[1].lower()


def mask_key(img: str) -> str:
    """What a photo and its mask have in common: the name in lower case without its suffix and ``_mask``."""
    key = without_suffix(img).lower()
    while key.endswith("_mask"):
        key = key.removesuffix("_mask")
    return key
