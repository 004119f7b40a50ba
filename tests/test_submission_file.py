import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from competition.command import Failure
from competition.mask_table import read_rows
from submissions import submission_file

ROWS = [("a_01.jpg", "1 2 5 3"), ("a_02.jpg", ""), ("b, c_01.jpg", "7 1")]


def rows_of(path: Path) -> list[tuple[str, str]]:
    return [(row.img, row.rle) for row in read_rows(path)]


def test_what_is_written_is_what_kaggle_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new folder"
    plain, gzipped, later = (folder / name for name in ("s.csv", "s.csv.gz", "later.csv.gz"))
    submission_file.write(plain, iter(ROWS))
    assert plain.read_bytes() == b'img,rle_mask\na_01.jpg,1 2 5 3\na_02.jpg,\n"b, c_01.jpg",7 1\n'
    submission_file.write(gzipped, iter(ROWS))
    assert gzip.decompress(gzipped.read_bytes()) == plain.read_bytes()
    assert rows_of(plain) == rows_of(gzipped) == ROWS
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    submission_file.write(later, ROWS)
    assert later.read_bytes() == gzipped.read_bytes(), "the bytes depend only on the rows"
    assert {path.name for path in folder.iterdir()} == {"s.csv", "s.csv.gz", "later.csv.gz"}


def test_joined_shards_equal_a_file_that_is_written_whole(tmp_path: Path) -> None:
    shards = [tmp_path / f"{number}.csv.gz" for number in range(3)]
    for shard, rows in zip(shards, (ROWS[:2], [], ROWS[2:]), strict=True):
        submission_file.write_shard(shard, rows)
    joined = tmp_path / "joined.csv.gz"
    submission_file.join(joined, shards)
    assert rows_of(joined) == ROWS
    assert [row.line for row in read_rows(joined)] == [2, 3, 4]
    header = tmp_path / "header.csv.gz"
    submission_file.join(header, [])
    assert joined.read_bytes() == header.read_bytes() + b"".join(shard.read_bytes() for shard in shards)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "s.csv.gz"
    submission_file.write(path, ROWS)
    before = path.read_bytes()

    def broken() -> Iterator[tuple[str, str]]:
        yield "c_01.jpg", "1 1"
        raise RuntimeError("the network broke")

    with pytest.raises(RuntimeError, match="the network broke"):
        submission_file.write(path, broken())
    with pytest.raises(RuntimeError, match="the network broke"):
        submission_file.write_shard(path, broken())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["s.csv.gz"]  # noqa: PTH208


def test_an_error_while_joining_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "s.csv.gz"
    submission_file.write(path, ROWS)
    before = path.read_bytes()
    with pytest.raises(Failure, match=r"cannot read .*7\.csv\.gz: no such file or folder"):
        submission_file.join(path, [tmp_path / "7.csv.gz"])
    assert path.read_bytes() == before
    with pytest.raises(Failure, match=r"ends in \.csv\.gz"):
        submission_file.join(tmp_path / "s.csv", [])
