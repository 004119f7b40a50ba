"""Images with their mistakes: the worst, those whose labels may be wrong, the usual and the best."""

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from competition import metrics, rle
from competition.command import Failure
from competition.data_folder import DataFolder, Photo
from competition.images import Pixels, read_halved, read_rgb, shape_of
from competition.mask_table import read_rows
from inference.report.mistakes import Window, count, mistakes, worst_windows
from inference.report.results import ROUNDING, Results
from inference.report.suspects import measure, suspects
from inference.report.tables import description

WORST, SUSPECTS, USUAL, BEST = 12, 6, 4, 2
MOST_OF_A_CAR = 3  # one difficult car shall not fill the list
CROPS = 2
CROP = (288, 352)  # height, width in pixels: two of them and the whole photo make a row of the page
WHOLE_WIDTH = 720  # pixels at which the whole photo is kept: sharp at 432 on most screens
THUMBNAIL_WIDTH = 132
# Blue and orange differ to every colour vision; red and green do not. The same values stand in page.css.
MISSED_COLOUR, INVENTED_COLOUR = (255, 94, 0), (0, 110, 255)
# Deviation, in pixels, that a drawn outline may have from the predicted one: less than a screen can show.
TOLERANCE = 1.0


@dataclass(frozen=True)
class Crop:
    """A part of the photo at full size, and its mistakes as a picture to lay over it; both as data URIs."""

    window: Window
    photo: str
    mistakes: str
    missed: int
    invented: int


@dataclass(frozen=True)
class Case:
    """One image of the gallery. ``photo`` is a data URI; ``outline`` is an SVG path in the image's pixels."""

    img: str
    car: str
    view: int
    fold: int
    description: str
    dice: float
    iou: float
    missed: int
    invented: int
    height: int
    width: int
    photo: str
    outline: str
    crops: list[Crop]


@dataclass(frozen=True)
class Chapter:
    """Images of one kind."""

    title: str
    explanation: str
    cases: list[Case]


def gallery(results: Results, data: DataFolder) -> list[Chapter]:
    """The chapters of the gallery; an image may be among the worst and have a suspicious label.

    Raises:
        Failure: a photo, a mask or a prediction is missing or damaged, or oof_scores.csv has another score
            than the masks give.
    """
    photos = {photo.img: photo for photo in data.train}
    predicted = _predictions(results, photos)
    chosen = choose(results.scores)
    chosen[1:1] = _suspicious(results, data, predicted, photos)
    imgs = list(dict.fromkeys(img for _, _, chapter in chosen for img in chapter))
    scores = {str(row["img"]): row for _, row in results.scores[results.scores["img"].isin(imgs)].iterrows()}
    cases = {}
    for img in tqdm(imgs, desc="gallery", unit="image", disable=None):
        cases[img] = _case(results, data, photos[img], scores[img], predicted[img])
    return [Chapter(title, explanation, [cases[img] for img in chapter]) for title, explanation, chapter in chosen]


