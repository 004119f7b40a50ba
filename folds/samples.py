"""Training samples: a photo and its soft target, changed at random, as uint8."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import albumentations
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from competition.command import Failure
from competition.data_folder import DataFolder, Photo
from competition.images import Pixels
from competition.settings.schema import Augment
from folds.frame import Frame


class Key(NamedTuple):
    """Which sample: of which epoch, and which photo. It alone decides what the sample looks like."""

    epoch: int
    photo: int


class Pair(NamedTuple):
    """A photo in the network's frame, (h, w, 3) uint8 RGB, and its target, (h, w) uint8, 255 is car."""

    image: Pixels
    target: Pixels


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Training samples by ``Key``.

    What is random about a sample is drawn from (seed, epoch, photo), so it is the same whichever process
    prepares it, and whatever was prepared before it: that is what makes a resumed training bit-identical.

    Args:
        photos: the training photos.
        data: where their masks are.
        frame: the network's frame.
        augment: what is done at random.
        seed: of the randomness.
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
        self.transform = augmentation(augment)
        self.cached: list[Pair] | None = None
        if cache:
            with ThreadPoolExecutor() as pool:
                self.cached = list(pool.map(self.read, range(len(photos))))

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.photos)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        """The sample of a key: (h, w, 3) uint8 RGB and (h, w) uint8 target, 255 is car; h x w is the crop if any."""
        pair = self.cached[key.photo] if self.cached else self.read(key.photo)
        self.transform.set_random_seed(hash_of(self.seed, *key))
        changed = self.transform(image=pair.image, mask=pair.target)
        return torch.from_numpy(changed["image"]), torch.from_numpy(changed["mask"])

    def read(self, index: int) -> Pair:
        """A photo and its target as they are, in the network's frame."""
        photo = self.photos[index]
        return Pair(self.frame.read(photo.path), self.frame.target(self.data.truth(photo)))


class Batches(Sampler[list[Key]]):
    """The batches of one epoch, each photo at most once, in an order drawn from (seed, epoch).

    Set ``epoch`` and ``start`` before iterating: the batches before ``start`` are left out, which is how a resumed
    epoch goes on where it stopped. A last batch that would be smaller is left out too.

    Args:
        samples: the number of photos.
        batch_size: of all processes together; with fewer photos, as many of them as can be shared.
        seed: of the order.
        rank: number of this process, which gets its share of every batch.
        world: how many processes there are.

    Raises:
        Failure: the batches cannot be shared evenly, or there are more processes than photos.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, *, rank: int = 0, world: int = 1) -> None:
        self.samples = samples
        require_shareable(batch_size, world)
        if samples < world:
            raise Failure(f"{samples} training photos cannot be shared by {world} processes; take fewer, NPROC=1")
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
        """This process's keys of each batch from ``start`` on."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.samples)
        for batch in range(self.start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [Key(self.epoch, int(photo)) for photo in chosen[self.rank :: self.world]]


def require_shareable(batch_size: int, world: int) -> None:
    """Raise a Failure unless processes can have equal shares of a batch; else its images would not count alike."""
    if batch_size % world:
        fewer = max(number for number in range(1, world) if batch_size % number == 0)
        raise Failure(
            f"train.batch_size={batch_size} is the batch of all processes and cannot be shared evenly by {world}; "
            f"take NPROC={fewer}, or train.batch_size={-(-batch_size // world) * world} in a new RUN"
        )


def augmentation(settings: Augment) -> albumentations.Compose:
    """What is done to a sample at random. The mask stays soft: it is interpolated as the photo is.

    All of it works on uint8. A crop comes before the colours, which need not be computed for what is cut off, and
    after the shift, which would leave a border in it.
    """
    return albumentations.Compose([*geometry(settings), *colours(settings)])


def geometry(settings: Augment) -> list[albumentations.BasicTransform]:
    """What moves the photo and the mask."""
    transforms: list[albumentations.BasicTransform] = [
        albumentations.HorizontalFlip(p=settings.flip),
        albumentations.Affine(
            scale=(1 - settings.scale, 1 + settings.scale),
            translate_percent=(-settings.shift, settings.shift),
            rotate=(-settings.rotate, settings.rotate),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_LINEAR,
            border_mode=cv2.BORDER_REPLICATE,
            p=settings.affine,
        ),
    ]
    if settings.crop:
        transforms.append(albumentations.RandomCrop(*settings.crop))
    return transforms


def colours(settings: Augment) -> list[albumentations.BasicTransform]:
    """What changes the photo alone. What is switched off draws no random number either."""
    transforms: list[albumentations.BasicTransform] = [
        albumentations.ColorJitter(
            brightness=around_one(settings.brightness),
            contrast=around_one(settings.contrast),
            saturation=around_one(settings.saturation),
            hue=(-settings.hue, settings.hue),
            p=settings.colour,
        ),
        albumentations.ToGray(p=settings.grey),
    ]
    if settings.blur:
        transforms.append(albumentations.GaussianBlur(blur_limit=(3, 5), p=settings.blur))
    if settings.jpeg:
        transforms.append(albumentations.ImageCompression(quality_range=(50, 95), p=settings.jpeg))
    return transforms


def around_one(change: float) -> tuple[float, float]:
    """The range of factors with a largest relative change."""
    return 1 - change, 1 + change


def hash_of(*parts: int) -> int:
    """A 31-bit seed from several whole numbers, alike for no two neighbours."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0]) >> 1


def leave_signals_to_the_trainer(_worker: int) -> None:
    """Start a loader's worker in a process group of its own.

    Ctrl-C, `timeout` and many schedulers signal the whole group; workers must live until the trainer has saved. A
    worker whose trainer is gone ends by itself.
    """
    os.setpgrp()
