"""Which photos PHOTOS names, and where results may be written."""

import os
from pathlib import Path

import pytest

from competition.command import Failure
from inference.cutouts.photos import find_photos, require_outside

NO_FILE = "or a link that leads to none, or may not be read; repair or remove it"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ with files in subfolders, in the working directory."""
    names = ("b.jpg", "a.PNG", "sub/Auto grün.jpeg", "sub/deep/c.webp", "note.txt", ".hidden.jpg", "raw.cr2")
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def names(*given: str) -> list[str]:
    return [photo.name for photo in find_photos(given).photos]


def test_a_folder_is_read_with_its_subfolders(folder: Path) -> None:
    found = find_photos(["photos"])
    assert [photo.name for photo in found.photos] == ["a.PNG", "b.jpg", "sub/Auto grün.jpeg", "sub/deep/c.webp"]
    assert [photo.path for photo in found.photos] == [Path("photos") / photo.name for photo in found.photos]
    assert found.unread == {".cr2": 1}
    assert not found.problems


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["photos/b.jpg"], ["b.jpg"]),
        (["photos/note.txt"], ["note.txt"]),  # named by the user: its content decides
        (["photos/*.jpg"], ["b.jpg"]),
        (["photos/*"], ["a.PNG", "b.jpg", "sub/Auto grün.jpeg", "sub/deep/c.webp"]),
        (["photos/**"], ["a.PNG", "b.jpg", "sub/Auto grün.jpeg", "sub/deep/c.webp"]),
        (["photos/**/*.jp*g"], ["b.jpg", "sub/Auto grün.jpeg"]),
        (["photos/s?b"], ["Auto grün.jpeg", "deep/c.webp"]),
        (["photos/b.jpg photos/a.PNG"], ["b.jpg", "a.PNG"]),
        (["photos/b.jpg", "photos/../photos/b.jpg"], ["b.jpg"]),
        (["'photos/sub/Auto grün.jpeg' photos/b.jpg"], ["Auto grün.jpeg", "b.jpg"]),
        (["photos/sub/Auto grün.jpeg"], ["Auto grün.jpeg"]),
        (["photos/sub/deep photos/sub"], ["deep/c.webp", "sub/Auto grün.jpeg"]),
    ],
)
def test_files_globs_and_several_paths(folder: Path, given: list[str], expected: list[str]) -> None:
    assert names(*given) == expected


def test_a_file_with_the_name_of_a_pattern_is_a_file(folder: Path) -> None:
    (folder / "x[1].jpg").touch()
    assert names("photos/x[1].jpg") == ["x[1].jpg"]


@pytest.mark.parametrize("given", ["nowhere", "photos/*.gif", "photos nowhere", "photos/'b.jpg"])
def test_a_path_that_does_not_exist(folder: Path, given: str) -> None:
    with pytest.raises(Failure, match="there is no such file or folder, and no file matches"):
        find_photos([given])


def test_links(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "deep").symlink_to(folder / "sub" / "deep")
    (folder / "lost.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    os.mkfifo(folder / "pipe.jpg")
    found = find_photos(["photos"])
    expected = ["a.PNG", "b.jpg", "deep/c.webp", "sub/Auto grün.jpeg", "sub/deep/c.webp"]
    assert [photo.name for photo in found.photos] == expected
    assert [problem.split()[0] for problem in found.problems] == [
        "photos/lost.jpg",
        "photos/pipe.jpg",
        "photos/self.jpg",
    ]
    assert names("photos/**") == expected
    assert names("photos/**/*.webp") == ["deep/c.webp"]  # the pattern follows the loop: each real file once


def test_a_folder_that_may_be_listed_but_not_entered_is_a_problem(folder: Path) -> None:
    folder.parent.chmod(0o755)
    (folder / "sub").chmod(0o444)
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)  # root may enter every folder
        found = [find_photos([given]) for given in ("photos", "photos/*", "photos/sub/*")]
    finally:
        os.seteuid(user)
        (folder / "sub").chmod(0o755)
    for each in found[:2]:
        assert [photo.name for photo in each.photos] == ["a.PNG", "b.jpg"]
        assert each.problems == ["cannot read photos/sub: permission denied; check the owner and the permissions"]
    assert found[2].problems == [f"photos/sub/Auto grün.jpeg is no file, {NO_FILE}"]


def test_names_that_cannot_be_used_are_problems(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff.jpg")).touch()
    (folder / "two\nlines.jpg").touch()
    found = find_photos(["photos"])
    assert len(found.photos) == 4
    assert sorted(problem.partition(" has a name that ")[2] for problem in found.problems) == [
        "has a line break or another control character; rename it",
        "is not UTF-8; rename it",
    ]


@pytest.mark.parametrize(
    ("out", "given"),
    [
        ("photos", "photos"),
        ("photos/out", "photos"),
        ("photos/sub", "photos"),
        ("link/out", "photos"),
        ("photos", "photos/b.jpg"),
        ("photos", "photos/*.jpg"),
        ("photos/out", "photos/*"),
        ("photos/out", "photos/**/*.*"),
    ],
)
def test_results_are_not_written_among_the_photos(folder: Path, out: str, given: str) -> None:
    Path("link").symlink_to(folder)
    with pytest.raises(Failure, match=r"name another folder"):
        require_outside(Path(out), [given])


@pytest.mark.parametrize(
    ("out", "given"), [("out", "photos"), ("photos/out", "photos/b.jpg"), ("out", "photos/*"), ("photos2", "photos")]
)
def test_other_folders_may_be_written(folder: Path, out: str, given: str) -> None:
    require_outside(Path(out), [given])
