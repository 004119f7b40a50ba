"""Downloading, through Kaggle's real client from a server on loopback: interrupted, damaged, full, complete."""

import io
import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kaggle_server import Fault, KaggleServer

from competition.command import Failure
from competition.kaggle import download
from competition.kaggle.client import Kaggle, Patience
from competition.kaggle.download import Archive

TRAIN = [f"{car}_{view:02d}" for car in ("0cdf5b5d0ce1", "f00d") for view in (1, 2)]
TEST = [f"beef_{view:02d}" for view in range(1, 7)]
RANDOM = np.random.default_rng(7)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def table(header: str, rows: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in [header, *rows]).encode()


def photos(folder: str, names: list[str], size: int = 200_000) -> dict[str, bytes]:
    # Kaggle's archives hold the folder, and one was packed on a Mac.
    files = {f"{folder}/{name}.jpg": RANDOM.bytes(size) for name in names}
    return files | {f"__MACOSX/{folder}/._{names[0]}.jpg": b"mac"}


CONTENT = {
    "sample_submission.csv.zip": {
        "sample_submission.csv": table("img,rle_mask", [f"{name}.jpg,1 1" for name in TEST])
    },
    "train_masks.csv.zip": {"train_masks.csv": table("img,rle_mask", [f"{name}.jpg,1 9" for name in TRAIN])},
    "metadata.csv.zip": {"metadata.csv": table("id,year,make,model,trim1,trim2", ["f00d,2010,Acura,TL,Base,w/SE"])},
    "train_masks.zip": {f"train_masks/{name}_mask.gif": RANDOM.bytes(500) for name in TRAIN},
    "train.zip": photos("train", TRAIN, 1000),
    "train_hq.zip": photos("train_hq", TRAIN, 1000),
    "test.zip": photos("test", TEST),
    "test_hq.zip": photos("test_hq", TEST, 1000),
    "unasked.zip": {"unasked.txt": b"?"},
}
ARCHIVES = {name: zipped(members, zipfile.ZIP_DEFLATED) for name, members in CONTENT.items()}
PLAIN = [archive.name for archive in download.archives(hq=False)]


@pytest.fixture
def kaggle(server: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> KaggleServer:
    """A Kaggle with a small competition."""
    monkeypatch.setattr(download, "ROWS", {"train_masks.csv": len(TRAIN), "sample_submission.csv": len(TEST)})
    server.files = dict(ARCHIVES)
    return server


def make_data(root: Path, *more: str) -> None:
    quick = ["--deadline", "60", "--attempts", "3", "--pause", "0.05"]
    download.main(["--data", str(root), *quick, *more])


def fetch(server: KaggleServer, root: Path) -> None:
    """What the command does about test.zip, without asking first what there is."""
    sizes = {name: len(content) for name, content in server.files.items()}
    patience = Patience(deadline=60, attempts=3, pause=0.05)
    download.Download(root, sizes).fetch(download.archives(hq=False)[-1], Kaggle(patience))


def all_but(root: Path, name: str) -> None:
    """Make a data folder that lacks only what is in one archive."""
    for archive in (known for known in download.archives(hq=False) if known.name != name):
        for member, content in CONTENT[archive.name].items():
            if not member.startswith("__MACOSX"):
                path = root / member
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def files_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def expected(names: list[str]) -> dict[str, bytes]:
    members = {member: content for name in names for member, content in CONTENT[name].items()}
    return {member: content for member, content in members.items() if not member.startswith("__MACOSX")}


def data_in(root: Path) -> dict[str, bytes]:
    """The data folder without the program's own two files."""
    found = files_in(root)
    return {name: content for name, content in found.items() if name not in ("downloaded.json", ".download.lock")}


def test_everything_that_is_asked_for_and_nothing_twice(
    kaggle: KaggleServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    make_data(root)
    assert data_in(root) == expected(PLAIN)
    assert not (root / ".download").exists()
    out = capsys.readouterr().out.splitlines()
    assert [line[: line.find(" in ")] for line in out if "needed" in line] == [
        "3 archives are needed: about 0.0 MB",  # the tables, which tell whether images that are there are good
        "3 archives are needed: about 1.3 MB",
    ]
    assert out[-1] == f"{root} is complete: 4 training photos with their masks, 6 test photos"
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
    ],
    ids=["two resets", "reset and an expired link", "500 and nothing"],
)
def test_a_download_that_breaks_off_goes_on(
    kaggle: KaggleServer, tmp_path: Path, faults: list[Fault], resumed: list[bool]
) -> None:
    all_but(tmp_path, "test.zip")
    kaggle.faults = {"file": faults}
    fetch(kaggle, tmp_path)
    assert data_in(tmp_path) == expected(PLAIN)
    assert [start > 0 for start in kaggle.starts] == resumed


