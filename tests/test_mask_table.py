import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import plain_encode, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_csv_file import zipped

from competition import rle
from competition.command import Failure
from competition.mask_table import BadRow, MaskRow, Truth, read_rows, read_table, scan, score
from competition.metrics import Counts, counts

QUOTE = "a quote in this line is not closed"
steady = settings(derandomize=True, deadline=None, max_examples=40)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("", 1, "the header is '', not 'img,rle_mask'"),
        ("id,mask\na,1 1\n", 1, "the header is 'id,mask', not 'img,rle_mask'"),
        ("img,rle_mask\na.jpg,1 1\nb.jpg\n", 3, "1 fields, not the two of img,rle_mask"),
        ("img,rle_mask\na.jpg,1 1\nb.jpg,1,1\n", 3, "3 fields, not the two of img,rle_mask"),
        ("img,rle_mask\na.jpg,1 1\n\n \nb.jpg\n", 5, "1 fields, not the two of img,rle_mask"),
        ('img,rle_mask\r\n"a\nb.jpg",1 1\r\n\r\nb.jpg\r\n', 5, "1 fields, not the two of img,rle_mask"),
        ("img,rle_mask\na.jpg,1 1\n,1 1\n", 3, "the name of the image is missing"),
        ('img,rle_mask\na.jpg,"1 1\nb.jpg,1 1\n', 2, f"not a CSV row: unexpected end of data; {QUOTE}"),
        ('img,rle_mask\na.jpg,"1"1\nb.jpg,1 1\n', 2, "not a CSV row: ',' expected after '\"'"),
    ],
)
def test_a_bad_row_is_named_by_line(tmp_path: Path, content: str, line: int, reason: str) -> None:
    path = write(tmp_path / "x.csv", content)
    assert [row[:3] for row in scan(path) if isinstance(row, BadRow)] == [(path, line, reason)]
    with pytest.raises(Failure) as failure:
        list(read_rows(path))
    assert str(failure.value) == f"{path} line {line}: {reason}"


def test_scan_finds_the_rows_after_a_bad_one(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'img,mask\na.jpg,"1"1\nb.jpg,1 1\nc.jpg\nd.jpg,2 2\n')
    assert [(row.line, isinstance(row, MaskRow)) for row in scan(path)] == list(enumerate([0, 0, 1, 0, 1], start=1))


def test_plain_gzipped_with_a_byte_order_mark_and_with_windows_line_ends(tmp_path: Path) -> None:
    text = b"img,rle_mask\na.jpg,1 2\nb.jpg,\n"
    contents = {
        "x.csv": [text, b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n"), text.rstrip(b"\n")],
        "x.csv.gz": [gzip.compress(text)],
    }
    for name, each in contents.items():
        for content in each:
            path = write(tmp_path / name, content)
            assert list(read_rows(path)) == [(path, 2, "a.jpg", "1 2"), (path, 3, "b.jpg", "")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"no gzip" + content,
        lambda content: content[:-8] + bytes(8),
        lambda _: gzip.compress("img,rle_mask\nä.jpg,1 1\n".encode("latin-1")),
    ],
)
def test_a_damaged_file_is_a_failure(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    text = b"img,rle_mask\n" + b"".join(b"%d.jpg,1 %d\n" % (n, n) for n in range(1, 5000))
    path = write(tmp_path / "x.csv.gz", damage(gzip.compress(text)))
    with pytest.raises(Failure, match=f"{path} is damaged"):
        list(scan(path))


def test_a_missing_file_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cannot read .*: no such file"):
        list(scan(tmp_path / "missing.csv"))


def test_a_code_longer_than_the_limit_of_the_csv_module(tmp_path: Path) -> None:
    code = plain_encode(np.arange(200_000).reshape(400, 500) % 2)
    assert len(code) > 131_072
    write_rows(tmp_path / "x.csv", {"a.jpg": code})
    assert next(read_rows(tmp_path / "x.csv")).rle == code


def field(text: str, quoted: bool) -> str:
    """A field as CSV has it."""
    return '"' + text.replace('"', '""') + '"' if quoted or set(text) & set(',"\r\n') else text


def line_count(text: str) -> int:
    return len(re.findall("\r\n|\r|\n", text))


any_text = st.text(st.characters(codec="utf-8"), max_size=8)
row = st.lists(st.tuples(any_text, st.booleans()), max_size=4)
blank = st.text(" \t", max_size=2).map(lambda text: [(text, False)])


@steady
@given(
    rows=st.lists(row | blank),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    packing=st.sampled_from([bytes, gzip.compress, lambda content: zipped(("x.csv", content))]),
    ends=st.tuples(st.sampled_from(["", "\ufeff"]), st.booleans()),
)
def test_any_rows_are_read_with_their_lines(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[tuple[str, bool]]],
    end: str,
    packing: Callable[[bytes], bytes],
    ends: tuple[str, bool],
) -> None:
    """Blank lines are skipped, and the line of a row is that in which it begins, as an editor counts lines."""
    text, expected = f"img,rle_mask{end}", []
    for fields in rows:
        line, values = line_count(text) + 1, [value for value, _ in fields]
        written = ",".join(field(*each) for each in fields)
        is_blank = len(values) < 2 and not "".join(values).strip(" \t") and written != '""'
        if not is_blank:
            expected.append((line, values if len(values) == 2 and values[0] else None))
        text += written + end
    mark, last_end = ends
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(packing((mark + (text if last_end else text.removesuffix(end))).encode()))
    found = [(row.line, [row.img, row.rle] if isinstance(row, MaskRow) else None) for row in scan(path)]
    assert found == expected


