"""Unpacking an archive, while shrinking it or only reading it, and archives that are refused."""

import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from competition.kaggle.unpack import Damaged, list_members, missing_bytes, unpack, unpack_and_shrink

SIZE = 10_000
PHOTOS = {f"beefbeefbeef_{view:02d}.jpg": np.random.default_rng(view).bytes(SIZE) for view in range(1, 7)}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "test.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in PHOTOS.items():
            opened.writestr(f"test/{name}", content)
        opened.writestr("__MACOSX/test/._beef_01.jpg", b"mac")
    return path


def photos_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_unpacking_needs_the_space_only_once_and_resumes(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "test"
    before = archive.stat().st_size
    members = list_members(archive, ".jpg")
    used = []
    write = Path.write_bytes

    def write_and_measure(path: Path, content: bytes) -> int:
        write(path, content)
        used.append(archive.stat().st_size + sum(path.stat().st_size for path in folder.iterdir()))
        if len(used) == 3:
            raise KeyboardInterrupt
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", write_and_measure)
    with pytest.raises(KeyboardInterrupt):
        unpack_and_shrink(archive, members, folder)
    assert archive.stat().st_size < before
    unpack_and_shrink(archive, members, folder)
    assert max(used) < before + 1.1 * SIZE
    assert len(used) == len(PHOTOS) + 1  # only the interrupted member was unpacked twice
    assert archive.stat().st_size == 0
    assert photos_in(folder) == PHOTOS


def test_a_member_that_was_unpacked_and_is_missing(archive: Path, tmp_path: Path) -> None:
    members = list_members(archive, ".jpg")
    unpack_and_shrink(archive, members, tmp_path / "test")
    (tmp_path / "test" / "beefbeefbeef_03.jpg").unlink()
    with pytest.raises(Damaged, match=r"beefbeefbeef_03\.jpg does not have 10,000 bytes"):
        unpack_and_shrink(archive, members, tmp_path / "test")


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def encrypted(path: Path) -> None:
    """Set the flag of encryption of the first member in the table of contents."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


def overlapping(path: Path) -> None:
    """Let the last member in the table of contents start where the first one does."""
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\1\2") + 42
    content[start : start + 4] = bytes(4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("members", "change", "reason"),
    [
        ({"../../etc/a_01.jpg": b"a"}, None, "its member '../../etc/a_01.jpg' would be written outside of the data"),
        ({"/b_01.jpg": b"b"}, None, "'/b_01.jpg' would be written outside of the data folder"),
        ({"..\\c_01.jpg": b"c"}, None, "would be written outside of the data folder"),
        ({link("test/a_01.jpg"): b"/etc/passwd"}, None, "its member 'test/a_01.jpg' is a link, not a file"),
        ({"test/a_01.jpg": b"a", "more/a_01.jpg": b"b"}, None, "it holds a_01.jpg twice"),
        ({"test/a_01.jpg": bytes(100_000_000)}, None, "a_01.jpg in it has 100,000,000 bytes, more than any file of"),
        ({"a_01.jpg": b"a", "a_02.jpg": b"b"}, overlapping, r"a_0[12].jpg and a_0[12].jpg in it overlap"),
        ({"a_01.jpg": b"a"}, encrypted, "a_01.jpg in it is encrypted"),
        ({}, lambda path: path.write_bytes(b"<html>Log in</html>"), "File is not a zip file"),
    ],
)
def test_hostile_and_foreign_archives_are_refused(
    tmp_path: Path,
    members: dict[str | zipfile.ZipInfo, bytes],
    change: Callable[[Path], object] | None,
    reason: str,
) -> None:
    archive = tmp_path / "test.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content, zipfile.ZIP_DEFLATED)
    if change:
        change(archive)
    with pytest.raises(Damaged, match=reason):
        list_members(archive, ".jpg")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "test.zip"
    with zipfile.ZipFile(archive, "w", method) as opened:
        opened.writestr("test/a_01.jpg", b"a")
    with pytest.raises(Damaged, match=f"a_01.jpg in it is compressed with method {method}, not with deflate"):
        list_members(archive, ".jpg")


def test_a_member_is_never_unpacked_beyond_its_size(archive: Path, tmp_path: Path) -> None:
    member = replace(list_members(archive, ".jpg")[0], bytes=100)
    with pytest.raises(Damaged, match="Bad CRC-32"):
        unpack(archive, [member], tmp_path / "test")


def test_an_archive_that_is_only_read_stays_and_unpacking_it_resumes(archive: Path, tmp_path: Path) -> None:
    folder, before = tmp_path / "test", archive.read_bytes()
    archive.chmod(0o400)
    members = list_members(archive, ".jpg")
    unpack(archive, members, folder)
    assert (photos_in(folder), archive.read_bytes()) == (PHOTOS, before)
    assert missing_bytes(members, folder) == 0
    first = (folder / "beefbeefbeef_01.jpg").stat().st_mtime_ns
    (folder / "beefbeefbeef_03.jpg").unlink()
    (folder / "beefbeefbeef_04.jpg").write_bytes(b"cut off")
    assert missing_bytes(members, folder) == 2 * 3 * 4096
    unpack(archive, members, folder)
    assert photos_in(folder) == PHOTOS
    assert (folder / "beefbeefbeef_01.jpg").stat().st_mtime_ns == first


def test_windows_paths_and_hidden_files(tmp_path: Path) -> None:
    archive = tmp_path / "test.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name in ("test\\a_01.jpg", "test/._a_01.jpg", "test/__MACOSX/b_01.jpg", "test/Thumbs.db"):
            opened.writestr(name, b"a")
    assert [member.name for member in list_members(archive, ".jpg")] == ["a_01.jpg"]