def test_more_attempts_are_made_while_they_bring_bytes(kaggle: KaggleServer, tmp_path: Path) -> None:
    all_but(tmp_path, "test.zip")
    kaggle.faults = {"file": [Fault(after=300_000) for _ in range(4)]}
    fetch(kaggle, tmp_path)
    assert len(kaggle.starts) == 5
    assert data_in(tmp_path) == expected(PLAIN)


def test_an_interrupted_command_is_taken_up_where_it_was(kaggle: KaggleServer, tmp_path: Path) -> None:
    all_but(tmp_path, "test.zip")
    expired = [Fault(403, "Request has expired") for _ in range(5)]
    kaggle.faults = {"file": [Fault(after=700_000), *expired]}
    with pytest.raises(Failure, match=r"the link to the file was refused \(403\).*after 3 attempts"):
        fetch(kaggle, tmp_path)
    partial = tmp_path / ".download" / "test.zip"
    assert ARCHIVES["test.zip"].startswith(partial.read_bytes())  # and nothing of the error's text
    there = partial.stat().st_size
    assert there > 500_000
    fetch(kaggle, tmp_path)
    assert kaggle.starts[-1] == there
    assert data_in(tmp_path) == expected(PLAIN)


def test_another_file_of_the_same_name_is_not_gone_on_with(kaggle: KaggleServer, tmp_path: Path) -> None:
    all_but(tmp_path, "test.zip")
    kaggle.files["test.zip"] = zipped(photos("test", TEST))
    kaggle.faults = {"file": [Fault(after=700_000), *(Fault(403) for _ in range(5))]}
    with pytest.raises(Failure, match="the link"):
        fetch(kaggle, tmp_path)
    kaggle.files["test.zip"] = ARCHIVES["test.zip"]
    fetch(kaggle, tmp_path)
    assert data_in(tmp_path) == expected(PLAIN)


def broken_crc() -> bytes:
    packed = zipped(CONTENT["test.zip"])
    return packed.replace(CONTENT["test.zip"][f"test/{TEST[2]}.jpg"][:50], b"\0" * 50)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (ARCHIVES["test.zip"][:-1000], "File is not a zip file"),
        (broken_crc(), "Bad CRC-32 for file 'beef_03.jpg'"),
        (
            zipped(photos("test", TEST[:-1])),
            "its 5 files are not the 6 that sample_submission.csv names: beef_06.jpg is mis",
        ),
        (
            zipped(photos("test", [*TEST, "x"])),
            "its 7 files are not the 6 that sample_submission.csv names: x.jpg is one",
        ),
    ],
    ids=["truncated", "bad crc", "a photo missing", "a photo too many"],
)
def test_a_damaged_archive_is_removed_and_the_old_state_stays(
    kaggle: KaggleServer, tmp_path: Path, content: bytes, reason: str
) -> None:
    all_but(tmp_path, "test.zip")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "old.jpg").write_bytes(b"old")
    before = data_in(tmp_path)
    kaggle.files["test.zip"] = content
    with pytest.raises(Failure) as raised:
        fetch(kaggle, tmp_path)
    assert f"test.zip from Kaggle is damaged: {reason}" in str(raised.value)
    assert data_in(tmp_path) == before
    assert list((tmp_path / ".download").iterdir()) == []


