"""Training samples depend only on (seed, epoch, photo). Batches have an order and are shared by ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.settings.schema import Augment
from folds.frame import Frame
from folds.samples import Batches, Key, Samples, sample_seed

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


# Samples.


def test_without_augmentation_samples_are_the_photos(data: DataFolder) -> None:
    samples = samples_of(data, PLAIN)
    assert len(samples) == len(data.train)
    for index, photo in enumerate(data.train):
        image, target = samples[Key(3, index)]
        assert (image.dtype, image.shape) == (torch.uint8, (32, 64, 3))
        assert (target.dtype, target.shape) == (torch.uint8, (32, 64))
        assert np.array_equal(image, FRAME.read(photo))
        assert np.array_equal(target, FRAME.target(data.truth(photo)))


@pytest.mark.parametrize("augment", [WILD, WILD.model_copy(update={"crop": [16, 32]})], ids=["whole", "crop"])
def test_a_sample_depends_only_on_its_key_and_the_seed(data: DataFolder, augment: Augment) -> None:
    keys = [Key(epoch, photo) for epoch in range(3) for photo in range(4)]
    torch.manual_seed(1)
    samples, again = samples_of(data, augment), samples_of(data, augment, cache=True)
    forwards = {key: samples[key] for key in keys}
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    backwards = {key: again[key] for key in reversed(keys)}
    assert all(same(forwards[key], backwards[key]) for key in keys)
    other = samples_of(data, augment, seed=2)
    assert not any(same(forwards[key], other[key]) for key in keys)
    assert not same(forwards[Key(0, 1)], forwards[Key(1, 1)]), "each epoch changes a photo differently"


def test_the_cache_is_not_changed(data: DataFolder) -> None:
    plain, cached = samples_of(data), samples_of(data, cache=True)
    for key in [Key(epoch, photo) for epoch in range(4) for photo in (0, 3)]:
        assert same(plain[key], cached[key])
    assert cached.cached is not None
    for index, pair in enumerate(cached.cached):
        fresh = plain.read(index)
        assert np.array_equal(pair.image, fresh.image)
        assert np.array_equal(pair.target, fresh.target)


def test_half_of_the_samples_are_flipped(data: DataFolder) -> None:
    samples = samples_of(data, PLAIN.model_copy(update={"flip": 0.5}), cache=True)
    unchanged = torch.from_numpy(samples.read(0).target)
    flipped = sum(not torch.equal(samples[Key(epoch, 0)][1], unchanged) for epoch in range(100))
    assert 35 <= flipped <= 65


def test_neighboring_seeds_are_unrelated() -> None:
    seeds = {sample_seed(seed, epoch, photo) for seed in range(5) for epoch in range(10) for photo in range(20)}
    assert len(seeds) == 5 * 10 * 20
    assert all(0 <= value < 2**31 for value in seeds)
    assert sample_seed(1, 2, 3) == sample_seed(1, 2, 3) != sample_seed(3, 2, 1)


# Batches.


def epoch_of(batches: Batches, epoch: int, start: int = 0) -> list[list[Key]]:
    batches.epoch, batches.start = epoch, start
    return list(batches)


@pytest.mark.parametrize(("samples", "size"), [(10, 3), (8, 4), (7, 7), (5, 8), (100, 1)])
def test_an_epoch_has_each_photo_at_most_once(samples: int, size: int) -> None:
    batches = Batches(samples, size, seed=1)
    epoch = epoch_of(batches, 4)
    size = min(size, samples)
    assert len(epoch) == len(batches) == samples // size
    assert {len(batch) for batch in epoch} == {size}
    keys = [key for batch in epoch for key in batch]
    assert len(set(keys)) == len(keys)
    assert {key.epoch for key in keys} == {4}
    assert {key.photo for key in keys} <= set(range(samples))


def test_each_epoch_and_seed_has_its_own_order() -> None:
    batches = Batches(50, 5, seed=1)
    orders = [[key.photo for batch in epoch_of(batches, epoch) for key in batch] for epoch in range(4)]
    orders.append([key.photo for batch in epoch_of(Batches(50, 5, seed=2), 0) for key in batch])
    assert len({tuple(order) for order in orders}) == 5
    assert orders[1] == [key.photo for batch in epoch_of(Batches(50, 5, seed=1), 1) for key in batch]


def test_each_epoch_drops_other_photos() -> None:
    batches = Batches(10, 4, seed=1)
    seen = {key.photo for epoch in range(10) for batch in epoch_of(batches, epoch) for key in batch}
    assert seen == set(range(10))


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_a_resumed_epoch_continues_with_the_next_batch(start: int) -> None:
    batches = Batches(23, 4, seed=7)
    assert epoch_of(batches, 2, start) == epoch_of(batches, 2)[start:]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_every_batch(world: int) -> None:
    whole = list(Batches(10, 4, seed=3))
    shares = [list(Batches(10, 4, seed=3, rank=rank, world=world)) for rank in range(world)]
    assert {len(batch) for share in shares for batch in share} == {4 // world}
    for number, batch in enumerate(whole):
        assert sorted(key for share in shares for key in share[number]) == sorted(batch)


@pytest.mark.parametrize(
    ("samples", "size", "world", "reason"),
    [
        (100, 8, 3, "train.batch_size=8 .* by 3; use NPROC=2, or train.batch_size=9 in a new RUN"),
        (14, 15, 2, "train.batch_size=15 .* or train.batch_size=16 in a new RUN"),
        (1, 8, 2, "1 training photo cannot be shared by 2 processes"),
    ],
)
def test_batches_that_ranks_cannot_share_evenly(samples: int, size: int, world: int, reason: str) -> None:
    with pytest.raises(Failure, match=reason):
        Batches(samples, size, seed=1, world=world)


@pytest.mark.parametrize(("samples", "world", "size"), [(13, 1, 13), (13, 2, 12), (14, 2, 14), (5, 4, 4)])
def test_fewer_photos_than_a_batch_can_be_shared(samples: int, world: int, size: int) -> None:
    shares = [list(Batches(samples, 16, seed=1, rank=rank, world=world)) for rank in range(world)]
    assert [len(batch) for share in shares for batch in share] == [size // world] * world
