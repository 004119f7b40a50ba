"""Labels that may be wrong."""

import numpy as np
import pandas as pd
import pytest
from conftest import CARS, save_mask
from numpy.typing import NDArray

from competition import rle
from competition.data_folder import DataFolder
from inference.report.suspects import Suspect, measure, patch_side, patches, suspects

Mask = NDArray[np.uint8]


def box(top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros((160, 240), dtype=np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def test_thin_edges_do_not_count_and_patches_count_completely() -> None:
    assert patch_side((1280, 1918)) == 16
    assert patch_side((160, 240)) == 3
    body = box(40, 50, 60, 100)
    assert patches(body, body) == 0
    assert patches(body, box(42, 50, 58, 100)) == 0, "two rows along the upper edge"
    assert patches(body, box(43, 50, 57, 100)) == 3 * 100, "three are a patch"
    assert patches(body, body | box(10, 10, 8, 5)) == 8 * 5
    assert patches(body, body | box(0, 0, 3, 3)) == 9, "in the corner too"
    assert patches(body, body | box(10, 10, 8, 2)) == 0, "thinner than a patch"


def table(of_car: dict[str, list[int]]) -> pd.DataFrame:
    rows = [(f"{car}_{n:02d}.jpg", car, area, 36) for car, areas in of_car.items() for n, area in enumerate(areas)]
    return pd.DataFrame(rows, columns=["img", "car", "patches", "least"])


def test_patches_in_all_views_of_a_car_are_not_suspicious() -> None:
    measured = table({"hard": [500, 510, 520, 505], "slip": [0, 90, 10, 0], "small": [0, 35, 0, 0], "alone": [70]})
    assert suspects(measured, 9) == [Suspect("slip_01.jpg", 90, 0.0), Suspect("alone_00.jpg", 70, 0.0)]
    assert suspects(measured, 1) == [Suspect("slip_01.jpg", 90, 0.0)]
    assert suspects(table({"good": [0, 0, 0]}), 9) == []


def test_a_label_with_an_extra_part_is_found(own_data) -> None:
    """All predictions equal the labels, and then one label gets an extra part."""
    photos = {photo.img: photo for photo in DataFolder(own_data).train}
    rows = [(img, rle.encode(DataFolder(own_data).truth(photo))) for img, photo in photos.items()]
    spoiled = f"{CARS[2]}_09"
    (own_data / "train_masks.csv").unlink()
    label = DataFolder(own_data).truth(photos[f"{spoiled}.jpg"]).copy()
    label[:10, :10] = 1
    save_mask(own_data / "train_masks" / f"{spoiled}_mask.gif", label)
    measured = measure(rows, photos, DataFolder(own_data))
    assert suspects(measured, 9) == [Suspect(f"{spoiled}.jpg", 100, 0.0)]


def test_a_malformed_code_is_an_error_that_names_the_image(own_data) -> None:
    photos = {photo.img: photo for photo in DataFolder(own_data).train}
    img = next(iter(photos))
    with pytest.raises(ValueError, match=rf"{img}: token 2: length 0 is not positive"):
        measure([(img, "1 0")], photos, DataFolder(own_data))
