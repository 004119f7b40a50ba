"""CSV files are told apart by their first bytes, and read as pandas reads them, or rejected by name."""

import gzip
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from competition import csv_file
from competition.command import Failure
from competition.csv_file import BadLine, Line, Packing

TEXT = b"img,car\na.jpg,a\nb.jpg,b\n"
TABLE = (["img", "car"], [(2, ["a.jpg", "a"]), (3, ["b.jpg", "b"])])


def zipped(*members: tuple[str, bytes]) -> bytes:
    """A zip file; a name that ends in a slash is a folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def encrypted() -> bytes:
    """A zip whose member has the flag of a password."""
    content = bytearray(zipped(("a.csv", TEXT)))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    return bytes(content)


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.zip"])
@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        b"\xef\xbb\xbf" + TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"\n", b"\r"),
        TEXT.rstrip(b"\n"),
        TEXT + b"\n",
        TEXT + b"\r\n \t\r\n",
        gzip.compress(TEXT),
        gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]),
        gzip.compress(b"\xef\xbb\xbf" + TEXT + b"\n"),
        zipped(("deep/x.CSV", TEXT)),
        zipped(
            ("a/", b""), ("__MACOSX/a/._x.csv", b"\x05"), ("a/._y.csv", b"\x05"), ("a/x.csv", TEXT), ("b.txt", b"")
        ),
    ],
)
def test_the_content_decides_and_the_name_does_not(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert csv_file.read(path, TABLE[0]) == TABLE


def test_blank_lines_are_counted_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'\n \n"img"\n\n"a\r\nb"\n""\n\t\n"c\n')
    unclosed = BadLine(9, "not a CSV row: unexpected end of data; a quote in this line is not closed")
    assert list(csv_file.lines(path)) == [Line(3, ["img"]), Line(5, ["a\r\nb"]), Line(7, [""]), unclosed]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TEXT.decode().encode("utf-16"), "is UTF-16 text; save it as CSV in UTF-8, plain, gzipped or zipped"),
        (TEXT.decode().encode("utf-16-le"), "is UTF-16 text or no text at all; save it"),
        (TEXT.decode().encode("utf-32"), "is UTF-32 text; save it"),
        (gzip.compress(TEXT.decode().encode("utf-16")), "is UTF-16 text; save it"),
        (b"<!DOCTYPE html><html>", "is a web page or an XML file; save it"),
        (b"BZh91AY&SY", "is a bzip2 file; save it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is an Excel workbook; save it"),
        (zipped(("xl/workbook.xml", b""), ("xl/x.xml", b"")), "is an Excel workbook; save it"),
        (gzip.compress(gzip.compress(TEXT)), "is packed twice: gzip of gzip; unpack it once"),
        (zipped(("x.csv", gzip.compress(TEXT))), "is packed twice: zip of gzip; unpack it once"),
        (
            zipped(("a.csv", TEXT), ("b.csv", TEXT)),
            "is a zip with 2 CSV files, not one (it holds a.csv, b.csv); pack",
        ),
        (zipped(("a.csv.gz", TEXT)), "is a zip with 0 CSV files, not one (it holds a.csv.gz); pack one CSV"),
        (zipped(), "is a zip with 0 CSV files, not one (it holds nothing); pack one CSV"),
        (zipped(("a.csv", TEXT))[:50], "is damaged: File is not a zip file"),
        (encrypted(), "cannot be unpacked: it has a password or an unknown compression; pack it again"),
        (gzip.compress(TEXT)[:20], "is damaged: Compressed file ended before the end-of-stream marker was reached"),
        ("img,car\nä,b\n".encode("latin-1"), "is damaged or not UTF-8 text (byte 0xe4); save it as CSV in UTF-8"),
        (b"", "is empty; repair it"),
        (b"\n\n", "is empty; repair it"),
        (b"a,b\n", "line 1: the header is 'a,b', not 'img,car'; repair it"),
        (b"\nimg;car\n", "line 2: the header is 'img;car', not 'img,car'; save the file with commas between the"),
        (b"img\tcar\n", "line 1: the header is 'img\\tcar', not 'img,car'; save the file with commas between the"),
        (b",img,car\n", "line 1: the header is ',img,car', not 'img,car'; write it without the first column (pandas"),
        (TEXT + b"c\n", "line 4: 1 fields, not the 2 of img,car; repair it"),
        (TEXT + b'"c"d\n', "line 4: not a CSV row: ',' expected after '\"'; repair it"),
    ],
)
def test_other_files_are_rejected_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(Failure) as failure:
        csv_file.read(path, TABLE[0], "repair it")
    assert str(failure.value).startswith(f"{path} {reason}")


@pytest.mark.parametrize("columns", [(), ("img", "img")])
def test_a_doubled_column_and_a_missing_file_are_rejected(tmp_path: Path, columns: Sequence[str]) -> None:
    (tmp_path / "x.csv").write_text("img,img\n")
    with pytest.raises(Failure, match="line 1: a column of img,img occurs twice"):
        csv_file.read(tmp_path / "x.csv", columns)
    with pytest.raises(Failure, match=r"cannot read .*y\.csv: no such file"):
        csv_file.read(tmp_path / "y.csv", columns)
    with pytest.raises(Failure, match=r"cannot read .*: Is a directory"):
        csv_file.packing_of(tmp_path)


VALID = [
    TEXT,
    b"\xef\xbb\xbf" + TEXT,
    b'img,car\r\n"a\nb",c\r\n',
    gzip.compress(TEXT, mtime=0),
    zipped(("x.csv", TEXT)),
]
edits = st.lists(
    st.tuples(st.sampled_from(["replace", "insert", "remove", "cut"]), st.integers(0, 2**10), st.binary(max_size=3)),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, changes: Sequence[tuple[str, int, bytes]]) -> bytes:
    """Some bytes replaced, inserted or removed, or the end cut off."""
    for kind, where, new in changes:
        at = where % (len(content) + 1)
        if kind == "cut":
            content = content[:at] + new
        else:
            end = at + {"replace": len(new), "insert": 0, "remove": 1 + len(new)}[kind]
            content = content[:at] + (b"" if kind == "remove" else new) + content[end:]
    return content


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sampled_from(VALID), edits)
def test_damaged_bytes_are_read_or_are_one_failure(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, changes: list[tuple[str, int, bytes]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    path.write_bytes(mutated(content, changes))
    assert csv_file.packing_of(path) in Packing
    try:
        header, rows = csv_file.read(path)
    except Failure as failure:
        assert str(failure).startswith((str(path), f"cannot read {path}"))
    else:
        assert all(len(row.fields) == len(header) for row in rows)
        numbers = [row.number for row in rows]
        assert numbers == sorted(set(numbers))
