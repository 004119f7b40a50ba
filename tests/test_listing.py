"""Every entry of a folder is listed, refused or noted; nothing hangs and nothing is skipped without a word."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from competition.command import Failure
from competition.listing import list_images

TYPES = (".jpg", ".png")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_are_sorted_by_name_whatever_the_case_of_the_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.PNG", 'c, "d".jpg', "-e.jpg", " f .jpg")
    found = list_images(tmp_path, TYPES)
    assert list(found.files) == [" f .jpg", "-e.jpg", "a.PNG", "b.jpg", 'c, "d".jpg']
    assert found.files["a.PNG"] == tmp_path / "a.PNG"
    assert (found.problems, found.others) == ([], [])


def test_what_people_do_not_see_is_ignored_and_other_files_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/._a.jpg", "__MACOSX/b.jpg")
    touch(tmp_path, "notes.txt", "README", "old/list.csv")
    found = list_images(tmp_path, TYPES)
    assert (list(found.files), found.problems) == (["a.jpg"], [])
    assert [path.name for path in found.others] == ["README", "notes.txt", "old"]


def test_names_are_in_form_nfc_and_paths_as_on_the_disk(tmp_path: Path) -> None:
    touch(tmp_path, "Ka\u0308fer.jpg")
    assert list_images(tmp_path, TYPES).files == {"K\xe4fer.jpg": tmp_path / "Ka\u0308fer.jpg"}


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            ["a.jpg", "b.webp", "c.HEIC"],
            "images of a kind that is not read here (2): b.webp, c.HEIC; conv",
        ),
        (
            ["a.jpg", "a.png"],
            "files that differ only in suffix, capitals, Unicode form or _mask (1): a.jpg and a.png",
        ),
        (["a_mask.png", "a_mask.jpg"], "(1): a_mask.jpg and a_mask.png; keep one of each, or rename it"),
        (["a_mask.png", "A.png"], "(1): A.png and a_mask.png"),
        (["a_mask.png", "A_MASK.PNG"], "(1): A_MASK.PNG and a_mask.png"),
        (["\xe4.jpg", "a\u0308.jpg"], "(1): a\u0308.jpg and \xe4.jpg"),
        (["a.jpg", "a (1).jpg"], "files that look like second copies (1): a (1).jpg beside a.jpg; remove or rename"),
        (["a.jpg", "a - Copy.jpg"], "(1): a - Copy.jpg beside a.jpg"),
        (["a.jpg", "a copy 2.png"], "(1): a copy 2.png beside a.jpg"),
        (
            ["a\nb.jpg", "c\u2028.jpg"],
            "a line break or another control character (2): a\\nb.jpg, c\\u2028.jpg",
        ),
        (["a\x1b[2J.jpg"], "(1): a\\x1b[2J.jpg; rename them"),
        ([f"{'a' * 240}.jpg"], "a name that is longer than 230 bytes (1): aaa"),
        (
            ["bmw/a.jpg", "vw/b.jpg"],
            "images in folders inside it (2): bmw, vw; if each of these folders shows on",
        ),
        (["a.jpg", "vw/b.jpg"], "images in folders inside it (1): vw; if each of these folders shows on"),
    ],
)
def test_what_may_be_an_image_and_is_not_read_is_a_problem(tmp_path: Path, names: list[str], problem: str) -> None:
    touch(tmp_path, *names)
    found = list_images(tmp_path, TYPES)
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{tmp_path} has ")
    assert problem in found.problems[0]
    with pytest.raises(Failure):
        found.require_clean("make check")


def test_a_name_that_is_not_utf8_is_printed_with_its_bytes(tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(b"K\xe4fer_01.jpg"))
    assert list_images(tmp_path, TYPES).problems == [
        f"{tmp_path} has files with a name that is not UTF-8 (1): K\\xe4fer_01.jpg; rename them"
    ]


def test_a_folder_too_deep(tmp_path: Path) -> None:
    touch(tmp_path, "train/my photos/a.jpg")
    inner = tmp_path / "train" / "my photos"
    assert list_images(tmp_path / "train", TYPES).problems == [
        f"the images of {tmp_path}/train are in a folder inside it, {inner}; move them up: mv '{inner}'/* "
        f"{tmp_path}/train/"
    ]


def test_a_folder_for_each_car(tmp_path: Path) -> None:
    touch(tmp_path, "bmw/b.jpg", "bmw/a.jpg", "audi/a.jpg", "single.jpg", "vw/.hidden.jpg", "bmw/notes.txt")
    found = list_images(tmp_path, TYPES, subfolders=True)
    assert list(found.files) == ["audi/a.jpg", "bmw/a.jpg", "bmw/b.jpg", "single.jpg"]
    assert found.files["bmw/a.jpg"] == tmp_path / "bmw" / "a.jpg"
    assert [path.name for path in found.others] == ["notes.txt"]
    touch(tmp_path, "bmw/old/c.jpg")
    assert "(1): bmw/old; move them up" in list_images(tmp_path, TYPES, subfolders=True).problems[0]


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.symlink_to("nowhere.jpg"), "links that lead to no file (1): a.jpg; repair or remove them"),
        (lambda path: path.symlink_to(path), "links that lead to no file (1): a.jpg"),
        (lambda path: path.symlink_to("."), "folders that are named like an image (1): a.jpg; rename them"),
        (Path.mkdir, "folders that are named like an image (1): a.jpg; rename them"),
        (os.mkfifo, "pipes, sockets or devices that are named like an image (1): a.jpg; remove them"),
        (make_socket, "pipes, sockets or devices that are named like an image (1): a.jpg; remove them"),
    ],
)
def test_what_is_no_file_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("a.jpg"))
    touch(tmp_path, "b.jpg")
    found = list_images(tmp_path, TYPES)
    assert (list(found.files), len(found.problems)) == (["b.jpg"], 1)
    assert problem in found.problems[0]


def test_links_to_files_are_files(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg")
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    assert list(list_images(tmp_path, TYPES).files) == ["a.jpg", "b.jpg"]


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(Failure, match=f"cannot list {tmp_path}: permission denied; check the owner"):
        list_images(tmp_path, TYPES)
