"""Labels that may be wrong: images whose out-of-fold mask differs from the label over a whole patch, as those of the
same car do not.

Along an edge masks differ by a pixel or two, whoever drew them. A patch is another matter: the network has blundered,
or the label lacks a part, or has one too many. What is hard about a car is hard in several of its views, and the
network then blunders in all of them; a slip of the hand happens once. So the patches of an image count as far as they
exceed those of the car's other images.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from competition import rle
from competition.data_folder import DataFolder, Photo
from competition.images import shape_of
from competition.rle import Mask, Shape

PATCH = 1 / 80  # side of the smallest patch, as a part of the picture's height: 16 pixels of Carvana's 1280
SMALLEST = 3  # pixels of that side in a small picture
LARGE = 4  # how many times the smallest patch must be exceeded


class Suspect(NamedTuple):
    """An image whose label may be wrong."""

    img: str
    patches: int  # pixels that differ in patches
    usual: float  # the median of that among the car's other images


def patch_side(shape: Shape) -> int:
    """The side of the smallest patch, pixels, in a picture of (H, W)."""
    return max(SMALLEST, round(PATCH * shape[0]))


def patches(first: Mask, second: Mask) -> int:
    """How many pixels of two (H, W) masks differ in patches: squares of ``patch_side`` in which all pixels do.

    This is the area of the morphological opening (Serra, 1982) of where they differ.
    """
    differ = ((first != 0) != (second != 0)).astype(np.uint8)
    side = patch_side((differ.shape[0], differ.shape[1]))
    opened = cv2.morphologyEx(differ, cv2.MORPH_OPEN, np.ones((side, side), dtype=np.uint8), borderValue=0)
    return int(np.count_nonzero(opened))


def measure(rows: Iterable[tuple[str, str]], photos: Mapping[str, Photo], data: DataFolder) -> pd.DataFrame:
    """img, car, patches and least (the area below which patches are not worth a look) of out-of-fold masks.

    Args:
        rows: (image name, run-length code).
        photos: by image name.
        data: where the labels are.

    Raises:
        ValueError: a code is malformed; the message names the image and the token.
    """

    def one(row: tuple[str, str]) -> tuple[str, str, int, int]:
        photo = photos[row[0]]
        shape = shape_of(photo.path)
        try:
            predicted = rle.decode(row[1], shape)
        except ValueError as error:
            raise ValueError(f"{photo.img}: {error}") from error
        differ = patches(rle.to_mask(data.truth_spans(photo), shape), predicted)
        return photo.img, photo.car, differ, LARGE * patch_side(shape) ** 2

    with ThreadPoolExecutor() as pool:
        measured = list(pool.map(one, tqdm(list(rows), desc="labels", unit="image", disable=None, leave=False)))
    return pd.DataFrame(measured, columns=["img", "car", "patches", "least"])


def suspects(measured: pd.DataFrame, limit: int) -> list[Suspect]:
    """The images that stand out most from the other images of their car, the most suspicious first."""
    found = []
    for _, images in measured.groupby("car"):
        for index, image in images[images["patches"] >= images["least"]].iterrows():
            others = images.drop(index)["patches"]
            usual = float(others.median()) if len(others) else 0.0
            if image["patches"] >= image["least"] + usual:
                found.append(Suspect(str(image["img"]), int(image["patches"]), usual))
    return sorted(found, key=lambda suspect: (suspect.usual - suspect.patches, suspect.img))[:limit]
