"""Training samples, a photo and its soft target with random changes, and the batches of an epoch."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.photo import Photo
from competition.plural import counted
from competition.settings.schema import Augment
from folds import device_augment
from folds.augment import augmentation
from folds.frame import Frame


class Key(NamedTuple):
    """A sample: number of the epoch and index of the photo. With the seed, it determines every pixel."""

    epoch: int
    photo: int


class Pair(NamedTuple):
    """A photo in the network's frame, (h, w, 3) uint8 RGB, and its target, (h, w) uint8, 255 is car."""

    image: Pixels
    target: Pixels


class Samples(Dataset[tuple[Tensor, ...]]):
    """Training samples by ``Key``.

    The random numbers of a sample depend only on (seed, epoch, photo), not on the process that prepares it or on
    earlier samples. This makes a resumed training bit-identical.

    Args:
        photos: the training photos.
        data: the source of their masks.
        frame: the network's frame.
        augment: the random changes.
        seed: of the random changes.
        cache: keep all photos and targets in memory, in the network's frame.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        data: DataFolder,
        frame: Frame,
        augment: Augment,
        *,
        seed: int,
        cache: bool = False,
    ) -> None:
        self.photos = photos
        self.data = data
        self.frame = frame
        self.seed = seed
        self.on_device = augment.on_device
        self.transform = augmentation(augment)
        self.cached: list[Pair] | None = None
        if cache:
            with ThreadPoolExecutor() as pool:
                self.cached = list(pool.map(self.read, range(len(photos))))

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.photos)

    def __getitem__(self, key: Key) -> tuple[Tensor, ...]:
        """A sample: (h, w, 3) uint8 RGB and (h, w) uint8 target, 255 is car; h x w is the crop, if any.

        With ``augment.on_device`` they are unchanged, in the network's frame, and their change follows.
        """
        pair = self.pair(key)
        self.transform.set_random_seed(sample_seed(self.seed, *key))
        if self.on_device:
            change = device_augment.draw(self.transform, (self.frame.height, self.frame.width))
            return torch.from_numpy(pair.image), torch.from_numpy(pair.target), change
        changed = self.transform(image=pair.image, mask=pair.target)
        return torch.from_numpy(changed["image"]), torch.from_numpy(changed["mask"])

    def pair(self, key: Key) -> Pair:
        """The photo of a sample and its target, before their random change."""
        return self.cached[key.photo] if self.cached else self.read(key.photo)

    def read(self, index: int) -> Pair:
        """A photo and its target in the network's frame, unchanged."""
        photo = self.photos[index]
        if self.on_device:  # only then: the levels may differ by 1 from those that other trainings have learned from
            spans = self.data.truth_spans(photo)
            return Pair(self.frame.read(photo), self.frame.target_of_spans(spans, photo.shape))
        return Pair(self.frame.read(photo), self.frame.target(self.data.truth(photo)))


class Batches(Sampler[list[Key]]):
    """The batches of one epoch, in an order drawn from (seed, epoch); each photo occurs at most once.

    Set ``epoch`` and ``start`` before iterating. Batches before ``start`` are skipped, which resumes an epoch. A
    smaller last batch is dropped.

    Args:
        samples: the number of photos.
        batch_size: of all processes together; limited to the photos that the processes can share evenly.
        seed: of the order.
        rank: number of this process, which gets every ``world``-th image of each batch.
        world: number of processes.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, *, rank: int = 0, world: int = 1) -> None:
        self.samples = samples
        require_shareable(batch_size, world)
        if samples < world:
            raise Failure(
                f"{counted(samples, 'training photo')} cannot be shared by {world} processes; use fewer, NPROC=1"
            )
        self.batch_size = min(batch_size, samples // world * world)
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        return self.samples // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        """This process's keys of each batch, beginning with batch ``start``."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.samples)
        for batch in range(self.start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [Key(self.epoch, int(photo)) for photo in chosen[self.rank :: self.world]]


def require_shareable(batch_size: int, world: int) -> None:
    """Raise a Failure unless all processes get equal shares of a batch, so that every image has the same weight."""
    if batch_size % world:
        fewer = max(number for number in range(1, world) if batch_size % number == 0)
        raise Failure(
            f"train.batch_size={batch_size} is the batch of all processes and cannot be shared evenly by {world}; "
            f"use NPROC={fewer}, or train.batch_size={-(-batch_size // world) * world} in a new RUN"
        )


def sample_seed(*parts: int) -> int:
    """A 31-bit hash of whole numbers; neighboring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0]) >> 1
