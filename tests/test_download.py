"""Downloading with Kaggle's real client from a server on loopback: interrupted, damaged, disk full, complete."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from kaggle_archives import ARCHIVES, CONTENT, TEST, TRAIN, expected, photos, zipped
from kaggle_server import Fault, KaggleServer

from competition.command import Failure
from competition.kaggle import archives as kaggle_archives
from competition.kaggle import download, staging
from competition.kaggle.archives import Archive, archives, find_problem
from competition.kaggle.client import Kaggle, RetryPolicy

pytestmark = pytest.mark.usefixtures("in_process")
PLAIN = [archive.name for archive in archives(hq=False)]


@pytest.fixture
def kaggle(server: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> KaggleServer:
    """A Kaggle with a small competition."""
    rows = {"train_masks.csv": len(TRAIN), "sample_submission.csv": len(TEST)}
    for module in (kaggle_archives, download):
        monkeypatch.setattr(module, "ROWS", rows)
    server.files = dict(ARCHIVES)
    return server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder that lacks only the content of test.zip."""
    for name in PLAIN[:-1]:
        for member, content in expected([name]).items():
            path = tmp_path / "data" / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return tmp_path / "data"


def make_data(root: Path, *more: str) -> None:
    quick = ["--deadline", "60", "--attempts", "3", "--pause", "0.02"]
    download.main(["--data", str(root), *quick, *more])


def fetch(server: KaggleServer, root: Path) -> None:
    """Fetch test.zip, as the command does after it has checked what is complete."""
    sizes = {name: len(content) for name, content in server.files.items()}
    policy = RetryPolicy(deadline=60, attempts=3, pause=0.02)
    download.Download(root, Kaggle(policy), sizes).fetch(archives(hq=False)[-1])


def data_in(root: Path) -> dict[str, bytes]:
    """The files of the data folder, without the two of the command."""
    paths = [path for path in root.rglob("*") if path.is_file()]
    own = "downloaded.json", ".download.lock"
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.name not in own}


def test_everything_is_downloaded_once(
    kaggle: KaggleServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    make_data(root)
    assert data_in(root) == expected(PLAIN)
    assert not (root / ".download").exists()
    out = capsys.readouterr().out.splitlines()
    assert [line[: line.find(" needed ")] for line in out if "needed" in line] == [
        "3 archives to download: about 0.0 MB",  # the tables
        "1 archive to download: about 0.0 MB",  # the masks
        "2 archives to download: about 1.3 MB",
    ]
    assert out[-1] == f"{root} is complete: 4 training photos with masks, 6 test photos"
    assert kaggle.seen["file"] == 6
    make_data(root)
    assert kaggle.seen["file"] == 6
    (root / "train" / f"{TRAIN[0]}.jpg").write_bytes(b"short")
    (root / "test" / f"{TEST[0]}.jpg").unlink()
    make_data(root)
    assert kaggle.seen["file"] == 8
    assert data_in(root) == expected(PLAIN)
    make_data(root, "--hq")
    assert kaggle.seen["file"] == 10
    assert data_in(root) == expected([*PLAIN, "train_hq.zip", "test_hq.zip"])


@pytest.mark.parametrize(
    ("faults", "resumed"),
    [
        ([Fault(after=600_000), Fault(after=300_000)], [False, True, True]),
        ([Fault(after=600_000), Fault(403, "Request has expired")], [False, True, True]),
        ([Fault(500), Fault(after=0)], [False, False, False]),
        ([Fault(after=300_000) for _ in range(4)], [False, True, True, True, True]),  # attempts are counted anew
    ],
    ids=["two resets", "reset and an expired link", "500 and nothing", "more resets than attempts"],
)
def test_an_interrupted_download_resumes(
    kaggle: KaggleServer, root: Path, faults: list[Fault], resumed: list[bool]
) -> None:
    kaggle.faults = {"file": faults}
    fetch(kaggle, root)
    assert data_in(root) == expected(PLAIN)
    assert [start > 0 for start in kaggle.starts] == resumed


def test_an_interrupted_command_resumes(kaggle: KaggleServer, root: Path) -> None:
    expired = [Fault(403, "Request has expired") for _ in range(5)]
    kaggle.faults = {"file": [Fault(after=700_000), *expired]}
    with pytest.raises(Failure, match=r"storage rejected the download link \(403\).*after 3 attempts"):
        fetch(kaggle, root)
    partial = root / ".download" / "test.zip"
    assert ARCHIVES["test.zip"].startswith(partial.read_bytes())  # without the text of the error
    there = partial.stat().st_size
    assert there > 500_000
    fetch(kaggle, root)
    assert kaggle.starts[-1] == there
    assert data_in(root) == expected(PLAIN)


def test_another_file_of_the_same_name_is_not_resumed(kaggle: KaggleServer, root: Path) -> None:
    kaggle.files["test.zip"] = zipped(photos("test", TEST))
    kaggle.faults = {"file": [Fault(after=700_000), *(Fault(403) for _ in range(5))]}
    with pytest.raises(Failure, match="the download link"):
        fetch(kaggle, root)
    kaggle.files["test.zip"] = ARCHIVES["test.zip"]
    fetch(kaggle, root)
    assert data_in(root) == expected(PLAIN)


def broken_crc() -> bytes:
    packed = zipped(CONTENT["test.zip"])
    return packed.replace(CONTENT["test.zip"][f"test/{TEST[2]}.jpg"][:50], b"\0" * 50)


MISSING = "it has 5 files, and sample_submission.csv names 6; beefbeefbeef_06.jpg is missing"
SURPLUS = "it has 7 files, and sample_submission.csv names 6; x.jpg is not in the table"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (ARCHIVES["test.zip"][:-1000], "File is not a zip file"),
        (broken_crc(), "Bad CRC-32 for file 'beefbeefbeef_03.jpg'"),
        (zipped(photos("test", TEST[:-1])), MISSING),
        (zipped(photos("test", [*TEST, "x"])), SURPLUS),
    ],
    ids=["truncated", "bad crc", "a photo missing", "a photo too many"],
)
def test_a_damaged_archive_is_removed_and_the_old_content_stays(
    kaggle: KaggleServer, root: Path, content: bytes, reason: str
) -> None:
    (root / "test").mkdir()
    (root / "test" / "aaaaaaaaaaaa_01.jpg").write_bytes(b"old")
    before = data_in(root)
    kaggle.files["test.zip"] = content
    with pytest.raises(Failure, match=re.escape(f"test.zip from Kaggle is damaged: {reason}")):
        fetch(kaggle, root)
    assert data_in(root) == before
    assert list((root / ".download").iterdir()) == []


