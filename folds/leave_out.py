"""Photos that no fold learns from, because their masks are wrong for example; they are scored all the same."""

import difflib
from collections.abc import Iterable, Sequence

from competition.command import Failure
from competition.data_folder import Photo


def without(photos: Iterable[Photo], leave_out: Sequence[str]) -> list[Photo]:
    """The photos that remain.

    Args:
        photos: of the folds to learn from.
        leave_out: names of images, ``<car>_<view>.jpg``, or of whole cars.

    Raises:
        Failure: none remains.
    """
    names = set(leave_out)
    remaining = [photo for photo in photos if not names & {photo.img, photo.car}]
    if not remaining:
        raise Failure(f"data.leave_out={list(leave_out)} leaves nothing to learn from; name fewer")
    return remaining


def require_known(photos: Iterable[Photo], leave_out: Iterable[str]) -> None:
    """Raise a Failure that names the nearest there is, if a name is neither an image's nor a car's."""
    known = {name for photo in photos for name in (photo.img, photo.car)}
    for name in leave_out:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise Failure(f"data.leave_out names {name}, which is no image and no car of the data; {near[0]} is")
