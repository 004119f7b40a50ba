"""Training samples: decided by (seed, epoch, photo) alone, image and mask changed alike; and their batches."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.settings.schema import Augment
from folds.frame import Frame
from folds.samples import Batches, Key, Samples, augmentation, hash_of

FRAME = Frame(32, 64, "resize")
PLAIN = Augment(flip=0, affine=0, colour=0, grey=0)
WILD = Augment(flip=0.5, affine=1, colour=1, grey=0.3)


@pytest.fixture(scope="module")
def data(tiny_data: Path) -> DataFolder:
    return DataFolder(tiny_data)


def samples_of(data: DataFolder, augment: Augment = WILD, *, seed: int = 1, cache: bool = False) -> Samples:
    return Samples(data.train, data, FRAME, augment, seed=seed, cache=cache)


def same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def gradient_pair() -> tuple[Pixels, Pixels]:
    """A photo whose brightness is its mask."""
    mask = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (32, 1))
    mask[:10, :20] = 255
    return np.repeat(mask[..., None], 3, axis=2), mask


def test_unchanged_samples_are_the_photos(data: DataFolder) -> None:
    samples = samples_of(data, PLAIN)
    assert len(samples) == len(data.train)
    for index, photo in enumerate(data.train):
        image, target = samples[Key(3, index)]
        assert (image.dtype, image.shape) == (torch.uint8, (32, 64, 3))
        assert (target.dtype, target.shape) == (torch.uint8, (32, 64))
        assert np.array_equal(image, FRAME.read(photo.path))
        assert np.array_equal(target, FRAME.target(data.truth(photo)))
        assert ((target > 0) & (target < 255)).any(), "the outline must be soft"


def test_a_sample_depends_on_its_key_and_the_seed_alone(data: DataFolder) -> None:
    keys = [Key(epoch, photo) for epoch in range(3) for photo in range(4)]
    samples = samples_of(data)
    forwards = {key: samples[key] for key in keys}
    again = samples_of(data)
    backwards = {key: again[key] for key in reversed(keys)}
    assert all(same(forwards[key], backwards[key]) for key in keys)
    other = samples_of(data, seed=2)
    assert not any(same(forwards[key], other[key]) for key in keys)
    assert not same(forwards[Key(0, 1)], forwards[Key(1, 1)]), "each epoch changes a photo anew"


def test_global_random_states_do_not_matter(data: DataFolder) -> None:
    samples = samples_of(data)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = samples[Key(0, 0)]
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert same(first, samples[Key(0, 0)])


def test_workers_make_the_same_samples(data: DataFolder) -> None:
    samples = samples_of(data)

    def batches(workers: int, base: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = Batches(len(samples), 3, seed=1)
        order.epoch = 2
        loader = DataLoader(
            samples, batch_sampler=order, num_workers=workers, generator=torch.Generator().manual_seed(base)
        )
        return iter(list(loader))

    for here, there in zip(batches(0, 1), batches(2, 99), strict=True):
        assert same((here[0], here[1]), (there[0], there[1]))


def test_a_cache_changes_nothing_and_stays_as_it_was(data: DataFolder) -> None:
    plain, cached = samples_of(data), samples_of(data, cache=True)
    for key in [Key(epoch, photo) for epoch in range(4) for photo in (0, 3)]:
        assert same(plain[key], cached[key])
    assert cached.cached is not None
    for index, pair in enumerate(cached.cached):
        fresh = plain.read(index)
        assert np.array_equal(pair.image, fresh.image)
        assert np.array_equal(pair.target, fresh.target)


def test_a_flip_turns_both(data: DataFolder) -> None:
    image, mask = gradient_pair()
    changed = augmentation(Augment(flip=1, affine=0, colour=0, grey=0))(image=image, mask=mask)
    assert np.array_equal(changed["image"], image[:, ::-1])
    assert np.array_equal(changed["mask"], mask[:, ::-1])


def test_half_of_the_samples_are_flipped(data: DataFolder) -> None:
    samples = samples_of(data, Augment(flip=0.5, affine=0, colour=0, grey=0), cache=True)
    as_it_is = torch.from_numpy(samples.read(0).target)
    flipped = sum(not torch.equal(samples[Key(epoch, 0)][1], as_it_is) for epoch in range(100))
    assert 35 <= flipped <= 65


def test_both_move_alike_and_the_mask_stays_soft() -> None:
    """The mask is interpolated as the photo is, so a photo of its mask stays one."""
    image, mask = gradient_pair()
    transform = augmentation(Augment(flip=0.5, affine=1, shift=0.1, scale=0.3, rotate=20, colour=0, grey=0))
    moved = 0
    for seed in range(20):
        transform.set_random_seed(seed)
        changed = transform(image=image, mask=mask)
        assert changed["mask"].dtype == np.uint8
        assert np.abs(changed["image"][..., 0].astype(int) - changed["mask"]).max() <= 1
        moved += not np.array_equal(changed["mask"], mask)
    assert moved == 20
    assert len(np.unique(changed["mask"])) > 50, "not two levels: the mask is soft"


def test_colour_leaves_the_mask_alone() -> None:
    image, mask = gradient_pair()
    transform = augmentation(Augment(flip=0, affine=0, colour=1, grey=1))
    transform.set_random_seed(3)
    changed = transform(image=image, mask=mask)
    assert np.array_equal(changed["mask"], mask)
    assert not np.array_equal(changed["image"], image)


def test_switched_off_changes_draw_nothing() -> None:
    """So a setting that a later version adds leaves the samples of today's settings as they are."""
    names = [type(transform).__name__ for transform in augmentation(Augment()).transforms]
    assert names == ["HorizontalFlip", "Affine", "ColorJitter", "ToGray"]


