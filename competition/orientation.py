"""Which photos are turned by their EXIF orientation, and how their mask files are turned to fit them.

A photo whose EXIF orientation is applied is read as viewers display it. Its mask may have been drawn on the displayed
photo, as usual, or by a program that shows the stored pixels. The size of the mask tells which, unless the displayed
and the stored photo have the same size: a square photo, or one that is mirrored or upside down. Then the other masks
of the data set decide. Rows of train_masks.csv have no size: they belong to the photo as it is read.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from competition.command import Failure
from competition.exif import UPRIGHT, swaps_sides, turned_shape
from competition.images import orientation_of, shape_of
from competition.plural import counted
from competition.settings.schema import Orientation

CARVANA = re.compile(r"[0-9a-f]{12}_(0[1-9]|1[0-6])")


class Pair(NamedTuple):
    """The files of a photo and of its mask."""

    photo: Path
    mask: Path


class Drawn(NamedTuple):
    """The mask files of turned photos by the pixels on which they were drawn, as their sizes tell."""

    displayed: list[Path]
    stored: list[Path]
    undecided: list[Path]


def applies(stem: str, setting: Orientation) -> bool:
    """Whether the EXIF orientation of the photo with this name, without suffix, is applied.

    Carvana's masks were drawn on the stored pixels. ``auto`` recognizes Carvana's photos by their names.
    """
    return setting == "displayed" or (setting == "auto" and not CARVANA.fullmatch(stem))


def readable_orientation(path: Path) -> int:
    """The EXIF orientation of an image; 1 for a file that cannot be read, which is refused where it is read."""
    try:
        return orientation_of(path)
    except Failure:
        return UPRIGHT


def drawn(pairs: Iterable[Pair]) -> Drawn:
    """Sort the masks of turned photos by what their sizes tell, from the headers.

    Masks that tell it by an EXIF orientation of their own, and files that cannot be read, are left out.
    """
    found = Drawn([], [], [])
    for pair in pairs:
        with suppress(Failure):
            if orientation_of(pair.mask) == UPRIGHT:
                kinds = _drawn_on(pair)
                for kind in kinds if len(kinds) < 2 else ["undecided"]:
                    getattr(found, kind).append(pair.mask)
    return found


def turn_of_mask(pair: Pair, all_masks: Callable[[], Drawn]) -> int:
    """The orientation that turns a mask file, as it is stored, to the displayed photo.

    Args:
        pair: the photo, which is displayed by its EXIF orientation, and the mask.
        all_masks: gives ``drawn`` of the data set; called only if the size of this mask does not tell.
    """
    orientation, own = orientation_of(pair.photo), orientation_of(pair.mask)
    if orientation == UPRIGHT or own != UPRIGHT:
        return own
    kinds = _drawn_on(pair)
    if len(kinds) == 2:
        others = all_masks()
        if others.displayed and others.stored:
            raise Failure(
                f"{pair.mask} fits {pair.photo} with and without its EXIF orientation, and the other masks differ: "
                f"{others.displayed[0]} fits its photo with it, {others.stored[0]} without; draw the masks on photos "
                "that were saved upright, without an orientation, or on the stored pixels of all photos and set "
                "data.orientation=stored"
            )
        kinds = ["stored" if others.stored else "displayed"]
    return orientation if kinds == ["stored"] else UPRIGHT


def require_same_size(pair: Pair, *, upright: bool, turn: int, check: str | None = None) -> None:
    """Fail unless a mask file has the size of its photo.

    Args:
        pair: the files.
        upright: whether the EXIF orientation of the photo is applied.
        turn: the orientation that is applied to the mask.
        check: the command that lists all problems, where there is one.
    """
    height, width = shape_of(pair.photo, upright=upright)
    mask_height, mask_width = turned_shape(shape_of(pair.mask), turn)
    if (height, width) != (mask_height, mask_width):
        raise Failure(
            f"{pair.mask} is {mask_width} x {mask_height}{_remark(turn, True)}, but {pair.photo} is "
            f"{width} x {height}{_remark(orientation_of(pair.photo), upright)}; a mask must have the size of its "
            "photo" + (f" (`{check}` lists all problems)" if check else "")
        )


@dataclass(frozen=True)
class Orientations:
    """The EXIF orientations of a data set.

    Attributes:
        applied: the number of photos with each orientation, 1 to 8, where orientations are applied.
        ignored: the same where they are ignored.
        masks: how the mask files of the turned training photos were drawn.
        rows: the number of turned training photos that have only a row of train_masks.csv.
    """

    applied: Counter[int]
    ignored: Counter[int]
    masks: Drawn
    rows: int

    def facts(self) -> list[str]:
        """What a person should know about the orientations, one line each; none if no photo has one."""
        lines = []
        for done, found in (("applied", self.applied), ("ignored", self.ignored)):
            turned = {orientation: count for orientation, count in sorted(found.items()) if orientation != UPRIGHT}
            if turned:
                each = ", ".join(f"{count:,} x {orientation}" for orientation, count in turned.items())
                lines.append(f"EXIF orientation of {counted(sum(turned.values()), 'photo')} {done} ({each})")
        displayed, stored, _ = self.masks
        if displayed or stored:
            lines.append(
                f"masks of turned photos: {len(displayed):,} were drawn on the displayed photo, {len(stored):,} on "
                "the stored pixels"
            )
        return lines

    def notes(self) -> list[str]:
        """What could not be decided, one line each."""
        notes = []
        displayed, stored, undecided = self.masks
        if undecided and not (displayed and stored):
            how = "like those of the other turned photos" if displayed or stored else "on the displayed photo"
            notes.append(
                f"the sizes of {len(undecided):,} masks do not tell whether they were drawn on the displayed photo, "
                f"such as {undecided[0]}; taken as drawn {how}. If they do not fit, set data.orientation=stored"
            )
        if self.rows:
            notes.append(f"rows of train_masks.csv belong to the displayed photo; {self.rows:,} are of turned photos")
        return notes


def _drawn_on(pair: Pair) -> list[str]:
    """The pixels of a turned photo that have the size of its mask: displayed, stored, both or none."""
    size = shape_of(pair.mask)
    kinds = {"displayed": shape_of(pair.photo, upright=True), "stored": shape_of(pair.photo)}
    return [kind for kind, shape in kinds.items() if shape == size]


def _remark(orientation: int, applied: bool) -> str:
    """What an EXIF orientation does to a size, as a continuation of the sentence."""
    if not swaps_sides(orientation):
        return ""
    if applied:
        return f" with its EXIF orientation {orientation} applied"
    return f" without its EXIF orientation {orientation}, which data.orientation=displayed applies"
