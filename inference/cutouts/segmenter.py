"""Photos from Python: a path, a picture of PIL or an array in, a probability or a cut-out out. Without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from competition.command import Failure
from competition.images import Pixels
from competition.photo import Photo
from competition.rle import Shape
from inference.cutouts.model import Model
from inference.cutouts.reading import in_batches
from inference.cutouts.rendering import render

# A file; a picture of PIL, whose EXIF orientation is applied; or (H, W, 3) uint8 RGB.
Picture = str | Path | Image.Image | Pixels
Probability = NDArray[np.float32]


@dataclass(frozen=True)
class LoadedPhoto(Photo):
    """A photo that is in memory, (H, W, 3) uint8 RGB."""

    pixels: Pixels | None = None

    @property
    def shape(self) -> Shape:
        """(height, width) in pixels."""
        height, width = self.read().shape[:2]
        return height, width

    def read(self) -> Pixels:
        """The photo as (H, W, 3) uint8 RGB."""
        assert self.pixels is not None
        return self.pixels

    def read_halved(self, at_least: Shape) -> tuple[Pixels, int]:
        """The photo at full size: only the decoder of a JPEG file gives half of it in less time."""
        del at_least
        return self.read(), 1


class Segmenter:
    """Predicts photos.

    A path gives exactly the prediction of ``make predict`` and ``make cutout``. Of an array no half is decoded first,
    so its prediction differs slightly from that of its JPEG file if the photo is twice as large as the frame.

    Args:
        model: the networks.
        batch_size: photos in a call of the model, if a list is given.
    """

    def __init__(self, model: Model, batch_size: int = 1) -> None:
        self.model = model
        self.threshold = model.threshold
        self.batch_size = batch_size

    @overload
    def __call__(self, image: Picture) -> Probability: ...
    @overload
    def __call__(self, image: list[Picture]) -> list[Probability]: ...
    def __call__(self, image: Picture | list[Picture]) -> Probability | list[Probability]:
        """The probability of the object, (H, W) float32 in [0, 1]; a list for a list of photos.

        The mask of the pipeline is ``probability >= segmenter.threshold``.
        """
        made = [levels.astype(np.float32) / np.float32(255) for _, levels in self._predict(_listed(image))]
        return made if isinstance(image, list) else made[0]

    @overload
    def cutout(self, image: Picture, kind: str = "rgba") -> Pixels: ...
    @overload
    def cutout(self, image: list[Picture], kind: str = "rgba") -> list[Pixels]: ...
    def cutout(self, image: Picture | list[Picture], kind: str = "rgba") -> Pixels | list[Pixels]:
        """The object with soft edges, (H, W, 4) uint8 RGBA; a list for a list of photos.

        Args:
            image: a photo, or a list of photos.
            kind: ``rgba``, ``mask``, ``soft``, ``overlay``, or a colour, such as ``white``, behind the object.
        """
        made = [render(photo.read(), levels, self.threshold, kind) for photo, levels in self._predict(_listed(image))]
        return made if isinstance(image, list) else made[0]

    def _predict(self, images: Sequence[Picture]) -> Iterator[tuple[Photo, Pixels]]:
        """Each photo with its levels at full size, (H, W) uint8."""
        for photos in in_batches(map(as_photo, images), self.batch_size):
            levels = self.model.levels(np.stack([self.model.frame.read(photo) for photo in photos]))
            for photo, each in zip(photos, levels, strict=True):
                yield photo, self.model.frame.full_size(each, photo.shape)


def as_photo(image: Picture) -> Photo:
    """A photo that is read upright, from a file or from memory."""
    if isinstance(image, str | Path):
        path = Path(image)
        return Photo(path.name, path.name, 1, path, upright=True)
    pixels = _from_pil(image) if isinstance(image, Image.Image) else image
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(image).__name__
        raise Failure(f"a photo is a path, a picture of PIL, or an RGB array (H, W, 3) of uint8, and not {found}")
    return LoadedPhoto("the image", "the image", 1, Path("the image"), pixels=np.ascontiguousarray(pixels))


def _listed(image: Picture | list[Picture]) -> list[Picture]:
    return image if isinstance(image, list) else [image]


def _from_pil(image: Image.Image) -> Pixels:
    """Upright RGB pixels; 16 bits of gray are scaled, which ``convert`` would clip."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        return np.dstack([(np.asarray(upright) >> 8).astype(np.uint8)] * 3)
    return np.asarray(upright.convert("RGB"))
