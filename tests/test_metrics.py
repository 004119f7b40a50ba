import numpy as np
import pytest
from conftest import plain_encode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from competition import metrics

steady = settings(derandomize=True, deadline=None, max_examples=50)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 30))
pairs = shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.integers(0, 1))] * 2))


def pixels(mask: NDArray[np.uint8]) -> set[tuple[int, int]]:
    return {(y, x) for y, row in enumerate(mask.tolist()) for x, value in enumerate(row) if value}


@steady
@given(pairs)
def test_dice_and_iou_follow_the_definition(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    a, b = pair
    first, second = pixels(a), pixels(b)
    dice = 2 * len(first & second) / (len(first) + len(second)) if first or second else 1.0
    iou = len(first & second) / len(first | second) if first or second else 1.0
    codes = plain_encode(a), plain_encode(b)
    assert metrics.dice(a, b) == metrics.dice_rle(*codes) == dice
    assert metrics.iou(a, b) == iou
    assert iou == pytest.approx(dice / (2 - dice), abs=1e-12)
    assert metrics.counts(a, b) == (len(first & second), len(first), len(second))
    assert metrics.dice(b, a) == dice


@pytest.mark.parametrize(
    ("a", "b", "dice", "iou"),
    [
        ([[0, 0, 0, 0]], [[0, 0, 0, 0]], 1, 1),
        ([[1, 1, 0, 0]], [[0, 0, 0, 0]], 0, 0),
        ([[0, 0, 0, 0]], [[0, 0, 0, 1]], 0, 0),
        ([[1, 1, 0, 0]], [[0, 0, 1, 1]], 0, 0),
        ([[1, 1, 0, 0]], [[1, 1, 0, 0]], 1, 1),
        ([[1, 1, 0, 0]], [[0, 1, 1, 0]], 1 / 2, 1 / 3),
        ([[1, 1, 1, 1]], [[0, 0, 0, 1]], 2 / 5, 1 / 4),
        ([[1]], [[1]], 1, 1),
    ],
)
def test_scores_computed_by_hand(a: list[list[int]], b: list[list[int]], dice: float, iou: float) -> None:
    first, second = np.array(a), np.array(b)
    assert metrics.dice(first, second) == pytest.approx(dice)
    assert metrics.iou(first, second) == pytest.approx(iou)
    assert metrics.dice_rle(plain_encode(first), plain_encode(second)) == pytest.approx(dice)


def test_any_dtype_and_non_zero_is_car() -> None:
    a = np.array([[0, 255, 255, 0]], dtype=np.uint8)
    b = np.array([[0.0, 0.5, 0.0, 1.0]])
    assert metrics.counts(a, b) == (1, 2, 2)
    assert metrics.dice(a.astype(bool), b) == 0.5


def test_masks_of_different_shapes_and_batches_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        metrics.dice(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="different shapes"):
        metrics.iou(np.zeros((2, 3)), np.zeros((1, 3)))  # would broadcast
    with pytest.raises(ValueError, match="two dimensions"):
        metrics.dice(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)))


def test_counts_do_not_overflow() -> None:
    """2|A| of a thousand full-size masks exceeds 2**32."""
    counts = metrics.Counts(3 * 10**9, 3 * 10**9, 3 * 10**9)
    assert counts.dice == counts.iou == 1
