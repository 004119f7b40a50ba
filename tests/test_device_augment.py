"""The random changes on the device are those of the workers, except for rounding."""

from typing import Any

import numpy as np
import pytest
import torch

from competition.settings.schema import Augment
from folds import device_augment
from folds.augment import augmentation

SHAPE = (96, 160)


def smooth_pair() -> tuple[Any, Any]:
    """A photo and a mask without hard edges, where the position of a pixel may be rounded."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    waves = [128 + 100 * np.sin(x / a + y / b) for a, b in ((9, 17), (21, 8), (13, 30))]
    return np.stack(waves, axis=2).astype(np.uint8), (128 + 120 * np.cos(x / 19 - y / 11)).astype(np.uint8)


def both(augment: Augment, seed: int) -> tuple[Any, ...]:
    """A sample changed by the workers, and on the device."""
    image, target = smooth_pair()
    transform = augmentation(augment)
    transform.set_random_seed(seed)
    host = transform(image=image, mask=target)
    transform.set_random_seed(seed)
    change = device_augment.draw(transform, SHAPE)
    size = tuple(augment.crop) if augment.crop else SHAPE
    images, targets = torch.from_numpy(image)[None], torch.from_numpy(target)[None]
    changed = device_augment.apply(images, targets, change[None], size)  # type: ignore[arg-type]
    assert [each.dtype for each in changed] == [torch.uint8] * 2
    return host["image"], host["mask"], changed[0][0].numpy(), changed[1][0].numpy()


CHANGES = [
    {"flip": 1, "affine": 0, "colour": 0, "grey": 0},
    {"flip": 0, "affine": 0, "colour": 0, "grey": 1},
    {"flip": 0.5, "affine": 1, "colour": 0, "grey": 0, "rotate": 20, "scale": 0.3, "shift": 0.2},
    {"flip": 0.5, "affine": 0.5, "colour": 0, "grey": 0, "crop": [32, 64]},
    {"flip": 0, "affine": 0, "colour": 1, "grey": 0, "brightness": 0.5, "contrast": 0.5, "saturation": 0.8},
    {},
]


@pytest.mark.parametrize("given", CHANGES, ids=["flip", "grey", "affine", "crop", "colours", "default"])
def test_the_device_changes_a_sample_as_the_workers_do(given: dict[str, Any]) -> None:
    for seed in range(12):
        image, target, our_image, our_target = both(Augment.model_validate(given), seed)
        assert our_image.shape == image.shape
        for ours, theirs in ((our_image, image), (our_target, target)):
            difference = np.abs(ours.astype(int) - theirs.astype(int))
            assert difference.max() <= 4  # the workers round down after each change of the colours
            assert difference.mean() < 1.2


def test_hue_differs_by_the_steps_of_8_bits() -> None:
    image, _, ours, _ = both(Augment(flip=0, affine=0, colour=1, brightness=0, contrast=0, saturation=0, hue=0.3), 3)
    assert np.abs(ours.astype(int) - image.astype(int)).mean() < 3
    assert np.abs(ours.astype(int) - smooth_pair()[0].astype(int)).mean() > 10


def test_nothing_changes_without_a_change() -> None:
    image, target, ours, our_target = both(Augment(flip=0, affine=0, colour=0, grey=0), 0)
    assert np.array_equal(ours, image)
    assert np.array_equal(our_target, target)


def test_a_batch_is_changed_as_its_samples() -> None:
    transform = augmentation(Augment(affine=1, colour=1))
    changes = []
    for seed in range(3):
        transform.set_random_seed(seed)
        changes.append(device_augment.draw(transform, SHAPE))
    image, target = (torch.from_numpy(each)[None] for each in smooth_pair())
    together = device_augment.apply(
        image.expand(3, -1, -1, -1), target.expand(3, -1, -1), torch.stack(changes), SHAPE
    )
    for number, change in enumerate(changes):
        one = device_augment.apply(image, target, change[None], SHAPE)
        for ours, theirs in zip(together, one, strict=True):
            assert torch.equal(ours[number], theirs[0])


def test_changes_of_the_workers_only_are_refused() -> None:
    with pytest.raises(ValueError, match=r"augment.blur is computed in the workers only; set augment.blur=0 or"):
        Augment(on_device=True, blur=0.5)
