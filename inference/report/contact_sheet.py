"""The test photos whose masks the networks are least and most sure of, by the expected Dice in certainty.csv.

The expected Dice is the Dice that a mask would have if the predicted probabilities were right. It compares photos
with each other; the networks may be sure and wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from competition import csv_file, rle
from competition.command import Failure
from competition.data_folder import DataFolder, fingerprint_of
from competition.files import sha256
from competition.hint import hint
from competition.mask_table import MaskRow
from competition.photo import Photo
from competition.run.folder import RunFolder
from competition.run.records import SubmissionRecord
from inference.report.pictures import outline, photo_at

LEAST_SURE, SUREST = 12, 4
MOST_OF_A_CAR = 2  # so that one difficult car does not fill the sheet
WIDTH = 400  # of a photo in pixels; it is shown at 270 to 358


@dataclass(frozen=True)
class Choice:
    """The photos of the contact sheet, or why there are none.

    Attributes:
        expected_dice: of every test photo, by name.
        least_sure: the photos with the lowest expected Dice, in ascending order.
        surest: those with the highest, in descending order.
        reason: why there is no contact sheet; empty if there is one.
    """

    expected_dice: dict[str, float] = field(default_factory=dict)
    least_sure: list[Photo] = field(default_factory=list)
    surest: list[Photo] = field(default_factory=list)
    reason: str = ""

    @property
    def names(self) -> set[str]:
        """The names of the chosen photos."""
        return {photo.img for photo in self.least_sure + self.surest}

    @property
    def mean(self) -> float:
        """The mean expected Dice of all test photos."""
        return sum(self.expected_dice.values()) / len(self.expected_dice)


@dataclass(frozen=True)
class Tile:
    """A test photo with its mask: a data URI, and an SVG path in the photo's pixels; ``area`` is a part of it."""

    img: str
    expected_dice: float
    area: float
    height: int
    width: int
    photo: str
    outline: str


def choose(run: RunFolder, data: DataFolder) -> Choice:
    """Choose photos of the run's submission."""
    again = f"remove {run.submission_record}, then {hint('predict', RUN=run.called)}"
    if not run.submission.is_file():
        return Choice(reason=f"there is no submission file yet; {hint('predict', RUN=run.called)} writes it")
    record = SubmissionRecord.read_if_exists(run.submission_record)
    if not run.certainty.is_file() or record is None or record.sha256 != sha256(run.submission):
        return Choice(reason=f"the submission has no {run.certainty.name} of the same prediction; {again}")
    certainty = _read(run, again)
    try:
        photos = {photo.img: photo for photo in data.test}
    except Failure as failure:
        return Choice(reason=f"the test photos cannot be read: {failure}")
    predicted = [photos[img] for img in certainty if img in photos]
    if len(predicted) < len(certainty) or fingerprint_of(predicted) != record.photos:
        return Choice(reason=f"the test photos in {data.root} are not those that were predicted")
    least_sure, surest = first_and_last(pd.DataFrame({"photo": predicted, "dice": certainty.values()}))
    return Choice(certainty, least_sure, surest)


def first_and_last(certainty: pd.DataFrame) -> tuple[list[Photo], list[Photo]]:
    """The photos with the lowest and with the highest ``dice``, none in both, a few of each car at most."""
    ranked = certainty.sort_values("dice", kind="stable").reset_index(drop=True)
    ranked["car"] = [photo.car for photo in ranked["photo"]]
    least_sure = ranked[ranked.groupby("car").cumcount() < MOST_OF_A_CAR].head(LEAST_SURE)
    rest = ranked.drop(least_sure.index).iloc[::-1]
    surest = rest[rest.groupby("car").cumcount() < MOST_OF_A_CAR].head(SUREST)
    return list(least_sure["photo"]), list(surest["photo"])


def draw(choice: Choice, rows: Mapping[str, MaskRow]) -> tuple[list[Tile], list[Tile]]:
    """The tiles of the photos that were chosen, least sure and surest, with the masks of the submission's rows."""

    def tile(photo: Photo) -> Tile:
        height, width = photo.shape
        spans = rows[photo.img].spans(photo.shape)
        return Tile(
            photo.img,
            choice.expected_dice[photo.img],
            rle.area(spans) / (height * width),
            height,
            width,
            photo_at(photo, WIDTH, quality=78),
            outline(rle.to_mask(spans, photo.shape), tolerance=width / WIDTH),
        )

    return list(map(tile, choice.least_sure)), list(map(tile, choice.surest))


def _read(run: RunFolder, again: str) -> dict[str, float]:
    """The expected Dice of each image in certainty.csv."""
    table = csv_file.read(run.certainty, ["img", "expected_dice"], advice=again)
    try:
        return {img: float(dice) for img, dice in (line.fields for line in table.rows)}
    except ValueError as error:
        raise Failure(f"{run.certainty}: {error}; {again}") from error
