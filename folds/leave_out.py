"""``data.leave_out``: photos that no fold learns from, such as photos with wrong masks. They are still scored."""

import difflib
from collections.abc import Iterable, Sequence

from competition.command import Failure
from competition.names import canonical
from competition.photo import Photo


def without(photos: Iterable[Photo], leave_out: Sequence[str]) -> list[Photo]:
    """The photos that neither an image name (``<car>_<view>.jpg``) nor a car name in ``leave_out`` excludes."""
    names = set(map(canonical, leave_out))
    remaining = [photo for photo in photos if not names & {photo.img, photo.car}]
    if not remaining:
        raise Failure(f"data.leave_out={list(leave_out)} leaves no photo to learn from; name fewer images or cars")
    return remaining


def require_known(photos: Iterable[Photo], leave_out: Iterable[str]) -> None:
    """Raise a Failure if a name in ``leave_out`` is neither an image nor a car; it suggests the closest name."""
    known = {name for photo in photos for name in (photo.img, photo.car)}
    for name in leave_out:
        if canonical(name) not in known:
            [near] = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise Failure(f"data.leave_out names {name}, which is no image or car of the data; did you mean {near}?")
