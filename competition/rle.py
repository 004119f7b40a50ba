"""Carvana's run-length code of a mask, and arithmetic on its spans (the runs of the code).

A mask is written as ``start length start length ...``. Pixels are numbered from 1, row by row from the top left, and
an empty mask is the empty string (evaluation page of the challenge on Kaggle).

In memory the spans of a mask are an (n, 2) int64 array of half-open, 0-indexed ``[start, stop)`` intervals of the
flattened mask, sorted and disjoint.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[Any]
Spans = NDArray[np.int64]
Shape = tuple[int, int]

EMPTY: Spans = np.empty((0, 2), dtype=np.int64)
HUGE = np.iinfo(np.int64).max
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
WHITE_SPACE = " \t\n\r\v\f"
ORDINARY = f"0123456789{WHITE_SPACE}".encode()


def encode(mask: Mask) -> str:
    """The run-length code of a mask.

    Args:
        mask: (H, W) array of any boolean, integer or float dtype, contiguous or not; non-zero is car.

    Returns:
        ``"start length start length ..."``, 1-indexed, row-major; ``""`` for an empty mask.

    """
    return to_text(from_mask(mask))


def decode(rle: str, shape: Shape) -> NDArray[np.uint8]:
    """The mask of a run-length code: (H, W) uint8 of 0 and 1.

    Raises:
        ValueError: see ``parse``.
    """
    return to_mask(parse(rle, shape), shape)


def from_mask(mask: Mask) -> Spans:
    """The spans of a mask: (H, W) array of any dtype, non-zero is car, to (n, 2) intervals."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask has two dimensions (height, width), not shape {mask.shape}")
    # Pack 64 pixels into a word (non-zero is 1), in row-major order for every memory layout. A word of 0 before the
    # first pixel and at least one 0 after the last allow a span to start and end anywhere.
    # packbits is slow, or fails, if an element is not one byte.
    bits = np.packbits(mask if mask.dtype.itemsize == 1 else mask != 0, bitorder="little")
    padded = np.zeros(mask.size // 64 + 2, dtype="<u8")
    padded[1:].view(np.uint8)[: bits.size] = bits
    before, words = padded[:-1], padded[1:]
    # Few words contain a change: those with mixed bits (neither all 0 nor all 1; adding 1 to all ones gives 0), and
    # those that differ from the word before.
    places = np.flatnonzero((words + 1 > 1) | (words != before))
    words, before = words[places], before[places]
    changed = (words ^ (words << 1) ^ (before >> 63)).view(np.uint8)  # bit k: pixel k differs from the one before
    octets = np.flatnonzero(changed != 0)
    edges = np.flatnonzero(np.unpackbits(changed[octets], bitorder="little").view(np.bool_))
    octets = octets[edges >> 3]
    spans: Spans = (places[octets >> 3] * 64 + (octets & 7) * 8 + (edges & 7)).reshape(-1, 2)
    return spans


def to_mask(spans: Spans, shape: Shape) -> NDArray[np.uint8]:
    """The (H, W) uint8 mask of 0 and 1 with these spans, which must lie within ``shape``."""
    edges = np.concatenate([[0], spans.ravel(), [shape[0] * shape[1]]])
    values = np.zeros(edges.size - 1, dtype=np.uint8)  # gap, span, gap, ... gap; a gap may have length 0
    values[1::2] = 1
    return np.repeat(values, np.diff(edges)).reshape(shape)


def to_text(spans: Spans) -> str:
    """The run-length code of spans."""
    numbers = spans.copy()
    numbers[:, 1] -= numbers[:, 0]
    numbers[:, 0] += 1
    # Formatting all numbers at once takes half the time of formatting each.
    return ("%d " * numbers.size % tuple(numbers.ravel().tolist()))[:-1]


def parse(rle: str, shape: Shape | None = None) -> Spans:
    """The spans of a run-length code, validated.

    Args:
        rle: a run-length code; any white space may surround and separate the numbers.
        shape: (H, W) of the image; None does not check that the spans lie within the image.

    Returns:
        (n, 2) int64 array of half-open, 0-indexed intervals.

    Raises:
        ValueError: a token is not a whole number, the count of numbers is odd, a start is below 1, a length is not
            positive, a span leaves the image, or spans overlap or are not sorted; the message names the token.
    """
    numbers = _numbers(rle)
    if numbers.size % 2:
        raise ValueError(f"odd count of numbers ({numbers.size}): the start {numbers[-1]} has no length")
    if not numbers.size:
        return EMPTY
    pixels = HUGE if shape is None else shape[0] * shape[1]
    positive = numbers.min() > 0
    spans = numbers.reshape(-1, 2)
    spans[:, 0] -= 1
    spans[:, 1] += spans[:, 0]
    ends = spans.ravel()
    # An end that overflows is negative, and therefore below its start.
    if not positive or (ends[1:] < ends[:-1]).any() or ends[-1] > pixels:
        _raise_for_first_error(_numbers(rle), pixels)
    return spans


def area(spans: Spans) -> int:
    """The number of car pixels."""
    return int((spans[:, 1] - spans[:, 0]).sum())


def intersection(a: Spans, b: Spans) -> int:
    """The number of pixels that are car in both masks, without decoding them.

    Sort the starts of both masks together, and the stops. A pixel lies in two spans if and only if, for some i, it is
    below the i-th stop and not below start i + 1: there, two more spans have started than stopped.
    """
    starts, stops = np.concatenate([a[:, 0], b[:, 0]]), np.concatenate([a[:, 1], b[:, 1]])
    starts.sort(kind="stable")  # merges the two sorted halves
    stops.sort(kind="stable")
    common = stops[:-1] - starts[1:]
    return int(np.maximum(common, 0, out=common).sum())


def _numbers(rle: str) -> NDArray[np.int64]:
    """The whole numbers in a string; a string of digits and white space needs no Python loop."""
    # numpy alone would accept "+ 2" and "1+2" as numbers.
    if rle.encode(errors="replace").translate(None, ORDINARY):
        for position, token in enumerate(re.findall(f"[^{WHITE_SPACE}]+", rle), start=1):
            if not WHOLE_NUMBER.fullmatch(token):
                raise ValueError(f"token {position}, {_shown(token)}, is not a whole number")
    if not rle.strip():
        return EMPTY.ravel()
    numbers = np.fromstring(rle, dtype=np.int64, sep=" ")
    if numbers.max() == HUGE:  # or larger: numpy clips to it
        position = int(numbers.argmax())
        raise ValueError(f"token {position + 1}, {_shown(rle.split()[position])}, is larger than any image")
    return numbers


def _shown(token: str) -> str:
    return repr(token if len(token) <= 40 else f"{token[:40]}...")


def _raise_for_first_error(numbers: NDArray[np.int64], pixels: int) -> None:
    starts, lengths = numbers[::2], numbers[1::2]
    # The offset of the wrong token from the start of its span: 0 the start, 1 the length, 2 the next start.
    # The comparisons do not overflow for very large numbers.
    for bad, offset, reason in (
        (starts < 1, 0, "start {} is below 1"),
        (lengths < 1, 1, "length {} is not positive"),
        (starts > pixels, 0, f"start {{}} lies outside the image of {pixels} pixels"),
        (lengths > pixels - starts + 1, 1, f"length {{}} leaves the image of {pixels} pixels"),
        (starts[1:] - starts[:-1] < lengths[:-1], 2, "start {} overlaps the span before it, or is not sorted"),
    ):
        if bad.any():
            token = 2 * int(bad.argmax()) + offset
            raise ValueError(f"token {token + 1}: {reason.format(numbers[token])}")
