"""Which names are those of Carvana's test set."""

from pathlib import Path

import pytest

from competition.mask_table import read_rows
from competition.run.folder import DEFAULT_DATA
from submissions.kaggle_names import IMAGES, why_not

KAGGLES = Path(__file__).parent.parent / DEFAULT_DATA / "sample_submission.csv"
# As many names of the same form, of other cars.
MADE_UP = [f"{car:012x}_{view:02d}.jpg" for car in range(IMAGES // 16) for view in range(1, 17)]


@pytest.mark.skipif(not KAGGLES.is_file(), reason="needs Kaggle's data")
def test_kaggles_names_in_any_order() -> None:
    names = [row.img for row in read_rows(KAGGLES)]
    assert len(names) == IMAGES
    assert why_not(names) is why_not(names[::-1]) is None
    assert why_not(names[1:]) == "100,063 names: " + ", ".join(names[1:4]) + ", ..."
    assert why_not([*names[1:], MADE_UP[0]]) == "100,064 names, but not all of them are Carvana's"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (MADE_UP, "100,064 names, but not all of them are Carvana's"),
        (MADE_UP[:2], "2 names: 000000000000_01.jpg, 000000000000_02.jpg"),
        (MADE_UP[:1] * 2, "2 names: 000000000000_01.jpg, 000000000000_01.jpg"),
        ([MADE_UP[0], "van_01.jpg"], "2 names; not in the form 0cdf5b5d0ce1_01.jpg: 1, such as van_01.jpg"),
        (["0cdf5b5d0ce1_17.jpg", "0CDF5B5D0CE1_01.jpg", "0cdf5b5d0ce1_01.png"], "3 names; not in the form"),
        ([], "0 names: "),
    ],
)
def test_other_names(names: list[str], reason: str) -> None:
    assert (why_not(names) or "").startswith(reason)