def test_another_size_than_the_listed_one_is_damage(
    kaggle: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_but(tmp_path, "test.zip")
    sizes = {"files": [{"name": name, "totalBytes": len(content) + 1} for name, content in ARCHIVES.items()]}
    monkeypatch.setattr(kaggle, "ListDataFiles", lambda body: sizes)
    with pytest.raises(Failure, match=r"test\.zip from Kaggle is damaged: is .* bytes long, where Kaggle lists"):
        make_data(tmp_path)
    assert list((tmp_path / ".download").iterdir()) == []


def test_too_little_space_is_said_beforehand(
    kaggle: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(Failure, match=r"has 1\.0 MB free, and about 1\.3 MB are needed; free some"):
        make_data(tmp_path)
    assert kaggle.seen["file"] == 3, "the tables"


def test_a_table_alone_needs_no_space_for_the_images(
    kaggle: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path)
    (tmp_path / "train_masks.csv").unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    make_data(tmp_path)
    assert kaggle.seen["file"] == len(PLAIN) + 1
    assert data_in(tmp_path) == expected(PLAIN)


def test_what_is_on_its_way_of_the_other_kind_stays(kaggle: KaggleServer, tmp_path: Path) -> None:
    begun = tmp_path / ".download" / "test_hq.zip"
    begun.parent.mkdir()
    begun.write_bytes(ARCHIVES["test_hq.zip"][:1000])
    (tmp_path / ".download" / "train.old").mkdir()  # of a kill within the swap
    make_data(tmp_path)
    assert [path.name for path in begun.parent.iterdir()] == ["test_hq.zip"]
    begun.unlink()
    make_data(tmp_path)
    assert not begun.parent.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_disk_that_fills_up_is_named(kaggle: KaggleServer, tmp_path: Path) -> None:
    all_but(tmp_path, "test.zip")
    work = tmp_path / ".download"
    full = [work / "test.zip.etag", work / "test.new" / f"{TEST[3]}.jpg"]
    (work / "test.new").mkdir(parents=True)
    for path in full:
        path.symlink_to("/dev/full")
    for path in full:  # while it is downloaded, and while it is unpacked
        named = path.name.removesuffix(".etag")
        with pytest.raises(
            Failure, match=f"cannot write .*{named}: no space left on the disk; free some space and run the same"
        ):
            fetch(kaggle, tmp_path)
        path.unlink()
    fetch(kaggle, tmp_path)
    assert kaggle.seen["file"] == 1
    assert data_in(tmp_path) == expected(PLAIN)


def test_unpacking_needs_the_space_once_and_survives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, into = tmp_path / "test.zip", tmp_path / "test"
    packed.write_bytes(zipped(CONTENT["test.zip"], zipfile.ZIP_DEFLATED))
    whole = packed.stat().st_size
    members = download.contents(packed, ".jpg")
    used = []
    copy = shutil.copyfileobj

    def copy_and_measure(source: io.BufferedIOBase, out: io.BufferedIOBase, length: int) -> None:
        copy(source, out, length)
        used.append(packed.stat().st_size + sum(path.stat().st_size for path in into.iterdir()))
        if len(used) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", copy_and_measure)
    with pytest.raises(KeyboardInterrupt):
        download.unpack(packed, members, into)
    assert packed.stat().st_size < whole
    download.unpack(packed, members, into)
    assert max(used) < whole + 1.1 * 200_000
    assert len(used) == len(TEST) + 1  # the interrupted member was unpacked twice, no other
    assert packed.stat().st_size == 0
    assert files_in(tmp_path) == expected(["test.zip"]) | {"test.zip": b""}


def test_a_name_that_leaves_the_folder_stays_in_it(tmp_path: Path) -> None:
    packed = tmp_path / "test.zip"
    packed.write_bytes(zipped({"../../etc/a_01.jpg": b"a", "/b_01.jpg": b"b"}))
    download.unpack(packed, download.contents(packed, ".jpg"), tmp_path / "test")
    assert sorted(path.name for path in (tmp_path / "test").iterdir()) == ["a_01.jpg", "b_01.jpg"]


@pytest.mark.parametrize("killed", ["swap", "record"])
def test_a_kill_around_the_swap_costs_no_download(
    kaggle: KaggleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    all_but(tmp_path, "test.zip")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "old.jpg").write_bytes(b"old")
    (tmp_path / "downloaded.json").write_text(json.dumps({"test.zip": {"bytes": 1, "unpacked": 3}}))
    with monkeypatch.context() as patched:
        if killed == "swap":
            patched.setattr(Path, "rename", fail_at(Path.rename, "test.new"))
        else:
            patched.setattr(download, "_bytes_in", fail_at(download._bytes_in, "test"))
        with pytest.raises(KeyboardInterrupt):
            make_data(tmp_path)
    make_data(tmp_path)
    assert kaggle.seen["file"] == 1
    assert data_in(tmp_path) == expected(PLAIN)


def fail_at(function: object, name: str) -> object:
    """The function, interrupted when its first argument is a path of that name."""
    assert callable(function)

    def interrupted(path: Path, *more: object) -> object:
        if path.name == name:
            raise KeyboardInterrupt
        return function(path, *more)

    return interrupted


def test_an_archive_that_kaggle_does_not_list_is_named(kaggle: KaggleServer, tmp_path: Path) -> None:
    del kaggle.files["train_hq.zip"]
    with pytest.raises(Failure, match=r"Kaggle does not list train_hq\.zip; it lists metadata\.csv\.zip"):
        make_data(tmp_path, "--hq")


def test_rules_that_were_not_accepted_are_named(kaggle: KaggleServer, tmp_path: Path) -> None:
    kaggle.faults = {"DownloadDataFile": [Fault(403, "You must accept this competition's rules")]}
    with pytest.raises(
        Failure, match=r"accept the rules on https://www\.kaggle\.com/competitions/carvana-image-mask"
    ):
        make_data(tmp_path)
    assert data_in(tmp_path) == {}


def test_a_table_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "train_masks.csv"
    path.write_bytes(CONTENT["train_masks.csv.zip"]["train_masks.csv"])
    archive = Archive("train_masks.csv.zip", "train_masks.csv", ".csv")
    assert download.complaint(archive, path, tmp_path) == "train_masks.csv has 4 rows, not 5,088"


def test_a_file_of_ones_own_among_the_images_is_left_alone(kaggle: KaggleServer, tmp_path: Path) -> None:
    make_data(tmp_path)
    before = kaggle.seen["DownloadDataFile"]
    (tmp_path / "train" / "notes.txt").write_text("mine")
    make_data(tmp_path)
    assert kaggle.seen["DownloadDataFile"] == before
    assert (tmp_path / "train" / "notes.txt").read_text() == "mine"
