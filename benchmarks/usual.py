"""The usual preprocessing and postprocessing of public solutions."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.rle import Mask, Shape

FloatArray = NDArray[np.float32]
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


def read(path: Path, height: int, width: int) -> FloatArray:
    """A photo as (3, height, width) float32.

    Normalized like ``preprocess_input`` of segmentation-models-pytorch, and converted as in its examples.
    """
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    image = cv2.resize(image, (width, height))
    normalized = (image / 255.0 - MEAN) / STD
    planes: FloatArray = normalized.transpose(2, 0, 1).astype(np.float32)
    return planes


def mask_of(probabilities: FloatArray, shape: Shape) -> NDArray[np.uint8]:
    """(h, w) probabilities enlarged to (H, W) and thresholded."""
    enlarged = cv2.resize(probabilities, (shape[1], shape[0]))
    mask: NDArray[np.uint8] = (enlarged > 0.5).astype(np.uint8)
    return mask


def encode(mask: Mask) -> str:
    """The RLE of a mask."""
    pixels = np.concatenate([[0], mask.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def write(path: Path, names: Sequence[str], codes: Sequence[str]) -> None:
    """A submission, gzipped."""
    pd.DataFrame({"img": names, "rle_mask": codes}).to_csv(path, index=False, compression="gzip")