@pytest.mark.parametrize("change", [{"blur": 1}, {"jpeg": 1}, {"hue": 0.2, "colour": 1}])
def test_each_change_of_colour_leaves_the_mask_alone(change: dict[str, float]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    off = {"flip": 0, "affine": 0, "colour": 0, "grey": 0, "brightness": 0, "contrast": 0, "saturation": 0}
    transform = augmentation(Augment(**(off | change)))
    mask = noise[..., 0]
    for seed in range(5):
        transform.set_random_seed(seed)
        changed = transform(image=noise, mask=mask)
        assert changed["image"].dtype == np.uint8
        assert np.array_equal(changed["mask"], mask)
        assert not np.array_equal(changed["image"], noise)


def test_a_crop_is_a_part_of_the_photo_and_of_its_mask(data: DataFolder) -> None:
    """Found again where it was cut from; all places come, the frame's edges among them."""
    crop = Augment(flip=0, affine=0, colour=0, grey=0, crop=[24, 32])
    samples, whole = samples_of(data, crop, cache=True), samples_of(data, PLAIN)[Key(0, 0)]
    places = set()
    for epoch in range(60):
        image, target = samples[Key(epoch, 0)]
        assert (image.shape, target.shape) == ((24, 32, 3), (24, 32))
        found = [
            (top, left)
            for top in range(32 - 24 + 1)
            for left in range(64 - 32 + 1)
            if torch.equal(image, whole[0][top : top + 24, left : left + 32])
        ]
        assert len(found) == 1
        top, left = found[0]
        assert torch.equal(target, whole[1][top : top + 24, left : left + 32])
        places.add((top, left))
    assert {top for top, _ in places} == set(range(9))
    assert len({left for _, left in places}) > 20


def test_crops_are_decided_by_their_key(data: DataFolder) -> None:
    crop = WILD.model_copy(update={"crop": [16, 32]})
    keys = [Key(epoch, photo) for epoch in range(3) for photo in range(3)]
    samples, again = samples_of(data, crop), samples_of(data, crop, cache=True)
    forwards = {key: samples[key] for key in keys}
    assert all(same(forwards[key], again[key]) for key in reversed(keys))
    assert not same(forwards[Key(0, 1)], forwards[Key(1, 1)])


def epoch_of(batches: Batches, epoch: int, start: int = 0) -> list[list[Key]]:
    batches.epoch, batches.start = epoch, start
    return list(batches)


@pytest.mark.parametrize(("samples", "size"), [(10, 3), (8, 4), (7, 7), (5, 8), (100, 1)])
def test_an_epoch_shows_each_photo_at_most_once(samples: int, size: int) -> None:
    batches = Batches(samples, size, seed=1)
    epoch = epoch_of(batches, 4)
    size = min(size, samples)
    assert len(epoch) == len(batches) == samples // size
    assert {len(batch) for batch in epoch} == {size}
    keys = [key for batch in epoch for key in batch]
    assert len(set(keys)) == len(keys)
    assert {key.epoch for key in keys} == {4}
    assert {key.photo for key in keys} <= set(range(samples))


def test_each_epoch_and_seed_has_its_order() -> None:
    batches = Batches(50, 5, seed=1)
    orders = [[key.photo for batch in epoch_of(batches, epoch) for key in batch] for epoch in range(4)]
    orders.append([key.photo for batch in epoch_of(Batches(50, 5, seed=2), 0) for key in batch])
    assert len({tuple(order) for order in orders}) == 5
    assert orders[1] == [key.photo for batch in epoch_of(Batches(50, 5, seed=1), 1) for key in batch]


def test_left_out_photos_change_from_epoch_to_epoch() -> None:
    batches = Batches(10, 4, seed=1)
    seen = {key.photo for epoch in range(10) for batch in epoch_of(batches, epoch) for key in batch}
    assert seen == set(range(10))


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_a_resumed_epoch_goes_on_where_it_stopped(start: int) -> None:
    batches = Batches(23, 4, seed=7)
    assert epoch_of(batches, 2, start) == epoch_of(batches, 2)[start:]


def test_neighbouring_seeds_are_unlike() -> None:
    hashes = {hash_of(seed, epoch, photo) for seed in range(5) for epoch in range(20) for photo in range(50)}
    assert len(hashes) == 5 * 20 * 50
    assert all(0 <= value < 2**31 for value in hashes)
    assert hash_of(1, 2, 3) == hash_of(1, 2, 3) != hash_of(3, 2, 1)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_every_batch(world: int) -> None:
    whole = list(Batches(10, 4, seed=3))
    shares = [list(Batches(10, 4, seed=3, rank=rank, world=world)) for rank in range(world)]
    assert {len(batch) for share in shares for batch in share} == {4 // world}
    for number, batch in enumerate(whole):
        assert sorted(key for share in shares for key in share[number]) == sorted(batch)


def test_a_batch_that_processes_cannot_share_evenly_is_refused() -> None:
    with pytest.raises(Failure, match=r"by 3; take NPROC=2, or train.batch_size=9 in a new RUN"):
        Batches(100, 8, seed=1, world=3)
    with pytest.raises(Failure, match=r"train.batch_size=15 .* or train.batch_size=16 in a new RUN"):
        Batches(14, 15, seed=1, world=2)
    with pytest.raises(Failure, match=r"1 training photos cannot be shared by 2 processes"):
        Batches(1, 8, seed=1, world=2)


@pytest.mark.parametrize(("samples", "world", "size"), [(13, 1, 13), (13, 2, 12), (14, 2, 14), (5, 4, 4)])
def test_fewer_photos_than_a_batch_can_be_shared(samples: int, world: int, size: int) -> None:
    shares = [list(Batches(samples, 16, seed=1, rank=rank, world=world)) for rank in range(world)]
    assert [len(batch) for share in shares for batch in share] == [size // world] * world
