"""Augmentation: geometry changes photo and mask alike, colours only the photo."""

import numpy as np
import pytest

from competition.images import Pixels
from competition.settings.schema import Augment
from folds.augment import augmentation

OFF = {"flip": 0, "affine": 0, "colour": 0, "grey": 0, "brightness": 0, "contrast": 0, "saturation": 0}


def gradient_pair() -> tuple[Pixels, Pixels]:
    """A photo whose brightness is its mask."""
    mask = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (32, 1))
    mask[:10, :20] = 255
    return np.repeat(mask[..., None], 3, axis=2), mask


def noise_pair() -> tuple[Pixels, Pixels]:
    noise = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    return noise, noise[..., 0].copy()


def changed(settings: dict[str, object], seed: int, pair: tuple[Pixels, Pixels]) -> tuple[Pixels, Pixels]:
    transform = augmentation(Augment.model_validate(OFF | settings))
    transform.set_random_seed(seed)
    result = transform(image=pair[0], mask=pair[1])
    return result["image"], result["mask"]


def test_a_flip_changes_photo_and_mask() -> None:
    image, mask = gradient_pair()
    flipped, target = changed({"flip": 1}, 0, (image, mask))
    assert np.array_equal(flipped, image[:, ::-1])
    assert np.array_equal(target, mask[:, ::-1])


def test_photo_and_mask_move_together_and_the_mask_stays_soft() -> None:
    """The photo shows the mask itself, so both must stay equal."""
    pair = gradient_pair()
    for seed in range(10):
        image, mask = changed({"flip": 0.5, "affine": 1, "shift": 0.1, "scale": 0.3, "rotate": 20}, seed, pair)
        assert mask.dtype == np.uint8
        assert np.abs(image[..., 0].astype(int) - mask).max() <= 1
        assert not np.array_equal(mask, pair[1])
    assert len(np.unique(mask)) > 50, "the mask has intermediate levels"


def test_a_transform_that_is_off_draws_no_random_number() -> None:
    """Otherwise a new transform would change the samples of existing settings."""
    names = [type(transform).__name__ for transform in augmentation(Augment()).transforms]
    assert names == ["HorizontalFlip", "Affine", "ColorJitter", "ToGray"]


@pytest.mark.parametrize(
    "change", [{"blur": 1}, {"jpeg": 1}, {"grey": 1}, {"hue": 0.2, "colour": 1}, {"brightness": 0.3, "colour": 1}]
)
def test_colours_change_only_the_photo(change: dict[str, float]) -> None:
    pair = noise_pair()
    for seed in range(3):
        image, mask = changed({**change}, seed, pair)
        assert image.dtype == np.uint8
        assert np.array_equal(mask, pair[1])
        assert not np.array_equal(image, pair[0])


def test_a_crop_cuts_photo_and_mask_at_the_same_place() -> None:
    """All places occur, including those at the edges of the frame."""
    photo, target = noise_pair()
    places = set()
    for seed in range(60):
        image, mask = changed({"crop": [24, 60]}, seed, (photo, target))
        assert (image.shape, mask.shape) == ((24, 60, 3), (24, 60))
        found = [
            (top, left)
            for top in range(32 - 24 + 1)
            for left in range(64 - 60 + 1)
            if np.array_equal(image, photo[top : top + 24, left : left + 60])
        ]
        assert len(found) == 1
        top, left = found[0]
        assert np.array_equal(mask, target[top : top + 24, left : left + 60])
        places.add((top, left))
    assert {top for top, _ in places} == set(range(9))
    assert {left for _, left in places} == set(range(5))
