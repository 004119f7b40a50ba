import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import plain_encode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from competition import rle

REAL = Path(__file__).parent.parent / "data" / "carvana" / "train_masks.csv"

steady = settings(derandomize=True, deadline=None, max_examples=50)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 80))
masks = shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))


def plain_decode(code: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    numbers = [int(token) for token in code.split()]
    car = {p for start, length in zip(numbers[::2], numbers[1::2], strict=True) for p in range(start, start + length)}
    return np.array([p in car for p in range(1, shape[0] * shape[1] + 1)], dtype=np.uint8).reshape(shape)


@steady
@given(masks)
def test_encode_and_decode_follow_the_definition(mask: NDArray[np.uint8]) -> None:
    code = rle.encode(mask)
    assert code == plain_encode(mask)
    decoded = rle.decode(code, mask.shape)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, plain_decode(code, mask.shape))
    np.testing.assert_array_equal(decoded, mask)
    assert rle.area(rle.parse(code, mask.shape)) == mask.sum()


@steady
@given(st.lists(st.integers(1, 200), max_size=30), st.booleans())
def test_spans_of_any_length_at_any_place(lengths: list[int], first: bool) -> None:
    """Long spans fill whole words and bytes, unlike random pixels."""
    pixels = np.repeat((np.arange(len(lengths)) + first) % 2, lengths).astype(np.uint8)
    mask = pixels.reshape(1, -1)
    code = rle.encode(mask)
    assert code == plain_encode(mask)
    np.testing.assert_array_equal(rle.decode(code, mask.shape), mask)


def test_stripes_aligned_with_64_bit_words() -> None:
    for shape in ((1, 63), (1, 64), (1, 65), (64, 64), (7, 100)):
        for period in (2, 8, 16, 64, 128):
            mask = (np.arange(shape[0] * shape[1]) % period < period // 2).reshape(shape)
            assert rle.encode(mask) == plain_encode(mask)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([[0, 0, 0], [0, 0, 0]], ""),
        ([[1, 1, 1], [1, 1, 1]], "1 6"),
        ([[1, 0, 0], [0, 0, 0]], "1 1"),
        ([[0, 0, 0], [0, 0, 1]], "6 1"),
        ([[1, 0, 0], [0, 0, 1]], "1 1 6 1"),
        ([[0, 1, 1], [1, 1, 0]], "2 4"),  # a span continues in the next row
        ([[0, 1, 0], [0, 1, 1]], "2 1 5 2"),  # row by row, not column by column
        ([[0, 1, 1, 0, 1]], "2 2 5 1"),
        ([[0], [1], [1]], "2 2"),
        ([[1]], "1 1"),
        ([[0]], ""),
    ],
)
def test_codes_computed_by_hand(rows: list[list[int]], code: str) -> None:
    mask = np.array(rows)
    assert rle.encode(mask) == code
    np.testing.assert_array_equal(rle.decode(code, mask.shape), mask)


@pytest.mark.parametrize("dtype", [*"?bBhHiIlLqQefd", ">i4", ">f8"])
def test_non_zero_is_car_in_every_dtype(dtype: str) -> None:
    mask = np.array([[0, 3, 0], [1, 100, 0]]).astype(dtype)
    assert rle.encode(mask) == "2 1 4 2"


@pytest.mark.parametrize("values", [[-1, 0, 255, 0], [1e-30, 0.0, -0.5, -0.0], np.array([-128, 0, 1, 0], np.int8)])
def test_negative_values_and_fractions_are_car(values: ArrayLike) -> None:
    assert rle.encode(np.array([values])) == "1 1 3 1"


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32])
def test_the_memory_layout_does_not_matter(dtype: type) -> None:
    large = (np.random.default_rng(1).random((40, 60)) < 0.4).astype(dtype)
    large.flags.writeable = False
    views = [large.T, large[::2, ::3], large[::-1], large[:, ::-1], large[5:20, 7:50], np.asfortranarray(large)]
    for view in views:
        assert rle.encode(view) == plain_encode(np.array(view.tolist()))


def test_a_mask_without_pixels_is_empty() -> None:
    for shape in ((0, 0), (0, 5), (5, 0)):
        assert rle.encode(np.zeros(shape)) == ""
        assert rle.decode("", shape).shape == shape


def test_a_mask_has_two_dimensions() -> None:
    for shape in ((4,), (1, 2, 2), ()):
        with pytest.raises(ValueError, match="two dimensions"):
            rle.encode(np.zeros(shape))


def test_touching_spans_are_accepted() -> None:
    spans = rle.parse("2 2 4 3", (2, 5))
    assert spans.tolist() == [[1, 3], [3, 6]]
    assert rle.to_mask(spans, (2, 5)).ravel().tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert rle.encode(rle.decode("2 2 4 3", (2, 5))) == "2 5"


