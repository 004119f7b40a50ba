"""Pair photos with their masks by file name.

Names are compared without case, separators and Unicode form, and without words such as ``mask`` or ``photo`` at their
beginning or end: ``Käfer 01.JPG``, ``käfer-01_mask.png`` and ``mask_KÄFER_01.png`` are alike. If photos and
masks lie in several folders, the folders must be alike, too: ``images/red/1.jpg`` and ``masks/red/1.png``.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from competition.command import Failure
from competition.orientation import Pair

MASK_WORDS = frozenset(
    {
        "mask",
        "masks",
        "seg",
        "segs",
        "segmentation",
        "segmentations",
        "matte",
        "mattes",
        "label",
        "labels",
        "gt",
        "ground",
        "truth",
        "groundtruth",
        "annotation",
        "annotations",
        "alpha",
        "silhouette",
        "silhouettes",
        "trimap",
    }
)
PHOTO_WORDS = frozenset(
    {
        "image",
        "images",
        "img",
        "imgs",
        "photo",
        "photos",
        "picture",
        "pictures",
        "pic",
        "pics",
        "rgb",
        "original",
        "originals",
        "orig",
        "input",
        "inputs",
        "jpg",
        "jpeg",
        "png",
        "webp",
        "tif",
        "tiff",
        "bmp",
        "heic",
    }
)
MASK_AFFIX = re.compile(
    rf"^(?:(?:{'|'.join(MASK_WORDS)})[\W_]+)+|(?:[\W_]+(?:{'|'.join(MASK_WORDS)}))+$", re.IGNORECASE
)
SEPARATORS = re.compile(r"[\W_]+")

Key = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Pairing:
    """Photos with their masks, in the order of the photos, and the files that are left over."""

    pairs: list[Pair]
    photos: list[Path]
    masks: list[Path]


def pair(photos: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """Pair photos and masks, given by their paths within their folders. Fails if a pair is ambiguous."""
    partners = dict(_pairs(photos, masks, _folders_count(photos, masks), level=0))
    taken = set(partners.values())
    return Pairing(
        [Pair(photo, partners[photo]) for photo in photos if photo in partners],
        [photo for photo in photos if photo not in partners],
        [mask for mask in masks if mask not in taken],
    )


def is_mask(path: Path) -> bool:
    """Whether a path within a folder of photos and masks is that of a mask, by the words in it."""
    words = _words(path.stem)
    folders = (word for part in path.parent.parts for word in _words(part))
    return bool(MASK_WORDS.intersection([*words[:1], *words[-1:], *folders]))


def folder_of(path: Path) -> tuple[str, ...]:
    """The folders of a photo or mask that say which one it is: ``red`` of ``images/red/photos/1.jpg``."""
    return tuple(part for part in path.parent.parts if _without(part, MASK_WORDS | PHOTO_WORDS))


def _folder(path: Path) -> tuple[str, ...]:
    return tuple(" ".join(_without(part, MASK_WORDS | PHOTO_WORDS)) for part in folder_of(path))


def _folders_count(photos: Iterable[Path], masks: Iterable[Path]) -> bool:
    """Whether the folders of a photo and of its mask have to agree, because both have some in common or several."""
    theirs, others = ({_folder(path) for path in paths} for paths in (photos, masks))
    common = theirs & others - {()}
    return min(len(theirs), len(others)) > 1 or (bool(common) and len(theirs | others) > 1)


def _pairs(photos: Iterable[Path], masks: Iterable[Path], by_folder: bool, level: int) -> list[Pair]:
    """Pairs of files with equal keys; where several files have one key, a key that ignores less decides."""
    groups: dict[Key, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for kind, paths in enumerate((photos, masks)):
        for path in paths:
            groups[_key(path, by_folder, level)][kind].append(path)
    pairs: list[Pair] = []
    for alike, theirs in groups.values():
        if len(alike) == len(theirs) == 1:
            pairs.append(Pair(alike[0], theirs[0]))
        elif alike and theirs:
            closer = _pairs(alike, theirs, by_folder, level + 1) if level < len(LEVELS) - 1 else []
            if len(closer) < len(theirs):  # a mask would be left over that fits as well
                raise _ambiguous(alike, theirs)
            pairs += closer
    return pairs


def _key(path: Path, by_folder: bool, level: int) -> Key:
    return LEVELS[level](path.stem), (_folder(path) if by_folder else ())


def _without(name: str, ignored: frozenset[str]) -> tuple[str, ...]:
    """The words of a name without those at its beginning and end that are ignored."""
    words = list(_words(name))
    while words and words[-1] in ignored:
        words.pop()
    while words and words[0] in ignored:
        words.pop(0)
    return tuple(words)


def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in SEPARATORS.split(unicodedata.normalize("NFC", name).casefold()) if word)


# What is compared, from the key that ignores most to the name as it is.
LEVELS = (
    lambda stem: _without(stem, MASK_WORDS | PHOTO_WORDS),
    lambda stem: _without(stem, MASK_WORDS),
    lambda stem: (MASK_AFFIX.sub("", unicodedata.normalize("NFC", stem)),),
)


def _ambiguous(photos: Sequence[Path], masks: Sequence[Path]) -> Failure:
    files = " or ".join(str(mask) for mask in masks[:3])
    others = f" or {photos[1]}" if len(photos) > 1 else ""
    return Failure(f"{files} may be the mask of {photos[0]}{others}; rename or remove files until each fits one")
