"""Unpacking an archive while shrinking it."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from competition.kaggle.unpack import Damaged, list_members, unpack

SIZE = 10_000
PHOTOS = {f"beef_{view:02d}.jpg": np.random.default_rng(view).bytes(SIZE) for view in range(1, 7)}


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
    copy = shutil.copyfileobj

    def copy_and_measure(source: io.BufferedIOBase, target: io.BufferedIOBase, length: int) -> None:
        copy(source, target, length)
        used.append(archive.stat().st_size + sum(path.stat().st_size for path in folder.iterdir()))
        if len(used) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", copy_and_measure)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, members, folder)
    assert archive.stat().st_size < before
    unpack(archive, members, folder)
    assert max(used) < before + 1.1 * SIZE
    assert len(used) == len(PHOTOS) + 1  # only the interrupted member was unpacked twice
    assert archive.stat().st_size == 0
    assert photos_in(folder) == PHOTOS


def test_a_member_that_was_unpacked_and_is_missing(archive: Path, tmp_path: Path) -> None:
    members = list_members(archive, ".jpg")
    unpack(archive, members, tmp_path / "test")
    (tmp_path / "test" / "beef_03.jpg").unlink()
    with pytest.raises(Damaged, match=r"beef_03\.jpg does not have 10,000 bytes"):
        unpack(archive, members, tmp_path / "test")


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    archive = tmp_path / "test.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../../etc/a_01.jpg", b"a")
        opened.writestr("/b_01.jpg", b"b")
    unpack(archive, list_members(archive, ".jpg"), tmp_path / "test")
    assert photos_in(tmp_path / "test") == {"a_01.jpg": b"a", "b_01.jpg": b"b"}
