"""Carvana's run-length code of a mask, and what can be done with the runs alone.

A mask is written as ``start length start length ...``: pixels are numbered from 1, left to right and then
top to bottom, and an empty mask is the empty string. (Kaggle's evaluation page of the challenge.)

In memory the runs of a mask are an ``(n, 2)`` int64 array of half-open, 0-indexed ``[start, stop)`` intervals
of the flattened mask, sorted and disjoint.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[Any]
Runs = NDArray[np.int64]
Shape = tuple[int, int]

EMPTY = np.empty((0, 2), dtype=np.int64)


def encode(mask: Mask) -> str:
    """The run-length code of a mask.

    Args:
        mask: (H, W) array of any boolean, integer or float dtype, contiguous or not; non-zero is car.

    Returns:
        ``"start length start length ..."``, 1-indexed, row-major; ``""`` for an empty mask.

    Raises:
        ValueError: the array does not have two dimensions.
    """
    return to_text(from_mask(mask))


def decode(rle: str, shape: Shape) -> NDArray[np.uint8]:
    """The mask that a run-length code describes.

    Args:
        rle: what ``encode`` returns.
        shape: (H, W) of the mask.

    Returns:
        (H, W) uint8 array of 0 and 1.

    Raises:
        ValueError: the code is malformed or leaves the image; the message names the token.
    """
    return to_mask(parse(rle, shape), shape)


def from_mask(mask: Mask) -> Runs:
    """The runs of a mask: (H, W) array of any dtype, non-zero is car, to (n, 2) intervals."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask has two dimensions (height, width), not shape {mask.shape}")
    car = mask if mask.dtype == np.bool_ else mask != 0
    flat = np.ravel(car)  # row-major whatever the memory layout; copies only when it must
    if flat.size == 0:
        return EMPTY
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    # The border of the array is a change too where a run touches it: the first and the last pixel.
    borders = ([0] if flat[0] else [], [flat.size] if flat[-1] else [])
    edges = np.concatenate([borders[0], changes, borders[1]]) if borders != ([], []) else changes
    return edges.astype(np.int64, copy=False).reshape(-1, 2)


def to_mask(runs: Runs, shape: Shape) -> NDArray[np.uint8]:
    """The (H, W) uint8 mask of 0 and 1 that has these runs, which must lie within ``shape``."""
    flat = np.zeros(shape[0] * shape[1], dtype=np.uint8)
    # A slice assignment is a memset: a thousand of them take less time than one pass over the pixels.
    for start, stop in runs.tolist():
        flat[start:stop] = 1
    return flat.reshape(shape)


def to_text(runs: Runs) -> str:
    """The run-length code of runs."""
    numbers = runs.copy()
    numbers[:, 1] -= numbers[:, 0]
    numbers[:, 0] += 1
    return " ".join(map(str, numbers.ravel().tolist()))


def parse(rle: str, shape: Shape | None = None) -> Runs:
    """The runs in a run-length code, checked.

    Args:
        rle: a run-length code; white space around and between the numbers does not matter.
        shape: (H, W) of the image, or None to leave unchecked whether the runs lie within it.

    Returns:
        (n, 2) int64 array of half-open, 0-indexed intervals.

    Raises:
        ValueError: a token is not a whole number, their count is odd, a start is below 1, a length is not
            positive, a run leaves the image, runs overlap or are not sorted; the message names the token.
    """
    numbers = _numbers(rle)
    if numbers.size % 2:
        raise ValueError(f"odd count of numbers ({numbers.size}): the start {numbers[-1]} has no length")
    starts, lengths = numbers[::2], numbers[1::2]
    _refuse(starts < 1, 0, numbers, "start {} is below 1")
    _refuse(lengths < 1, 1, numbers, "length {} is not positive")
    pixels = np.iinfo(np.int64).max if shape is None else shape[0] * shape[1]
    _refuse(starts > pixels, 0, numbers, f"start {{}} lies outside the image of {pixels} pixels")
    # Compared this way round, because start + length of absurd numbers would overflow.
    _refuse(lengths > pixels - starts + 1, 1, numbers, f"length {{}} leaves the image of {pixels} pixels")
    stops = starts + lengths - 1
    late = np.concatenate([[False], starts[1:] <= stops[:-1]]) if starts.size else np.empty(0, dtype=bool)
    _refuse(late, 0, numbers, "start {} overlaps the run before it, or is not sorted")
    return np.stack([starts - 1, stops], axis=1)


def area(runs: Runs) -> int:
    """The number of car pixels."""
    return int((runs[:, 1] - runs[:, 0]).sum())


def intersection(a: Runs, b: Runs) -> int:
    """The number of pixels that are car in both, without decoding either.

    The pixels of ``a`` below a position are a piecewise linear function of it; the intersection is the sum,
    over the intervals of ``b``, of what that function gains.
    """
    if not len(a) or not len(b):
        return 0
    before = np.concatenate([[0], np.cumsum(a[:, 1] - a[:, 0])])
    run = np.searchsorted(a[:, 0], b.ravel(), side="right")  # how many runs of a start at or before
    inside = np.maximum(a[run - 1, 1] - b.ravel(), 0) * (run > 0)  # what of the last one lies beyond
    covered = (before[run] - inside).reshape(-1, 2)
    return int((covered[:, 1] - covered[:, 0]).sum())


def _numbers(rle: str) -> NDArray[np.int64]:
    """The whole numbers in a string, without a Python loop over them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            return np.fromstring(rle, dtype=np.int64, sep=" ") if rle.strip() else EMPTY.ravel()
    except (ValueError, DeprecationWarning):
        pass
    for position, token in enumerate(rle.split(), start=1):
        if not token.lstrip("+-").isascii() or not token.lstrip("+-").isdigit():
            raise ValueError(f"token {position}, {token[:40]!r}, is not a whole number")
    raise ValueError(f"not a run-length code: {rle[:40]!r}")


def _refuse(bad: NDArray[np.bool_], offset: int, numbers: NDArray[np.int64], reason: str) -> None:
    """Raise a ValueError for the first bad run: the reason with its number, and which token that is."""
    if bad.any():
        token = 2 * int(bad.argmax()) + offset
        raise ValueError(f"token {token + 1}: {reason.format(numbers[token])}")
