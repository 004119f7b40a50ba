"""Training images with their mistakes: the worst, those with suspicious labels, typical ones and the best."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from competition import metrics, rle
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.hint import hint
from competition.images import Pixels
from competition.mask_table import read_rows
from competition.photo import Photo
from inference.report.mistakes import RIGHT, Window, count, mistakes, worst_windows
from inference.report.pictures import jpeg, narrowed, outline, overlay, photo_at
from inference.report.results import ROUNDING, Results
from inference.report.suspects import suspects
from inference.report.tables import description

WORST, SUSPECTS, TYPICAL, BEST = 12, 6, 4, 2
MOST_OF_A_CAR = 3  # so that one difficult car does not fill the list
CROPS = 2
CROP = (288, 352)  # height, width in pixels: two of them and the whole photo make a row of the page
WHOLE_WIDTH = 720  # width of the whole photo in pixels: shown at 432, so that it is sharp on most screens
THUMBNAIL_WIDTH = 132
# Largest distance in pixels of the drawn outline from the predicted one: less than a screen can show.
TOLERANCE = 1.0


@dataclass(frozen=True)
class Crop:
    """A part of the photo at full size, and an image of its mistakes to draw over it; both are data URIs."""

    window: Window
    photo: str
    mistakes: str
    missed: int
    extra: int


@dataclass(frozen=True)
class Case:
    """One image of the gallery.

    Attributes:
        shown: the part of the wrong pixels that is in the crops; 1 if no pixel is wrong.
        photo: a data URI.
        outline: an SVG path in the image's pixels.
    """

    img: str
    car: str
    view: int
    fold: int
    description: str
    dice: float
    iou: float
    missed: int
    extra: int
    shown: float
    height: int
    width: int
    photo: str
    outline: str
    crops: list[Crop]


@dataclass(frozen=True)
class Chapter:
    """Images of one kind, with a title and an explanation."""

    title: str
    explanation: str
    cases: list[Case]


def gallery(
    results: Results, data: DataFolder, predicted: Mapping[str, str], measured: pd.DataFrame
) -> list[Chapter]:
    """The chapters of the gallery; one image may be in several.

    Args:
        results: the scored run.
        data: its photos and masks.
        predicted: the run-length code of each scored image.
        measured: of ``suspects.measure``.
    """
    photos = {photo.img: photo for photo in data.train}
    chosen = choose(results.scores)
    chosen[1:1] = _suspicious(measured)
    imgs = list(dict.fromkeys(img for _, _, chapter in chosen for img in chapter))
    scores = {str(row["img"]): row for _, row in results.scores[results.scores["img"].isin(imgs)].iterrows()}
    cases = {}
    for img in tqdm(imgs, desc="gallery", unit="image", disable=None):
        cases[img] = _case(results, data, photos[img], scores[img], predicted[img])
    return [Chapter(title, explanation, [cases[img] for img in chapter]) for title, explanation, chapter in chosen]


def choose(scores: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """The images to show: (title, explanation, names) of each chapter that is not empty."""
    ranked = scores.sort_values(["dice", "img"]).reset_index(drop=True)
    worst = ranked[ranked.groupby("car").cumcount() < MOST_OF_A_CAR].head(WORST)
    rest = ranked.drop(worst.index)
    best = rest.iloc[::-1].drop_duplicates("car").head(BEST)
    # The middle of all images, not of the remaining ones.
    others = rest.drop(best.index)
    from_middle = (others.index.to_series() - (len(ranked) - 1) / 2).abs().sort_values(kind="stable")
    typical = others.loc[from_middle.index[: 4 * TYPICAL]].drop_duplicates("car").head(TYPICAL).sort_index()
    chapters = [
        (
            "Worst images",
            f"The images with the lowest Dice, the worst first, at most {MOST_OF_A_CAR} of one car.",
            worst,
        ),
        ("Typical images", "Images of different cars whose Dice is near the median.", typical),
        ("Best images", "Images of different cars with the highest Dice.", best),
    ]
    return [(title, text, [str(img) for img in table["img"]]) for title, text, table in chapters if len(table)]


def predictions(results: Results, data: DataFolder) -> dict[str, str]:
    """The run-length codes of all scored images, from oof.csv.gz."""
    wanted = set(results.scores["img"])
    unknown = sorted(wanted - {photo.img for photo in data.train})
    if unknown:
        raise Failure(
            f"{results.run.oof_scores} scores {unknown[0]}, which is not a training photo; "
            f"{hint('score', RUN=results.run.called)} writes it again"
        )
    rows = tqdm(read_rows(results.run.oof), desc="masks", unit="image", disable=None, leave=False)
    found = {row.img: row.rle for row in rows if row.img in wanted}
    missing = sorted(wanted - set(found))
    if missing:
        raise Failure(
            f"{results.run.oof} has no row for {missing[0]}, which {results.run.oof_scores.name} scores; "
            f"{hint('score', RUN=results.run.called)} writes both"
        )
    return found


def view_thumbnails(data: DataFolder, views: Iterable[int]) -> dict[int, str]:
    """For each view a small photo as a data URI, of as few cars as possible."""
    first: dict[int, Photo] = {}
    for photo in data.train:
        first.setdefault(photo.view, photo)
    return {view: photo_at(first[view], THUMBNAIL_WIDTH, quality=72) for view in views}


def _suspicious(measured: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """The chapter of labels that may be wrong, or nothing."""
    found = suspects(measured, SUSPECTS)
    if not found:
        return []
    text = (
        "Images whose predicted mask differs from the label over whole patches, far more than in other images of "
        "the same car: either the prediction or the label is wrong. Look at each. An image with a wrong label can be "
        f"left out of training, but not out of the score: SET=data.leave_out=[{found[0].img}]"
    )
    return [("Suspicious labels", text, [suspect.img for suspect in found])]


def _case(results: Results, data: DataFolder, photo: Photo, score: "pd.Series[Any]", code: str) -> Case:
    rgb = photo.read()
    truth = data.truth(photo)
    predicted = rle.decode(code, truth.shape)
    counted = metrics.counts(truth, predicted)
    if abs(counted.dice - score["dice"]) > ROUNDING:
        raise Failure(
            f"{results.run.oof_scores} gives {photo.img} the Dice {score['dice']:.5f}, its mask in "
            f"{results.run.oof.name} has {counted.dice:.5f}: they come from different calls; "
            f"{hint('score', RUN=results.run.called)} writes both"
        )
    wrong = mistakes(truth, predicted)
    windows = worst_windows(wrong, CROP, CROPS)
    missed, extra = count(wrong)
    return Case(
        img=photo.img,
        car=photo.car,
        view=photo.view,
        fold=int(score["fold"]),
        description=description(score),
        dice=counted.dice,
        iou=counted.iou,
        missed=missed,
        extra=extra,
        shown=_shown(wrong, windows),
        height=rgb.shape[0],
        width=rgb.shape[1],
        photo=jpeg(narrowed(rgb, WHOLE_WIDTH), quality=80),
        outline=outline(predicted, TOLERANCE),
        crops=[_crop(rgb, wrong, window) for window in windows],
    )


def _crop(rgb: Pixels, wrong: Pixels, window: Window) -> Crop:
    missed, extra = count(window.of(wrong))
    return Crop(window, jpeg(window.of(rgb), quality=88), overlay(window.of(wrong)), missed, extra)


def _shown(wrong: Pixels, windows: Iterable[Window]) -> float:
    """The part of the wrong pixels that lies in any of the windows."""
    hidden = wrong.copy()
    for window in windows:
        window.of(hidden)[:] = RIGHT
    everything = np.count_nonzero(wrong)
    return 1 - np.count_nonzero(hidden) / everything if everything else 1.0
