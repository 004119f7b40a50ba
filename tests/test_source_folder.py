"""Taking the data from a folder with Kaggle's zip files, or with what is in them."""

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from kaggle_archives import ARCHIVES, CONTENT, TEST, TRAIN, expected, photos, table, zipped

from competition.command import Failure
from competition.files import read_json
from competition.kaggle import download, unpack
from competition.kaggle.archives import archives

REPOSITORY = Path(__file__).parent.parent
PLAIN = [archive.name for archive in archives(hq=False)]
ONLY_TRAIN = [archive.name for archive in archives(hq=False, only_train=True)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with the zip files."""
    folder = tmp_path / "input"
    folder.mkdir()
    for name, content in ARCHIVES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def take(source: Path, root: Path, *more: str) -> None:
    download.main(["--from", str(source), "--data", str(root), *more])


def data_in(root: Path) -> dict[str, bytes]:
    """The files of a data folder, also behind links, without hidden ones and those of the command."""
    found = {}
    for folder, _, names in os.walk(root, followlinks=True):
        for path in (Path(folder) / name for name in names):
            if not path.name.startswith(".") and path.name != "downloaded.json":
                found[str(path.relative_to(root))] = path.read_bytes()
    return found


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder: equal if nothing was written."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")]}


def extract(source: Path, name: str, folder: str = "", keep: bool = False) -> None:
    """Unpack a zip file into a folder below the source; remove the zip file unless ``keep``."""
    packed = source / f"{name}.packed"
    (source / name).rename(packed)
    with zipfile.ZipFile(packed) as opened:
        opened.extractall(source / folder)
    if keep:
        packed.rename(source / name)
    else:
        packed.unlink()


def test_zip_files_are_unpacked_once_and_only_read(
    source: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(source)
    take(source, root)
    assert data_in(root) == expected(PLAIN)
    assert state(source) == before
    assert {path.name for path in root.iterdir() if path.name.startswith(".")} == {".download.lock"}
    end = f"{root} is complete: 4 training photos with masks, 6 test photos (Kaggle has 5,088 and 100,064)"
    assert capsys.readouterr().out.splitlines()[-1] == end
    with monkeypatch.context() as patched:
        patched.setattr(unpack, "_content", None)  # nothing is unpacked
        take(source, root)
    assert capsys.readouterr().out.splitlines() == [end]
    (root / "train" / f"{TRAIN[1]}.jpg").write_bytes(b"short")
    take(source, root)
    assert data_in(root) == expected(PLAIN)


def test_train_first_then_the_rest_and_the_hq_photos(source: Path, root: Path) -> None:
    take(source, root, "--only", "train")
    assert data_in(root) == expected(ONLY_TRAIN)
    take(source, root)
    assert data_in(root) == expected(PLAIN)
    take(source, root, "--only", "train", "--hq")
    assert data_in(root) == expected([*PLAIN, "train_hq.zip"])


@pytest.mark.parametrize(
    ("folders", "links"),
    [
        (dict.fromkeys(PLAIN, ""), True),
        ({name: name.removesuffix(".zip") for name in PLAIN}, True),
        ({name: name for name in PLAIN}, True),
        ({"train.zip": "train", "metadata.csv.zip": ""}, False),
    ],
    ids=["unzip", "a folder for each zip file", "folders with the zip files' names", "a mix"],
)
def test_what_is_unpacked_already_is_linked(source: Path, root: Path, folders: dict[str, str], links: bool) -> None:
    for name, folder in folders.items():
        extract(source, name, folder)
    before = state(source)
    take(source, root)
    assert data_in(root) == expected(PLAIN)
    for name in folders:
        path = root / name.removesuffix(".zip")
        assert path.is_symlink()
        assert path.readlink().is_absolute()
    assert (root / "test").is_symlink() == links
    assert (root / "downloaded.json").is_file() != links
    take(source, root)
    assert state(source) == before


def test_links_and_copies_replace_each_other(source: Path, root: Path) -> None:
    extract(source, "train.zip")
    take(source, root)
    (source / "train").rename(source / "elsewhere")  # the link leads nowhere
    (source / "train.zip").write_bytes(ARCHIVES["train.zip"])
    take(source, root)
    assert not (root / "train").is_symlink()
    assert data_in(root) == expected(PLAIN)
    (root / "train" / f"{TRAIN[0]}.jpg").unlink()
    (source / "elsewhere").rename(source / "train")
    take(source, root)
    assert (root / "train").is_symlink()
    assert "train.zip" not in read_json(root / "downloaded.json")
    assert data_in(root) == expected(PLAIN)


def test_an_incomplete_copy_beside_its_zip_file_is_not_used(source: Path, root: Path) -> None:
    extract(source, "train.zip", keep=True)
    (source / "train" / f"{TRAIN[0]}.jpg").unlink()
    take(source, root)
    assert data_in(root) == expected(PLAIN)
    assert not (root / "train").is_symlink()


@pytest.mark.parametrize(
    ("present", "absent"),
    [
        (
            ["train.zip", "train_masks.zip"],
            "sample_submission.csv.zip, train_masks.csv.zip, metadata.csv.zip, test.zip",
        ),
        (
            ["train.zip", "train_masks.csv.zip", "test.zip"],
            "sample_submission.csv.zip, metadata.csv.zip, train_masks",
        ),
    ],
)
def test_some_zip_files_are_enough(
    source: Path, root: Path, capsys: pytest.CaptureFixture[str], present: list[str], absent: str
) -> None:
    for name in set(ARCHIVES) - set(present):
        (source / name).unlink()
    take(source, root)
    assert f"not in {source}: {absent}" in capsys.readouterr().out
    assert data_in(root) == expected(present)


def damage_crc(path: Path) -> None:
    packed = zipped(CONTENT["train.zip"])
    path.write_bytes(packed.replace(CONTENT["train.zip"][f"train/{TRAIN[2]}.jpg"][:50], bytes(50)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damage_crc, "Bad CRC-32 for file 'f00df00df00d_01.jpg'"),
        (lambda path: path.write_bytes(ARCHIVES["train.zip"][:-500]), "File is not a zip file"),
        (lambda path: path.write_bytes(b""), "File is not a zip file"),
        (
            lambda path: path.write_bytes(zipped(photos("train", TRAIN[:3]))),
            "it has 3 files, and train_masks.csv names 4",
        ),
        (lambda path: path.write_bytes(zipped(photos("train", [*TRAIN, "x"]))), "x.jpg is not in the table"),
        (lambda path: path.write_bytes(zipped({"../a.jpg": b"a"})), "its member '../a.jpg' would be written outside"),
    ],
)
def test_a_damaged_zip_file_is_named_and_leaves_nothing(
    source: Path, root: Path, change: Callable[[Path], object], reason: str
) -> None:
    (root / "train").mkdir(parents=True)
    (root / "train" / "aaaaaaaaaaaa_01.jpg").write_bytes(b"old")
    change(source / "train.zip")
    with pytest.raises(
        Failure, match=re.escape(f"{source / 'train.zip'} is damaged or incomplete: ") + ".*" + reason
    ):
        take(source, root, "--only", "train")
    assert data_in(root) == expected(["train_masks.csv.zip", "metadata.csv.zip", "train_masks.zip"]) | {
        "train/aaaaaaaaaaaa_01.jpg": b"old"
    }
    assert not list((root / ".unpack").iterdir())


def test_masks_of_another_kind_are_named_with_the_command_that_reads_them(source: Path, root: Path) -> None:
    members = {f"train_masks/{name}_mask.png": b"png" for name in TRAIN}
    mac = {"__MACOSX/train_masks/._x_mask.gif": b"mac", "train_masks/": b""}
    (source / "train_masks.zip").write_bytes(zipped(members | mac | {"train_masks/README": b""}))
    with pytest.raises(Failure) as raised:
        take(source, root)
    assert str(raised.value) == (
        f"{source}/train_masks.zip holds .png (4), README (1), and Kaggle's train_masks.zip .gif; unpack it and the "
        f"photos yourself, and make a data folder of them: make adopt IMAGES=... MASKS=... DATA={root}-adopted"
    )
    (source / "train_masks.csv.zip").unlink()
    extract(source, "train_masks.zip")
    extract(source, "train.zip")
    with pytest.raises(Failure, match=rf"; use it by make adopt IMAGES={source}/train MASKS={source}/train_masks D"):
        take(source, root.with_name("other"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train_masks.csv", b"img,rle_mask\na_01.jpg\n", "train_masks.csv line 2: 1 fields"),
        ("train_masks.csv", b"img,rle_mask\n", "train_masks.csv has no rows"),
        ("sample_submission.csv", b"", "header"),
        ("metadata.csv", b"id,make\n", "metadata.csv has no rows"),
    ],
)
def test_a_damaged_table_is_named(source: Path, root: Path, name: str, content: bytes, reason: str) -> None:
    (source / f"{name}.zip").write_bytes(zipped({name: content}))
    with pytest.raises(Failure, match=reason):
        take(source, root)
    (source / f"{name}.zip").unlink()
    (source / name).write_bytes(content)
    with pytest.raises(Failure, match=f"{source / name} is damaged or incomplete: .*{reason}"):
        take(source, root)
    assert not (root / name).exists()


def test_an_incomplete_copy_is_named(source: Path, root: Path) -> None:
    extract(source, "train.zip", "train")
    (source / "train" / "train" / f"{TRAIN[0]}.jpg").unlink()
    expected = f"{source}/train/train is damaged or incomplete: it has 3 files, and train_masks.csv names 4; 0cdf5b"
    with pytest.raises(Failure, match=re.escape(expected)):
        take(source, root)


def test_a_data_folder_with_another_table_stays(source: Path, root: Path) -> None:
    take(source, root)
    before = data_in(root)
    other = table("img,rle_mask", *(f"{name}.jpg,2 8" for name in TRAIN))
    (source / "train_masks.csv.zip").write_bytes(zipped({"train_masks.csv": other}))
    expected = f"{root}/train_masks.csv differs from the one in {source}/train_masks.csv.zip; name another data"
    with pytest.raises(Failure, match=re.escape(expected)):
        take(source, root)
    assert data_in(root) == before


def test_a_folder_that_is_not_the_right_one(source: Path, root: Path, tmp_path: Path) -> None:
    def error(folder: Path, data: Path = root, *more: str) -> str:
        with pytest.raises(Failure) as raised:
            take(folder, data, *more)
        return str(raised.value)

    assert error(tmp_path / "none") == (
        f"FROM={tmp_path}/none does not exist; name the folder with Kaggle's zip files, or with what is in them"
    )
    assert error(source / "train.zip").startswith(f"FROM={source}/train.zip is a file; name the folder with")
    assert error(source, source).startswith(
        f"FROM and DATA are the same folder, {source}; name another one with DATA"
    )
    assert error(source, source / "data").startswith("DATA lies inside FROM (")
    assert error(source, tmp_path).startswith("FROM lies inside DATA (")
    assert not root.exists()
    below = f"{tmp_path} has neither train.zip nor a folder train with photos; Kaggle's files are in FROM={source}"
    assert error(tmp_path, tmp_path.parent / f"{tmp_path.name}-data") == below
    (source / "train.zip").unlink()
    assert error(source).endswith("with photos, but train_hq; add HQ=1")
    (source / "train_hq.zip").unlink()
    assert error(source).endswith(
        "; it holds metadata.csv.zip, sample_submission.csv.zip, test.zip, test_hq.zip, "
        "train_masks.csv.zip, train_masks.zip, unrelated.zip"
    )
    (source / "train_hq.zip").write_bytes(ARCHIVES["train_hq.zip"])
    for name in ("train_masks.zip", "train_masks.csv.zip"):
        (source / name).unlink()
    assert error(source, root, "--hq") == (
        f"{source} has neither train_masks.zip nor train_masks.csv.zip, nor what is in them"
    )


def test_a_source_that_links_into_the_data_folder_is_refused(source: Path, root: Path) -> None:
    take(source, root)
    (root / "train").rename(root / "mine")
    (source / "train.zip").unlink()
    (source / "train").symlink_to(root / "mine")
    with pytest.raises(Failure, match=f"{source}/train is a link into DATA"):
        take(source, root)
    assert len(list((root / "mine").iterdir())) == len(TRAIN)


def test_space_is_needed_for_zip_files_and_not_for_links(
    source: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    extract(source, "train.zip")
    message = r"has 0\.1 MB free, but about 1\.2 MB are needed; free some space, .* \(1\.2 MB\) with ONLY=train$"
    with pytest.raises(Failure, match=message):
        take(source, root)
    take(source, root, "--only", "train")
    assert data_in(root) == expected([*ONLY_TRAIN, "sample_submission.csv.zip"])
    assert f"train: a link to {source}/train" in capsys.readouterr().out


def test_a_full_disk_is_reported_and_unpacking_resumes(
    source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes
    written: list[str] = []

    def write_until_full(path: Path, content: bytes) -> int:
        if path.name == f".{TEST[3]}.jpg.part" and len(written) < len(PLAIN) + 2 * len(TRAIN) + len(TEST):
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path.name)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    with pytest.raises(Failure, match=rf"cannot write {root}.*{TEST[3]}\.jpg: no space left on the disk; free some"):
        take(source, root)
    monkeypatch.setattr(
        Path, "write_bytes", lambda path, content: (written.append(path.name), write(path, content))[1]
    )
    take(source, root)
    assert data_in(root) == expected(PLAIN)
    assert max(Counter(written).values()) == 1, "nothing is unpacked twice"


def test_an_interruption_at_any_step_is_continued(source: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th change of the file system is interrupted, for every n; the next command completes the data."""
    extract(source, "train_masks.zip")
    (source / "metadata.csv.zip").unlink()
    monkeypatch.setattr(os, "fsync", lambda file: None)  # takes most of the time
    changes = "mkdir", "write_bytes", "write_text", "replace", "rename", "symlink_to", "unlink", "rmdir"
    step = last = 0

    def interrupting(change: Callable[..., object]) -> Callable[..., object]:
        def change_or_stop(path: Path, *more: object, **options: object) -> object:
            nonlocal step
            step += 1
            if step == last:
                raise KeyboardInterrupt
            return change(path, *more, **options)

        return change_or_stop

    while True:
        last += 1
        step = 0
        (root / "train").mkdir(parents=True)
        (root / "train" / "aaaaaaaaaaaa_01.jpg").write_bytes(b"old")
        with monkeypatch.context() as patched:
            for change in changes:
                patched.setattr(Path, change, interrupting(getattr(Path, change)))
            try:
                take(source, root, "--only", "train")
                break
            except KeyboardInterrupt:
                pass
        # There is the old content, or the new one, or none.
        there = {path.name for path in (root / "train").iterdir()} if (root / "train").is_dir() else set()
        assert there in (set(), {"aaaaaaaaaaaa_01.jpg"}, {f"{name}.jpg" for name in TRAIN})
        take(source, root, "--only", "train")
        assert data_in(root) == expected(["train.zip", "train_masks.csv.zip", "train_masks.zip"])
        assert {path.name for path in root.iterdir() if path.name.startswith(".")} == {".download.lock"}
        shutil.rmtree(root)
    assert last > 30


def test_a_read_only_source_needs_neither_credentials_nor_the_client(source: Path, root: Path) -> None:
    script = (
        "import sys; from competition.kaggle import download;"
        f"download.main(['--from', {str(source)!r}, '--data', {str(root)!r}]);"
        "assert not {'kaggle', 'kagglesdk', 'requests', 'torch'} & set(sys.modules)"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    assert data_in(root) == expected(PLAIN)


@pytest.mark.parametrize("name", ["train/IMG 1.jpg", "train/0cdf5b5d0ce1_17.jpg", "train_masks/notes.txt"])
def test_files_of_others_are_not_replaced(source: Path, root: Path, name: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(Failure, match=f"{path.parent} holds 1 file not of Kaggle's data, such as {path.name}; name"):
        take(source, root)
    assert path.read_bytes() == b"mine"
