"""EXIF orientation: a mask is turned to fit its photo, drawn on the stored or on the displayed pixels."""

from pathlib import Path

import numpy as np
import pytest
from conftest import plain_encode, save_mask, write_rows
from numpy.typing import NDArray
from PIL import Image

from competition import check
from competition.command import Failure
from competition.data_folder import DataFolder
from competition.exif import TAG, turned
from competition.orientation import applies
from competition.settings.schema import Data
from submissions.masks import write_masks
from submissions.validate import shapes

H, W = 30, 45
ORIENTATIONS = range(1, 9)


@pytest.fixture(scope="module")
def car() -> NDArray[np.uint8]:
    """A mask that differs from itself however it is turned."""
    mask = np.zeros((H, W), np.uint8)
    mask[4:25, 6:12] = mask[4:9, 6:40] = 1
    return mask


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[TAG] = orientation
    return made


def add(root: Path, name: str, car: NDArray[np.uint8], orientation: int, drawn_on: str = "") -> None:
    """Add a photo that shows its mask, with a mask on those pixels or with an orientation of its own."""
    for folder in ("train", "train_masks", "test"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    options = {"exif": exif(orientation)} if orientation > 1 else {}
    Image.fromarray(np.dstack([car * 255] * 3)).save(root / "train" / f"{name}.png", **options)
    if drawn_on == "own":
        suffix = "tif" if orientation == 5 else "png"
        Image.fromarray(car * 255).save(root / "train_masks" / f"{name}_mask.{suffix}", **options)
    elif drawn_on:
        save_mask(
            root / "train_masks" / f"{name}_mask.gif", turned(car, orientation) if drawn_on == "displayed" else car
        )


def fits(data: DataFolder) -> list[bool]:
    """For each photo, whether its mask covers its white pixels."""
    data.require_masks(data.train)
    return [np.array_equal(data.truth(photo), photo.read()[..., 0] >> 7) for photo in data.train]


@pytest.mark.parametrize(
    ("stem", "setting", "expected"),
    [
        ("0cdf5b5d0ce1_01", "auto", False),
        ("0cdf5b5d0ce1_16", "auto", False),
        ("0cdf5b5d0ce1_17", "auto", True),
        ("0CDF5B5D0CE1_01", "auto", True),
        ("IMG_2041", "auto", True),
        ("IMG_2041", "stored", False),
        ("0cdf5b5d0ce1_01", "displayed", True),
    ],
)
def test_auto_leaves_carvanas_photos_as_they_are_stored(stem: str, setting: str, expected: bool) -> None:
    assert applies(stem, setting) is expected


@pytest.mark.parametrize("drawn_on", ["displayed", "stored", "own"])
def test_masks_are_turned_to_their_photos(tmp_path: Path, car: NDArray[np.uint8], drawn_on: str) -> None:
    """Orientations 2 to 4 and a square photo do not tell on what the mask was drawn: the others do."""
    for orientation in ORIENTATIONS:
        add(tmp_path, f"IMG {orientation}", car, orientation, drawn_on)
    add(tmp_path, "square", car[:, :H], 6, drawn_on)
    data = DataFolder(tmp_path)
    assert fits(data) == [True] * 9
    assert [photo.shape for photo in data.train] == [(H, W)] * 4 + [(W, H)] * 4 + [(H, H)]
    found = data.orientations(data.train, [])
    assert found.applied == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 1, 8: 1}
    assert not found.ignored
    assert {kind: len(files) for kind, files in found.masks._asdict().items()} == {
        "displayed": 4 * (drawn_on == "displayed"),
        "stored": 4 * (drawn_on == "stored"),
        "undecided": 4 * (drawn_on != "own"),
    }
    assert (
        found.facts()[0] == "EXIF orientation of 8 photos applied (1 x 2, 1 x 3, 1 x 4, 1 x 5, 2 x 6, 1 x 7, 1 x 8)"
    )


@pytest.mark.parametrize("name", ["0cdf5b5d0ce1_0{}", "IMG_{}"])
def test_stored_ignores_the_orientation_of_photos_and_masks(
    tmp_path: Path, car: NDArray[np.uint8], name: str
) -> None:
    for orientation in ORIENTATIONS:
        add(tmp_path, name.format(orientation), car, orientation, "own" if orientation % 2 else "stored")
    data = DataFolder(tmp_path, Data(orientation="auto" if name.startswith("0c") else "stored"))
    assert fits(data) == [True] * 8
    assert {photo.shape for photo in data.train} == {(H, W)}
    found = data.orientations(data.train, [])
    assert found.ignored == dict.fromkeys(ORIENTATIONS, 1)
    assert found.facts() == ["EXIF orientation of 7 photos ignored (1 x 2, 1 x 3, 1 x 4, 1 x 5, 1 x 6, 1 x 7, 1 x 8)"]
    assert found.notes() == []


