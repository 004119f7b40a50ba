"""The values of mask files in a data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from competition.command import Failure
from competition.mask_file import read_mask
from competition.mask_values import MaskValues

CAR = np.array([[0, 0, 0, 0], [0, 1, 1, 0]], np.uint8)


def folder(root: Path, **levels: tuple[int, int] | int | str) -> MaskValues:
    """A data set of files with two values, one value, or black and a color."""
    files = []
    for name, value in levels.items():
        files.append(root / f"{name}.png")
        if isinstance(value, str):
            color = np.array([int(value[at : at + 2], 16) for at in (1, 3, 5)], np.uint8)
            Image.fromarray(CAR[..., None] * color).save(files[-1])
            continue
        low, high = (value, value) if isinstance(value, int) else value
        kind = np.uint16 if high > 255 else np.uint8
        Image.fromarray(np.where(CAR, high, low).astype(kind)).save(files[-1])
    return MaskValues(files)


def read_all(data: MaskValues) -> list[float]:
    return [float(data.mask(read_mask(path)).mean()) for path in data.files]


@pytest.mark.parametrize(
    ("levels", "areas"),
    [
        ({"a": (0, 1), "b": (0, 255), "c": (0, 65535), "d": 0, "e": 1, "f": 255}, [0.25, 0.25, 0.25, 0, 1, 1]),
        ({"a": 20, "b": 0, "c": (0, 20)}, [1, 0, 0.25]),
        ({"a": 20, "b": 40, "c": (20, 40)}, [0, 1, 0.25]),
        ({"a": 0, "b": 0}, [0, 0]),
        ({"a": "#00ff00", "b": 0, "c": "#00ff00"}, [0.25, 0, 0.25]),
    ],
)
def test_one_value_is_read_as_in_the_other_files(
    tmp_path: Path, levels: dict[str, tuple[int, int] | int | str], areas: list[float]
) -> None:
    assert read_all(folder(tmp_path, **levels)) == areas


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        (
            {"a": (0, 20), "b": 21},
            r"b\.png has the value 21 only, .*a\.png has 0/20;",
        ),
        ({"a": (20, 40), "b": 0}, r"b\.png has the value 0 only, .*a\.png has 20/40; write masks of the same two"),
        ({"a": (0, 255), "b": 1}, r"b\.png has the value 1 only, .*a\.png has 0/255;"),
        (
            {"a": 20, "b": 20},
            r"a\.png has the value 20 only, .*: no other mask has two values; write",
        ),
    ],
)
def test_one_value_that_no_other_file_has_is_refused(
    tmp_path: Path, levels: dict[str, tuple[int, int] | int], reason: str
) -> None:
    with pytest.raises(Failure, match=reason):
        read_all(folder(tmp_path, **levels))


@pytest.mark.parametrize(
    "levels",
    [
        {"a": (0, 1), "b": (0, 2)},
        {"a": (0, 255), "b": (0, 2)},
        {"a": (0, 20), "b": (0, 40)},
        {"a": "#ff0000", "b": "#00ff00"},
    ],
)
def test_different_values_are_several_classes(tmp_path: Path, levels: dict[str, tuple[int, int] | str]) -> None:
    message = r"b\.png has the values .*, but .*a\.png has .*, as if masks of several classes; this project segments"
    with pytest.raises(Failure, match=message):
        read_all(folder(tmp_path, **levels))


def test_cut_outs_may_lie_beside_labels(tmp_path: Path) -> None:
    """An opaque pixel is car; the values of the other files do not matter."""
    data = folder(tmp_path, b=(0, 20), c=20)
    cut_out = np.dstack([np.arange(24, dtype=np.uint8).reshape(2, 4, 3), CAR * np.uint8(255)])
    Image.fromarray(cut_out).save(tmp_path / "a.png")
    assert read_all(MaskValues([tmp_path / "a.png", *data.files])) == [0.25, 0.25, 1]


def test_the_file_that_differs_from_most_is_named(tmp_path: Path) -> None:
    """By all files, so that each list of problems has one line for it."""
    for name in "ac":
        data = folder(tmp_path, **{"a": (0, 20), "b": (0, 20), "c": (0, 20)} | {name: (0, 2)})
        messages = set()
        for path in data.files:
            try:
                data.mask(read_mask(path))
            except Failure as failure:
                messages.add(str(failure))
        [message] = messages
        usual = "b" if name == "a" else "a"
        assert message.startswith(
            f"{tmp_path / name}.png has the values 0/2, but {tmp_path / usual}.png has 0/20, as"
        )


def test_a_smooth_mask_is_black_and_white(tmp_path: Path) -> None:
    data = folder(tmp_path, a=(0, 255), b=(0, 1))
    smooth = np.zeros((40, 40), np.uint8)
    smooth[10:30, 10:30], smooth[9], smooth[10:30, 9] = 250, 3, 120
    for path in (tmp_path / "0.png", tmp_path / "c.png"):
        Image.fromarray(smooth).save(path)
    files = [*data.files, tmp_path / "c.png"]
    assert read_all(MaskValues(files))[-1] == pytest.approx(0.25, abs=0.02)
    assert read_all(MaskValues([tmp_path / "0.png", *files]))[1:3] == [0.25, 0.25]


def test_files_that_cannot_be_read_do_not_decide(tmp_path: Path) -> None:
    data = folder(tmp_path, a=(0, 20), b=(0, 20), c=20)
    data.files[0].write_bytes(b"")
    assert data.mask(read_mask(data.files[2])).all()


def test_no_other_file_is_read_for_a_file_of_its_own_values(tmp_path: Path) -> None:
    """Carvana's truth is in train_masks.csv; its 5,088 mask files must not be decoded for nothing."""
    data = MaskValues([tmp_path / "missing.png"])
    assert data.mask(read_mask(folder(tmp_path, a=(0, 20)).files[0])).mean() == 0.25


def test_what_was_found_is_described(tmp_path: Path) -> None:
    data = folder(tmp_path, a=(0, 255), b=(0, 1), c=(0, 255), d=0)
    read_all(data)
    assert data.describe() == [
        "0/255 in 2 files, 255 is car",
        "0/1 in 1 file, 1 is car",
        "only 0 in 1 file",
    ]
