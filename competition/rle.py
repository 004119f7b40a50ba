"""Carvana's run-length code of a mask, and what can be done with the spans alone.

A mask is written as ``start length start length ...``: pixels are numbered from 1, left to right and then
top to bottom, and an empty mask is the empty string. (Kaggle's evaluation page of the challenge.)

In memory the spans of a mask are an ``(n, 2)`` int64 array of half-open, 0-indexed ``[start, stop)`` intervals
of the flattened mask, sorted and disjoint.
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


def from_mask(mask: Mask) -> Spans:
    """The spans of a mask: (H, W) array of any dtype, non-zero is car, to (n, 2) intervals."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask has two dimensions (height, width), not shape {mask.shape}")
    # Packed 64 pixels to a word (non-zero is 1), row-major whatever the memory layout. A word of 0 before the first
    # pixel and at least one 0 after the last let a span begin and end anywhere.
    # packbits is slow, or refuses, where an element is not a byte.
    bits = np.packbits(mask if mask.dtype.itemsize == 1 else mask != 0, bitorder="little")
    padded = np.zeros(mask.size // 64 + 2, dtype="<u8")
    padded[1:].view(np.uint8)[: bits.size] = bits
    before, words = padded[:-1], padded[1:]
    # Few words hold a change: those that are not of one colour (all bits 0, or all 1, to which adding 1 gives 0), or
    # of another than the word before them.
    places = np.flatnonzero((words + 1 > 1) | (words != before))
    words, before = words[places], before[places]
    changed = (words ^ (words << 1) ^ (before >> 63)).view(np.uint8)  # bit k: is pixel k unlike the one before it?
    octets = np.flatnonzero(changed != 0)
    edges = np.flatnonzero(np.unpackbits(changed[octets], bitorder="little").view(np.bool_))
    octets = octets[edges >> 3]
    spans: Spans = (places[octets >> 3] * 64 + (octets & 7) * 8 + (edges & 7)).reshape(-1, 2)
    return spans


def to_mask(spans: Spans, shape: Shape) -> NDArray[np.uint8]:
    """The (H, W) uint8 mask of 0 and 1 that has these spans, which must lie within ``shape``."""
    edges = np.concatenate([[0], spans.ravel(), [shape[0] * shape[1]]])
    values = np.zeros(edges.size - 1, dtype=np.uint8)  # gap, span, gap, ... gap; a gap may be of no length
    values[1::2] = 1
    return np.repeat(values, np.diff(edges)).reshape(shape)


def to_text(spans: Spans) -> str:
    """The run-length code of spans."""
    numbers = spans.copy()
    numbers[:, 1] -= numbers[:, 0]
    numbers[:, 0] += 1
    # One formatting of all numbers takes half the time of one for each.
    return ("%d " * numbers.size % tuple(numbers.ravel().tolist()))[:-1]


def parse(rle: str, shape: Shape | None = None) -> Spans:
    """The spans in a run-length code, checked.

    Args:
        rle: a run-length code; white space around and between the numbers does not matter.
        shape: (H, W) of the image, or None to leave unchecked whether the spans lie within it.

    Returns:
        (n, 2) int64 array of half-open, 0-indexed intervals.

    Raises:
        ValueError: a token is not a whole number, their count is odd, a start is below 1, a length is not
            positive, a span leaves the image, spans overlap or are not sorted; the message names the token.
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
    # An end that overflows is negative, and so below its start. Which span is wrong is asked only where one is.
    if not positive or (ends[1:] < ends[:-1]).any() or ends[-1] > pixels:
        _refuse(_numbers(rle), pixels)
    return spans


def area(spans: Spans) -> int:
    """The number of car pixels."""
    return int((spans[:, 1] - spans[:, 0]).sum())


def intersection(a: Spans, b: Spans) -> int:
    """The number of pixels that are car in both, without decoding either.

    With the starts of both in order, and the stops too, a pixel lies in two spans where it is below the i-th stop and
    not below the start after the i-th: two more spans have begun there than have ended.
    """
    starts, stops = np.concatenate([a[:, 0], b[:, 0]]), np.concatenate([a[:, 1], b[:, 1]])
    starts.sort(kind="stable")  # which merges what is in order already
    stops.sort(kind="stable")
    common = stops[:-1] - starts[1:]
    return int(np.maximum(common, 0, out=common).sum())


def _numbers(rle: str) -> NDArray[np.int64]:
    """The whole numbers in a string, without a Python loop over them where it holds only digits and spaces."""
    # numpy alone would take "+ 2" or "1+2" for numbers.
    if rle.encode(errors="replace").translate(None, ORDINARY):
        for position, token in enumerate(re.findall(f"[^{WHITE_SPACE}]+", rle), start=1):
            if not WHOLE_NUMBER.fullmatch(token):
                raise ValueError(f"token {position}, {_shown(token)}, is not a whole number")
    if not rle.strip():
        return EMPTY.ravel()
    numbers = np.fromstring(rle, dtype=np.int64, sep=" ")
    if numbers.max() == HUGE:  # or more: numpy stops at it
        position = int(numbers.argmax())
        raise ValueError(f"token {position + 1}, {_shown(rle.split()[position])}, is larger than any image")
    return numbers


def _shown(token: str) -> str:
    return repr(token if len(token) <= 40 else f"{token[:40]}...")


def _refuse(numbers: NDArray[np.int64], pixels: int) -> None:
    """Raise a ValueError that says what is wrong with starts and lengths, and names the first token of that kind."""
    starts, lengths = numbers[::2], numbers[1::2]
    # Where the token lies: 0 the span's start, 1 its length, 2 the start of the next span. Compared such
    # that absurd numbers do not overflow.
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