def choose(scores: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """Which images to show: (title, explanation, names), for each chapter that has any."""
    ranked = scores.sort_values(["dice", "img"]).reset_index(drop=True)
    worst = ranked[ranked.groupby("car").cumcount() < MOST_OF_A_CAR].head(WORST)
    rest = ranked.drop(worst.index)
    best = rest.iloc[::-1].drop_duplicates("car").head(BEST)
    # From the middle of all images, not of those that are left.
    others = rest.drop(best.index)
    from_middle = (others.index.to_series() - (len(ranked) - 1) / 2).abs().sort_values(kind="stable")
    usual = others.loc[from_middle.index[: 4 * USUAL]].drop_duplicates("car").head(USUAL).sort_index()
    chapters = [
        (
            "The worst",
            f"The images with the lowest Dice, the worst first, at most {MOST_OF_A_CAR} of one car.",
            worst,
        ),
        ("The usual", "Images of different cars around the median: half of all are better than these.", usual),
        ("The best", "What is left to gain where everything went well, on different cars.", best),
    ]
    return [(title, text, [str(img) for img in table["img"]]) for title, text, table in chapters if len(table)]


def view_thumbnails(data: DataFolder, views: Iterable[int]) -> dict[int, str]:
    """View to a small photo of it as a data URI, of as few cars as can be."""
    first: dict[int, Photo] = {}
    for photo in data.train:
        first.setdefault(photo.view, photo)
    return {view: _thumbnail(first[view]) for view in views}


def _thumbnail(photo: Photo) -> str:
    height, width = shape_of(photo.path)
    rgb, _ = read_halved(photo.path, at_least=(height * THUMBNAIL_WIDTH // width, THUMBNAIL_WIDTH))
    return jpeg(_narrowed(rgb, THUMBNAIL_WIDTH), quality=72)


def _suspicious(
    results: Results, data: DataFolder, predicted: Mapping[str, str], photos: Mapping[str, Photo]
) -> list[tuple[str, str, list[str]]]:
    """The chapter of labels that may be wrong, if there are any."""
    try:
        found = suspects(measure(predicted.items(), photos, data), SUSPECTS)
    except ValueError as error:
        raise Failure(f"{results.run.oof}, {error}; make score RUN={results.run.called}") from error
    if not found:
        return []
    text = (
        "Images whose mask differs from the label over patches, and not along an edge, far more than those of the "
        "same car do: the network has blundered, or the label is wrong. Look at each. A label that is wrong can be "
        f"left out of training, never out of the score: SET=data.leave_out=[{found[0].img}]"
    )
    return [("Suspicious labels", text, [suspect.img for suspect in found])]


def _predictions(results: Results, photos: Mapping[str, Photo]) -> dict[str, str]:
    """The run-length codes of all scored images, from oof.csv.gz."""
    wanted = set(results.scores["img"])
    if wanted - photos.keys():
        raise Failure(
            f"{results.run.oof_scores} scores {min(wanted - photos.keys())}, of which there is no training photo"
        )
    rows = tqdm(_rows(results), desc="masks", unit="image", disable=None, leave=False)
    found = {img: code for img, code in rows if img in wanted}
    missing = sorted(wanted - set(found))
    if missing:
        raise Failure(
            f"{results.run.oof} has no row for {missing[0]}, which {results.run.oof_scores.name} scores; "
            f"make score RUN={results.run.called} writes both"
        )
    return found


def _rows(results: Results) -> Iterator[tuple[str, str]]:
    for row in read_rows(results.run.oof):
        yield row.img, row.rle


def _case(results: Results, data: DataFolder, photo: Photo, score: "pd.Series[Any]", code: str) -> Case:
    rgb = read_rgb(photo.path)
    truth = data.truth(photo)
    try:
        predicted = rle.decode(code, truth.shape)
    except ValueError as error:
        raise Failure(f"{results.run.oof}, {photo.img}: {error}; make score RUN={results.run.called}") from error
    counted = metrics.counts(truth, predicted)
    if abs(counted.dice - score["dice"]) > ROUNDING:
        raise Failure(
            f"{results.run.oof_scores} gives {photo.img} the Dice {score['dice']:.5f}, its mask in "
            f"{results.run.oof.name} has {counted.dice:.5f}: they come from different calls; "
            f"make score RUN={results.run.called} writes both"
        )
    wrong = mistakes(truth, predicted)
    missed, invented = count(wrong)
    return Case(
        img=photo.img,
        car=photo.car,
        view=photo.view,
        fold=int(score["fold"]),
        description=description(score),
        dice=counted.dice,
        iou=counted.iou,
        missed=missed,
        invented=invented,
        height=rgb.shape[0],
        width=rgb.shape[1],
        photo=jpeg(_narrowed(rgb, WHOLE_WIDTH), quality=80),
        outline=outline(predicted),
        crops=[_crop(rgb, wrong, window) for window in worst_windows(wrong, CROP, CROPS)],
    )


def _crop(rgb: Pixels, wrong: Pixels, window: Window) -> Crop:
    missed, invented = count(window.of(wrong))
    return Crop(window, jpeg(window.of(rgb), quality=88), overlay(window.of(wrong)), missed, invented)


def outline(mask: Pixels) -> str:
    """The borders of an (H, W) mask, of its holes too, as an SVG path in pixels; "" for an empty mask."""
    borders, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    paths = []
    for border in borders:
        corners = cv2.approxPolyDP(border, TOLERANCE, closed=True).reshape(-1, 2).tolist()
        paths.append("M" + "L".join(f"{x} {y}" for x, y in corners) + "Z")
    return "".join(paths)


def overlay(wrong: Pixels) -> str:
    """Mistakes as a PNG data URI to lay over the photo: wrong pixels coloured, right ones transparent."""
    image = Image.fromarray(wrong)
    image.putpalette([0, 0, 0, *MISSED_COLOUR, *INVENTED_COLOUR])
    return _data_uri("png", lambda file: image.save(file, "PNG", transparency=0, bits=2, optimize=True))


def jpeg(rgb: Pixels, quality: int) -> str:
    """An (H, W, 3) RGB image as a JPEG data URI."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return _data_uri("jpeg", lambda file: image.save(file, "JPEG", quality=quality, optimize=True))


def _data_uri(kind: str, save: Callable[[io.BytesIO], None]) -> str:
    file = io.BytesIO()
    save(file)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _narrowed(rgb: Pixels, width: int) -> Pixels:
    """The image at this width, or as it is where it is narrower."""
    if rgb.shape[1] <= width:
        return rgb
    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    narrowed: Pixels = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return narrowed