def test_without_evidence_masks_belong_to_the_displayed_photo(tmp_path: Path, car: NDArray[np.uint8]) -> None:
    for orientation in (2, 3, 4):
        add(tmp_path, f"IMG_{orientation}", car, orientation, "displayed")
    data = DataFolder(tmp_path)
    assert fits(data) == [True] * 3
    (note,) = data.orientations(data.train, []).notes()
    assert note.startswith(
        "the sizes of 3 masks do not tell whether they were drawn on the displayed photo, such as "
    )
    assert note.endswith("IMG_2_mask.gif; taken as drawn on the displayed photo. If they do not fit, set "
                         "data.orientation=stored")  # fmt: skip


def test_contradictory_masks_are_refused_if_one_depends_on_them(tmp_path: Path, car: NDArray[np.uint8]) -> None:
    add(tmp_path, "a", car, 6, "displayed")
    add(tmp_path, "b", car, 8, "stored")
    assert fits(DataFolder(tmp_path)) == [True, True]
    add(tmp_path, "c", car, 3, "stored")
    data, masks = DataFolder(tmp_path), tmp_path / "train_masks"
    with pytest.raises(Failure) as failure:
        data.require_masks(data.train)
    assert str(failure.value).startswith(
        f"{masks / 'c_mask.gif'} fits {tmp_path / 'train' / 'c.png'} with and without its EXIF orientation, and the "
        f"other masks differ: {masks / 'a_mask.gif'} fits its photo with it, {masks / 'b_mask.gif'} without; "
    )
    assert "data.orientation=stored" in str(failure.value)
    (problem,) = [text for text in check.problems(data) if text.startswith(f"{masks}")]
    assert problem == str(failure.value)


@pytest.mark.parametrize(
    ("setting", "orientations", "remarks"),
    [
        ("displayed", (6, 1), ("", " with its EXIF orientation 6 applied")),
        ("displayed", (1, 6), (" with its EXIF orientation 6 applied", "")),
        ("stored", (6, 1), ("", " without its EXIF orientation 6, which data.orientation=displayed applies")),
        ("stored", (3, 1), ("", "")),
    ],
)
def test_a_mask_of_another_size_is_refused_with_the_orientation(
    tmp_path: Path, car: NDArray[np.uint8], setting: str, orientations: tuple[int, int], remarks: tuple[str, str]
) -> None:
    photo, mask = orientations
    add(tmp_path, "a", car, photo)
    size = (W - 1, H) if mask == 1 else (W, H)
    Image.new("L", size).save(tmp_path / "train_masks" / "a.png", exif=exif(mask))
    data = DataFolder(tmp_path, Data(orientation=setting))
    shown = [turned(np.empty(size[::-1], np.uint8), mask), turned(car, photo if setting == "displayed" else 1)]
    first, second = (
        f"{each.shape[1]} x {each.shape[0]}{remark}" for each, remark in zip(shown, remarks, strict=True)
    )
    for use in (data.require_masks, lambda photos: data.truth(photos[0])):
        with pytest.raises(Failure) as failure:
            use(data.train)
        assert str(failure.value).startswith(
            f"{tmp_path / 'train_masks' / 'a.png'} is {first}, but {tmp_path / 'train' / 'a.png'} is {second}; "
        )


def test_rows_belong_to_the_photo_as_it_is_read(tmp_path: Path, car: NDArray[np.uint8]) -> None:
    add(tmp_path, "a", car, 6)
    (tmp_path / "test" / "a.png").write_bytes((tmp_path / "train" / "a.png").read_bytes())
    write_rows(tmp_path / "train_masks.csv", {"a.png": plain_encode(turned(car, 6))})
    data = DataFolder(tmp_path)
    assert fits(data) == [True]
    assert list(check.problems(data)) == []
    assert data.orientations(data.train, data.test).notes() == [
        "rows of train_masks.csv belong to the displayed photo; 1 are of turned photos"
    ]
    assert shapes(data)("a.png") == (W, H)
    assert write_masks(tmp_path / "train_masks.csv", data, tmp_path / "out") == {"a_mask.png"}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a_mask.png")), turned(car, 6) > 0)


def test_a_run_knows_its_data_by_the_orientations_that_are_applied(tmp_path: Path, car: NDArray[np.uint8]) -> None:
    add(tmp_path, "a", car, 6)
    displayed, stored = (DataFolder(tmp_path, Data(orientation=each)).fingerprint for each in ("displayed", "stored"))
    assert displayed != stored
