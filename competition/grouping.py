"""Which car a photo shows, from its name: all photos of a car are in one fold."""

import re

NAME = re.compile(r"(?P<car>.+)_(?P<view>\d{1,4})")


def car_and_view(stem: str) -> tuple[str, int]:
    """The car and view of ``<car>_<view>``; a photo whose name does not end in a view is view 1 of its own car."""
    match = NAME.fullmatch(stem)
    return (match["car"], int(match["view"])) if match else (stem, 1)
