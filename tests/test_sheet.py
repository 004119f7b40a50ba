from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from competition.data_folder import DataFolder
from competition.overlay import OUTLINE
from competition.sheet import TILE, Tile, _legible, chosen, overlay, sheet_of, write_sheet


def test_a_sheet_of_a_data_folder(tiny_data: Path, tmp_path: Path) -> None:
    data = DataFolder(tiny_data)
    areas = {photo.img: float(data.truth(photo).mean()) for photo in data.train}
    photos = chosen(data.train, areas)
    ordered = sorted(areas.values())
    assert [areas[photo.img] for photo in photos] == sorted(areas[photo.img] for photo in photos)
    assert len(photos) == 9
    assert {ordered[0], ordered[5], ordered[-1]} <= {areas[photo.img] for photo in photos}
    for name in ("a.png", "b.png"):
        write_sheet(tmp_path / name, data, areas)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 3 * TILE[0]


def test_the_outline_is_at_the_edge_of_the_mask() -> None:
    photo, mask = np.full((300, 400, 3), 128, np.uint8), np.zeros((300, 400), np.uint8)
    mask[100:200, 100:300] = 1
    picture = overlay(photo, mask).astype(int)
    scale = TILE[0] / 400
    bright = np.abs(picture - OUTLINE).sum(axis=2) < 100
    rows, columns = np.nonzero(bright)
    assert abs(rows.min() / scale - 100) < 2
    assert abs(columns.max() / scale - 300) < 2
    assert not bright[int(150 * scale), int(200 * scale)]
    assert np.array_equal(picture[5, 5], [128, 128, 128])
    assert picture[int(150 * scale), int(200 * scale), 1] < 128, "tinted inside"


@pytest.mark.parametrize("size", [(2000, 10), (10, 2000), (3, 3)])
def test_sizes_of_every_kind_fit(size: tuple[int, int]) -> None:
    photo, mask = np.zeros((*size, 3), np.uint8), np.ones(size, np.uint8)
    picture = overlay(photo, mask)
    assert picture.shape[0] <= TILE[1]
    assert picture.shape[1] <= TILE[0]
    assert sheet_of([Tile(picture, "x" * 500, "")]).shape[1] < TILE[0] * 1.2


def test_names_are_legible() -> None:
    assert _legible("Käfer 01") == "Käfer 01"
    assert _legible("Ka\u0308fer") == "Käfer"
    assert _legible("車1") == "\\u8eca1"
