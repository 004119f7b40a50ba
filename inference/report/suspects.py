"""Labels that may be wrong: images whose out-of-fold mask differs from the label over whole patches, unlike the other
images of the same car.

Along an edge two masks of one car always differ by a pixel or two. If they differ over a patch, the network is wrong,
or the label lacks a part or has an extra one. A part of a car that is hard to predict is hard in several views, but a
labeling error occurs in one. So the patches of an image are compared with those of the other images of its car.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from competition import rle
from competition.data_folder import DataFolder
from competition.photo import Photo
from competition.rle import Mask, Shape
from inference.report.mistakes import count, mistakes

PATCH = 1 / 80  # side of the smallest patch, as a part of the image height: 16 pixels of 1280
SMALLEST = 3  # pixels of that side in a small image
LARGE = 4  # smallest patches that the area must have


class Suspect(NamedTuple):
    """An image whose label may be wrong."""

    img: str
    patches: int  # pixels that differ in patches
    usual: float  # the median of ``patches`` over the other images of the car


def patch_side(shape: Shape) -> int:
    """The side of the smallest patch in pixels, in an image of (H, W)."""
    return max(SMALLEST, round(PATCH * shape[0]))


def patches(first: Mask, second: Mask) -> int:
    """The number of pixels of two (H, W) masks that lie in patches: squares of ``patch_side`` that differ everywhere.

    This is the area of the morphological opening (Serra, 1982) of where they differ.
    """
    differ = ((first != 0) != (second != 0)).astype(np.uint8)
    side = patch_side((differ.shape[0], differ.shape[1]))
    opened = cv2.morphologyEx(differ, cv2.MORPH_OPEN, np.ones((side, side), dtype=np.uint8), borderValue=0)
    return int(np.count_nonzero(opened))


def measure(rows: Iterable[tuple[str, str]], photos: Mapping[str, Photo], data: DataFolder) -> pd.DataFrame:
    """Compare out-of-fold masks with the labels, in pixels.

    The table has the columns img, car, missed, extra, patches, and least, the smallest area of patches that counts.

    Args:
        rows: (image name, run-length code).
        photos: by image name.
        data: where the labels are.

    Raises:
        ValueError: a code is malformed; the message names the image and the token.
    """

    def one(row: tuple[str, str]) -> tuple[str, str, int, int, int, int]:
        photo = photos[row[0]]
        shape = photo.shape
        try:
            predicted = rle.decode(row[1], shape)
        except ValueError as error:
            raise ValueError(f"{photo.img}: {error}") from error
        truth = rle.to_mask(data.truth_spans(photo), shape)
        missed, extra = count(mistakes(truth, predicted))
        return photo.img, photo.car, missed, extra, patches(truth, predicted), LARGE * patch_side(shape) ** 2

    with ThreadPoolExecutor() as pool:
        measured = list(pool.map(one, tqdm(list(rows), desc="labels", unit="image", disable=None, leave=False)))
    return pd.DataFrame(measured, columns=["img", "car", "missed", "extra", "patches", "least"])


def suspects(measured: pd.DataFrame, limit: int) -> list[Suspect]:
    """The images that differ most from the other images of their car, in descending order."""
    found = []
    for _, images in measured.groupby("car"):
        for index, image in images[images["patches"] >= images["least"]].iterrows():
            others = images.drop(index)["patches"]
            usual = float(others.median()) if len(others) else 0.0
            if image["patches"] >= image["least"] + usual:
                found.append(Suspect(str(image["img"]), int(image["patches"]), usual))
    return sorted(found, key=lambda suspect: (suspect.usual - suspect.patches, suspect.img))[:limit]
