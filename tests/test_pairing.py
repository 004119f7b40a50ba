import unicodedata
from pathlib import Path

import pytest

from competition.adopt.pairing import is_mask, pair
from competition.command import Failure


def paired(photos: list[str], masks: list[str]) -> list[tuple[str, str]]:
    found = pair([Path(name) for name in photos], [Path(name) for name in masks])
    return [(str(photo), str(mask)) for photo, mask in found.pairs]


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("1.jpg", "1.png"),
        ("IMG_2041.JPG", "img_2041_mask.png"),
        ("a.jpg", "a-mask.PNG"),
        ("a.jpg", "mask_a.gif"),
        ("a.jpg", "A Matte.png"),
        ("a.jpg", "a_seg.tif"),
        ("a.jpg", "a_labels.png"),
        ("a.jpg", "a_gt.bmp"),
        ("a.jpg", "a.jpg.png"),
        ("a.jpg", "a_segmentation_mask.png"),
        ("red car (2).jpg", "red_car_2_mask.png"),
        ("a_image.jpg", "a_mask.png"),
        (unicodedata.normalize("NFD", "Käfer 1.jpg"), unicodedata.normalize("NFC", "käfer_1.png")),
        ("carA/image.jpg", "carA/mask.png"),
        ("red/photos/1.jpg", "red/masks/1.png"),
    ],
)
def test_names_that_fit(photo: str, mask: str) -> None:
    assert paired([photo, "else/other.jpg"], [mask]) == [(photo, mask)]


def test_numbers_must_agree() -> None:
    assert paired(["1.jpg", "01.jpg", "11.jpg"], ["11_mask.png"]) == [("11.jpg", "11_mask.png")]


def test_folders_with_the_same_names() -> None:
    photos = ["images/red/1.jpg", "images/red/2.jpg", "images/blue/1.jpg"]
    masks = ["masks/blue/1.png", "masks/red/1.png", "masks/green/2.png"]
    found = pair([Path(name) for name in photos], [Path(name) for name in masks])
    assert paired(photos, masks) == [(photos[0], masks[1]), (photos[2], masks[0])]
    assert (found.photos, found.masks) == ([Path(photos[1])], [Path(masks[2])]), "another folder's mask does not fit"


def test_photos_in_folders_and_masks_in_one() -> None:
    assert paired(["a/1.jpg", "b/2.jpg"], ["1.png", "2.png"]) == [("a/1.jpg", "1.png"), ("b/2.jpg", "2.png")]


def test_a_closer_name_decides() -> None:
    photos, masks = ["IMG_1.jpg", "photo 1.jpg", "a b.jpg", "a_b.jpg"], ["img_1.png", "a b_mask.png", "a_b_mask.png"]
    expected = [("IMG_1.jpg", "img_1.png"), ("a b.jpg", "a b_mask.png"), ("a_b.jpg", "a_b_mask.png")]
    assert paired(photos, masks) == expected


@pytest.mark.parametrize(
    ("photos", "masks", "message"),
    [
        (["a.jpg"], ["a.png", "a_mask.png"], "a.png or a_mask.png may be the mask of a.jpg; rename or remove"),
        (["a.jpg", "a.png"], ["a_mask.png"], "a_mask.png may be the mask of a.jpg or a.png; rename or remove"),
        (["x/1.jpg", "y/1.jpg"], ["1.png"], "1.png may be the mask of x/1.jpg or y/1.jpg"),
    ],
)
def test_an_ambiguous_pair_is_refused(photos: list[str], masks: list[str], message: str) -> None:
    with pytest.raises(Failure, match=message.replace(".", r"\.")):
        paired(photos, masks)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a_mask.png", True), ("Mask-1.png", True), ("masks/1.png", True), ("masked car.jpg", False), ("a.png", False)],
)
def test_masks_among_photos(path: str, expected: bool) -> None:
    assert is_mask(Path(path)) is expected