def test_a_doubled_name_in_a_table_is_a_failure(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "img,rle_mask\na.jpg,1 1\nb.jpg,\na.jpg,\n")
    with pytest.raises(Failure, match=r"x\.csv line 4: a\.jpg is already in line 2; remove one of them"):
        read_table(path)


def test_a_malformed_code_is_named_by_line_image_and_token(tmp_path: Path) -> None:
    row = MaskRow(tmp_path / "x.csv", 7, "a.jpg", "1 5 7 3")
    assert row.spans((3, 3)).tolist() == [[0, 5], [6, 9]]
    with pytest.raises(Failure, match=r"x\.csv line 7, a\.jpg: token 4: length 3 leaves the image of 8 pixels"):
        row.spans((2, 4))


NAMES = ("a.jpg", "b.jpg", "c.jpg")
masks = st.lists(st.integers(0, 1), min_size=12, max_size=12).map(lambda pixels: np.reshape(pixels, (3, 4)))


@steady
@given(st.dictionaries(st.sampled_from(NAMES), st.tuples(masks, masks), min_size=3), st.permutations(NAMES))
def test_score_counts_the_pixels_of_each_image(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: dict[str, tuple[np.ndarray, np.ndarray]],
    order: list[str],
) -> None:
    path = tmp_path_factory.mktemp("score") / "x.csv"
    write_rows(path, {img: plain_encode(pairs[img][0]) for img in order})
    found = score(path, NAMES, lambda img: Truth(rle.from_mask(pairs[img][1]), (3, 4)), "")
    assert list(found) == order
    assert found == {img: counts(*pair) for img, pair in pairs.items()}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("a.jpg,\nb.jpg,\n", "has no row for 1 of 3 images, such as c.jpg; write it again"),
        ("a.jpg,\nb.jpg,\nc.jpg,\na.jpg,\n", "line 5: a.jpg occurs a second time; write it again"),
        ("a.jpg,\nx.jpg,\n", "line 3: x.jpg is not one of the 3 images to score; write it again"),
        ("a.jpg,\nb.jpg,1 13\n", "line 3, b.jpg: token 2: length 13 leaves the image of 12 pixels"),
        ("a.jpg,\nb.jpg\n", "line 3: 1 fields, not the two of img,rle_mask"),
    ],
)
def test_score_needs_each_image_exactly_once(tmp_path: Path, rows: str, reason: str) -> None:
    path = write(tmp_path / "x.csv", "img,rle_mask\n" + rows)
    with pytest.raises(Failure) as failure:
        score(path, NAMES, lambda _: Truth(rle.EMPTY, (3, 4)), "write it again")
    assert str(failure.value) == f"{path} {reason}"


def test_without_a_shape_a_mask_may_end_anywhere(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "img,rle_mask\na.jpg,100 3\n")
    assert score(path, ["a.jpg"], lambda _: Truth(rle.parse("101 5")), "") == {"a.jpg": Counts(2, 3, 5)}
