"""Masks that cover too little or too much of their photo."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CARS, TINY_SHAPE, save_mask

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.mask_area import (
    implausible,
    mask_area,
    mask_areas,
    masks_key,
    require_plausible,
    warn_of_inverted,
)
from competition.settings.schema import Data

FIRST = f"{sorted(CARS)[0]}_01"


def with_mask(root: Path, mask: np.ndarray) -> DataFolder:
    (root / "train_masks.csv").unlink(missing_ok=True)
    save_mask(root / "train_masks" / f"{FIRST}_mask.gif", mask)
    return DataFolder(root)


def test_the_area_is_that_of_the_mask(tiny_data: Path) -> None:
    data = DataFolder(tiny_data)
    areas = mask_areas(data)
    for photo, area in list(zip(data.train, areas, strict=True))[:3]:
        assert area == mask_area(data, photo) == pytest.approx(data.truth(photo).mean(), abs=1e-12)
    require_plausible(data, areas)


@pytest.mark.parametrize(("value", "area"), [(0, "0.0000"), (1, "1.0000")])
def test_an_empty_and_a_full_mask_are_refused_unless_allowed(own_data: Path, value: int, area: str) -> None:
    data = with_mask(own_data, np.full(TINY_SHAPE, value, np.uint8))
    with pytest.raises(Failure) as caught:
        require_plausible(data, mask_areas(data))
    assert str(caught.value) == (
        f"1 of 10 training masks in {own_data} cover less than data.min_area=0.01 or more than data.max_area=0.9 of "
        f"the photo ({FIRST}.jpg {area}); correct them (`make check DATA={own_data}` lists all), or allow them with "
        'SET="data.min_area=0 data.max_area=1"'
    )
    allowed = DataFolder(own_data, Data(min_area=0, max_area=1))
    require_plausible(allowed, mask_areas(allowed))


def test_a_mask_that_looks_inverted_is_a_warning(own_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataFolder(own_data)
    warn_of_inverted(data, mask_areas(data))
    assert capsys.readouterr().out == ""
    data = with_mask(own_data, 1 - data.truth(data.train[0]))
    warn_of_inverted(data, mask_areas(data))
    assert capsys.readouterr().out == (
        f"warning: 1 training mask looks inverted: {FIRST}.jpg; see `make check DATA={own_data}`\n"
    )


def test_a_problem_names_the_mask() -> None:
    assert implausible(Data(), "a.jpg", 0.5) == []
    [problem] = implausible(Data(), "a.jpg", 0.0)
    assert problem.startswith("a.jpg covers 0.0000 of the photo, less than data.min_area=0.01 or more than")


def test_the_key_follows_the_files_and_the_limits(own_data: Path) -> None:
    before = masks_key(DataFolder(own_data))
    assert masks_key(DataFolder(own_data)) == before
    assert masks_key(DataFolder(own_data, Data(min_area=0))) != before
    assert masks_key(with_mask(own_data, np.zeros(TINY_SHAPE, np.uint8))) != before
