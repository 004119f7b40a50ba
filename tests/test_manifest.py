"""The manifest of cut-outs: names, and what is finished."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.command import Failure
from inference.cutouts.manifest import NAME, Manifest, Stamp, finished
from inference.cutouts.photos import Named

STAMP = Stamp(1, 2)
# Not entries: the fields are missing or of another type, or the file lies outside the folder.
FILES = "1", '"../x.png"', '"/x.png"', '"a/../../x.png"'
LINES = ["[]", "{}", "text", '{"a": 1}', *(f'{{"photo": "/x", "kind": "rgba", "file": {file}}}' for file in FILES)]


def claim(manifest: Manifest, name: str, kind: str = "rgba", ending: str = "") -> str:
    return manifest.claim(Named(Path("/photos") / name, name), kind, ending, {"sub", "car.png"})


def write(manifest: Manifest, name: str, content: bytes = b"picture", key: str = "k") -> Path:
    """Write the picture of a claimed photo, and complete it."""
    entry = manifest.entries[f"/photos/{name}", "rgba"]
    file = manifest.folder / entry.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    manifest.save()
    with manifest.path.open("a") as opened:
        manifest.complete(opened, [finished(entry, key, STAMP, hashlib.sha256(content).hexdigest())])
    return file


def test_no_two_pictures_have_one_name(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    (tmp_path / "x.png").write_text("of another program")
    names = ["a.jpg", "a.png", "A.jpg", "sub/a.jpg", "x.jpg", "car.jpg", "a_mask.jpg"]
    files = [claim(manifest, name) for name in names] + [claim(manifest, "a.jpg", "mask", "_mask")]
    assert files == [
        *("a.png", "a.png.png", "A.jpg.png", "sub/a.png", "x.jpg.png", "car.jpg.png", "a_mask.png"),
        "a.jpg_mask.png",
    ]


def test_names_stay_when_other_photos_join(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    claim(manifest, "b.png")
    manifest.save()
    again = Manifest(tmp_path)
    assert [claim(again, name) for name in ("b.jpg", "b.png")] == ["b.jpg.png", "b.png"]


def test_a_finished_picture_is_done_until_something_changes(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    claim(manifest, "a.jpg")
    photo = Path("/photos/a.jpg")
    assert not manifest.is_done(photo, "rgba", "k", STAMP)
    file = write(manifest, "a.jpg")
    again = Manifest(tmp_path)
    assert again.is_done(photo, "rgba", "k", STAMP)
    assert not again.is_done(photo, "mask", "k", STAMP)
    assert not again.is_done(photo, "rgba", "other", STAMP)
    assert not again.is_done(photo, "rgba", "k", Stamp(1, 3))
    file.unlink()
    assert not again.is_done(photo, "rgba", "k", STAMP)


def test_a_picture_that_someone_changed_is_kept(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    claim(manifest, "a.jpg")
    file = write(manifest, "a.jpg")
    assert claim(Manifest(tmp_path), "a.jpg") == "a.png"
    file.write_bytes(b"retouched")
    assert Manifest(tmp_path).is_done(Path("/photos/a.jpg"), "rgba", "k", STAMP)
    assert claim(Manifest(tmp_path), "a.jpg") == "a.jpg.png"


def test_a_picture_of_a_killed_process_is_written_again(tmp_path: Path) -> None:
    """It was killed after it wrote the picture and before it completed the manifest, in half a line."""
    manifest = Manifest(tmp_path)
    claim(manifest, "a.jpg")
    manifest.save()
    (tmp_path / "a.png").write_bytes(b"new")
    with manifest.path.open("a") as file:
        file.write('{"photo": "/photos/a.j')
    again = Manifest(tmp_path)
    assert claim(again, "a.jpg") == "a.png"
    again.save()
    assert len(Manifest(tmp_path).entries) == 1


@given(st.binary(max_size=60))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_bytes(content)
    try:
        assert not Manifest(folder).entries
    except Failure as failure:
        assert "OUT=" in str(failure)


@pytest.mark.parametrize("line", LINES)
def test_a_file_of_something_else_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / NAME).write_text(line + "\n")
    with pytest.raises(Failure, match="line 1 does not describe a cut-out"):
        Manifest(tmp_path)
