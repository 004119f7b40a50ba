"""What a person needs to judge a data folder: the end of ``make check``."""

import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from competition.data_folder import MASKS, DataFolder
from competition.mask_file import Values
from competition.mask_values import describe_values
from competition.names import suffix
from competition.photo import Photo
from competition.plural import counted
from competition.rle import Shape

WIDTH = 100
SHOWN = 4  # sizes, formats or values in a line

Line = tuple[str, str]


@dataclass
class Facts:
    """What was seen while the files of a data folder were read.

    Attributes:
        train: the training photos.
        test: the test photos.
        unread: the folders whose files are not read, because of a problem of their names or kinds.
        shapes: (height, width) of the photos that can be read, by name, of train and test together.
        areas: the part of each training photo that its mask covers, by the photo's name.
        values: the values of each mask file that can be read.
        inverted: the training photos whose masks look inverted.
        rows: the number of photos with a row in train_masks.csv.
        sample: the number of names in sample_submission.csv; None if there is no such file.
    """

    train: list[Photo] = field(default_factory=list)
    test: list[Photo] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    shapes: Counter[Shape] = field(default_factory=Counter)
    areas: dict[str, float] = field(default_factory=dict)
    values: list[Values] = field(default_factory=list)
    inverted: list[Photo] = field(default_factory=list)
    rows: int = 0
    sample: int | None = None


def summary(data: DataFolder, facts: Facts) -> list[Line]:
    """The summary in lines of a name and a text; names repeat only if a fact takes several lines."""
    kinds = Counter(suffix(photo.path.name) for photo in (*facts.train, *facts.test))
    counts = (
        _files(facts, "train", f"{len(facts.train):,} to train"),
        _files(facts, "test", f"{len(facts.test):,} to predict"),
    )
    lines: list[Line] = [("photos", ", ".join(counts))]
    lines.append(("formats", _counts((f"{kind[1:]} ({count:,})", count) for kind, count in kinds.items())))
    sizes = ((f"{width} x {height} ({count:,})", count) for (height, width), count in facts.shapes.items())
    lines.append(("sizes", _counts(sizes)))
    if facts.train:
        lines += _orientation(data, facts)
        lines += _cars(data)
        files = _files(facts, MASKS, counted(len(facts.values), "file"))
        lines.append(("masks", f"{files}, {counted(facts.rows, 'row')} of {data.masks_csv.name}"))
        lines += [("values", text) for text in describe_values(facts.values)[:SHOWN]]
        lines += _areas(facts.areas)
    lines.append(("test set", _test(facts)))
    return lines


def aligned(lines: Iterable[Line]) -> list[str]:
    """Lines of a name and a text as two columns; long texts continue below, and a name is not repeated."""
    found = list(lines)
    width = max((len(name) for name, _ in found), default=0) + 2
    printed: list[str] = []
    before = ""
    for name, text in found:
        head = ("" if name == before else name).ljust(width)
        rows = textwrap.wrap(text, WIDTH - width, break_long_words=False, break_on_hyphens=False) or [""]
        printed += [head + rows[0], *(" " * width + row for row in rows[1:])]
        before = name or before
    return printed


def _files(facts: Facts, kind: str, count: str) -> str:
    """The number of files of a kind, or the folder that holds them if its files are not read."""
    unread = next((folder for folder in facts.unread if folder in (kind, f"{kind}_hq")), None)
    return f"{unread}/ not read (see above)" if unread else count


def _orientation(data: DataFolder, facts: Facts) -> list[Line]:
    orientations = data.orientations(facts.train, facts.test)
    found = orientations.facts() or ["no photo has an EXIF orientation"]
    return [("orientation", text) for text in (*found, *(f"note: {note}" for note in orientations.notes()))]


def _cars(data: DataFolder) -> list[Line]:
    groups = data.groups
    found = f"{groups} (data.cars={data.settings.cars})"
    return [("cars", text) for text in (found, *(f"warning: {warning}" for warning in groups.warnings))]


def _areas(areas: dict[str, float]) -> list[Line]:
    if not areas:
        return []
    ordered = sorted(areas, key=lambda img: (areas[img], img))
    chosen = {"smallest": ordered[0], "median": ordered[len(ordered) // 2], "largest": ordered[-1]}
    return [("areas", f"{name:8} {100 * areas[img]:5.1f} % {img}") for name, img in chosen.items()]


def _test(facts: Facts) -> str:
    if not facts.test:
        return _files(facts, "test", "none; `make predict` will need photos in test/")
    names = "no sample_submission.csv" if facts.sample is None else f"{facts.sample:,} in sample_submission.csv"
    return f"{counted(len(facts.test), 'photo')}, {names}"


def _counts(texts: Iterable[tuple[str, int]]) -> str:
    """Texts by decreasing count; the rest is summed up."""
    ordered = sorted(texts, key=lambda item: -item[1])
    rest = ordered[SHOWN:]
    shown = [text for text, _ in ordered[:SHOWN]]
    if rest:
        shown.append(f"{len(rest)} others ({sum(count for _, count in rest):,})")
    return ", ".join(shown)