def test_an_archive_of_another_size_than_listed_is_not_downloaded(
    kaggle: KaggleServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"files": [{"name": name, "totalBytes": len(content) + 1} for name, content in ARCHIVES.items()]}
    monkeypatch.setattr(kaggle, "ListDataFiles", lambda body: sizes)
    with pytest.raises(Failure, match=r"it is 1,\d+,\d+ bytes, not the 1,\d+,\d+ bytes of test\.zip"):
        make_data(root)
    assert list((root / ".download").iterdir()) == []


def test_space_is_checked_before_the_download(
    kaggle: KaggleServer, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Space is needed only for what is missing."""
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
        match = r"has 1\.0 MB free, but about 1\.3 MB are needed; free some.*leave out the test photos \(1\.3 MB\)"
        with pytest.raises(Failure, match=match):
            make_data(tmp_path / "new")
    assert kaggle.seen["file"] == 4, "the tables and the masks"
    make_data(root)
    (root / "train" / "notes.txt").write_text("mine")  # other files do not count
    (root / "train_masks.csv").unlink()
    kaggle.seen.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    make_data(root)
    assert kaggle.seen["file"] == 1
    assert data_in(root) == expected(PLAIN) | {"train/notes.txt": b"mine"}


def test_a_partial_download_of_the_other_kind_stays(kaggle: KaggleServer, root: Path) -> None:
    partial = root / ".download" / "test_hq.zip"
    partial.parent.mkdir()
    partial.write_bytes(ARCHIVES["test_hq.zip"][:1000])
    (root / ".download" / "train.old").mkdir()  # from a kill while the content was moved into place
    make_data(root)
    assert [path.name for path in partial.parent.iterdir()] == ["test_hq.zip"]
    partial.unlink()
    make_data(root)
    assert not partial.parent.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_reported(kaggle: KaggleServer, root: Path) -> None:
    work = root / ".download"
    full = [work / "test.zip.etag", work / "test.new" / f".{TEST[3]}.jpg.part"]
    (work / "test.new").mkdir(parents=True)
    for path in full:
        path.symlink_to("/dev/full")
    for path in full:  # during the download, and during the unpacking
        named = path.name.removesuffix(".etag").removesuffix(".part").removeprefix(".")
        with pytest.raises(Failure, match=f"cannot write .*{named}: no space left on the disk; free some"):
            fetch(kaggle, root)
        path.unlink()
    fetch(kaggle, root)
    assert kaggle.seen["file"] == 1
    assert data_in(root) == expected(PLAIN)


@pytest.mark.parametrize("killed", [(Path, "rename", "test.new"), (staging, "bytes_in", "test")])
def test_after_a_kill_while_files_are_moved_nothing_is_downloaded_again(
    kaggle: KaggleServer, root: Path, monkeypatch: pytest.MonkeyPatch, killed: tuple[object, str, str]
) -> None:
    (root / "test").mkdir()
    (root / "test" / "aaaaaaaaaaaa_01.jpg").write_bytes(b"old")
    (root / "downloaded.json").write_text(json.dumps({"test.zip": {"bytes": 1, "unpacked": 3}}))
    with monkeypatch.context() as patched:
        where, attribute, name = killed
        patched.setattr(where, attribute, fail_at(getattr(where, attribute), name))
        with pytest.raises(KeyboardInterrupt):
            make_data(root)
    make_data(root)
    assert kaggle.seen["file"] == 1
    assert data_in(root) == expected(PLAIN)


def fail_at(function: Callable[..., object], name: str) -> Callable[..., object]:
    """The function, with an interrupt if its first argument is a path of that name."""

    def interrupted(path: Path, *more: object) -> object:
        if path.name == name:
            raise KeyboardInterrupt
        return function(path, *more)

    return interrupted


def test_an_archive_that_is_not_listed_and_rules_that_were_not_accepted(kaggle: KaggleServer, tmp_path: Path) -> None:
    kaggle.faults = {"DownloadDataFile": [Fault(403, "You must accept this competition's rules")]}
    reason = r"accept the rules on https://www\.kaggle\.com/competitions/carvana-image-mask"
    with pytest.raises(Failure, match=reason):
        make_data(tmp_path)
    assert data_in(tmp_path) == {}
    del kaggle.files["train_hq.zip"]
    with pytest.raises(Failure, match=r"Kaggle does not list train_hq\.zip, but metadata\.csv\.zip"):
        make_data(tmp_path, "--hq")


def test_the_rows_of_a_table_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "train_masks.csv"
    path.write_bytes(CONTENT["train_masks.csv.zip"]["train_masks.csv"])
    archive = Archive("train_masks.csv.zip", "train_masks.csv", ".csv")
    assert find_problem(archive, path, tmp_path, whole=True) == "train_masks.csv has 4 rows, not 5,088"