def test_white_space_and_leading_zeros_do_not_matter() -> None:
    for code in ("", " ", "\n", "\t \r\n"):
        assert rle.decode(code, (3, 4)).sum() == 0
    for code in (" 2 3 7 1", "2 3 7 1\n", "2  3\t7\n1", "+2 3 7 1", "002 3 7 1"):
        assert rle.parse(code, (3, 4)).tolist() == [[1, 4], [6, 7]]


HUGE = "99999999999999999999"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("5", r"odd count of numbers \(1\): the start 5 has no length"),
        ("1 2 0 3", "token 3: start 0 is below 1"),
        ("-4 3", "token 1: start -4 is below 1"),
        ("1 2 5 0", "token 4: length 0 is not positive"),
        ("12 2", "token 2: length 2 leaves the image of 12 pixels"),
        ("1 2 13 1", "token 3: start 13 lies outside the image of 12 pixels"),
        ("1 3 3 2", "token 3: start 3 overlaps the span before it"),
        ("1 1 7 2 5 1", "token 5: start 5 overlaps the span before it, or is not sorted"),
        ("1 two", "token 2, 'two', is not a whole number"),
        ("1 2 3.0 1", "token 3, '3.0', is not a whole number"),
        ("1 ١", "token 2, '١', is not a whole number"),
        ("² 1", "token 1, '²', is not a whole number"),
        ("nan 1", "token 1, 'nan', is not a whole number"),
        ("1 2+5 1 1", r"token 2, '2\+5', is not a whole number"),
        ("1\u00a02", "token 1, .*, is not a whole number"),
        ("1\x002 3", "token 1, .*, is not a whole number"),
        ("1 \ud800", "token 2, .*, is not a whole number"),
        (f"1 {HUGE}", f"token 2, '{HUGE}', is larger than any image"),
        (f"{HUGE} 1", f"token 1, '{HUGE}', is larger than any image"),
        ("9223372036854775806 1", "token 1: start 9223372036854775806 lies outside"),
        ("1 9223372036854775806", "token 2: length 9223372036854775806 leaves"),
        ("x" * 5000, r"token 1, 'x{40}\.\.\.', is not a whole number"),
    ],
)
def test_a_malformed_code_is_named_by_its_token(code: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rle.decode(code, (3, 4))


def test_huge_numbers_are_rejected_without_a_shape() -> None:
    for code in (f"1 {HUGE}", f"{HUGE} 1", "1 9223372036854775807", "5 9223372036854775805 7 1"):
        with pytest.raises(ValueError, match="token"):
            rle.parse(code)


@steady
@given(st.text(alphabet="0123456789 +-.e_x\n\u0661\u00a0", max_size=20))
def test_any_text_is_a_code_or_a_value_error(text: str) -> None:
    try:
        spans = rle.parse(text, (4, 50))
    except ValueError as error:
        assert "token" in str(error) or "odd count" in str(error)
        return
    numbers = [int(token) for token in text.split()]
    assert (spans[:, 0] + 1).tolist() == numbers[::2]
    assert (spans[:, 1] - spans[:, 0]).tolist() == numbers[1::2]


def test_threads_reject_what_one_thread_rejects() -> None:
    """The check must not depend on state of the process, such as warning filters."""

    def is_rejected(code: str) -> bool:
        try:
            rle.parse(code)
        except ValueError:
            return True
        return False

    codes = ["1 2 x", "1 2 3 4"] * 500
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(is_rejected, codes)) == [True, False] * 500


@steady
@given(shapes, st.data())
def test_intersection_counts_common_pixels(shape: tuple[int, int], data: st.DataObject) -> None:
    a, b = (data.draw(hnp.arrays(np.bool_, shape)) for _ in "ab")
    assert rle.intersection(rle.from_mask(a), rle.from_mask(b)) == int((a & b).sum())


def test_intersection_computed_by_hand() -> None:
    a, b = rle.parse("1 5 10 5"), rle.parse("4 8 14 3")
    # a: 1-5 and 10-14; b: 4-11 and 14-16; both: 4, 5, 10, 11, 14.
    assert rle.intersection(a, b) == rle.intersection(b, a) == 5
    assert rle.intersection(a, rle.EMPTY) == rle.intersection(rle.EMPTY, a) == 0


@pytest.mark.skipif(not REAL.is_file(), reason=f"needs Carvana's own masks in {REAL}")
def test_real_codes_survive_decoding_and_encoding() -> None:
    with REAL.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for (_, code), _ in zip(rows, range(20), strict=False):
            assert rle.encode(rle.decode(code, (1280, 1918))) == code
