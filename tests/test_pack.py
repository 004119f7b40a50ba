"""A run is packed, carried to another folder and used there; hostile files are refused."""

import hashlib
import io
import os
import pickle
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from trained_run import Trained

import inference.predict
from competition.command import Failure, OutOfTime
from competition.data_folder import DataFolder
from competition.deadline import Deadline
from competition.files import sha256
from competition.run.contents import is_packed, require_harmless
from competition.run.folder import RunFolder
from competition.run.open import data_of, next_hint, require_same_data
from competition.run.pack import main as pack
from competition.run.unpack import main as unpack
from competition.settings.resolve import load_settings
from folds.checkpoint import load_state
from folds.train import main as train
from inference.score import main as score

NAME = "small"
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def packed_once(trained_once: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a zip file, with its state."""
    file = tmp_path_factory.mktemp("packed") / "x.zip"
    pack(["--run", str(trained_once.run.root), "--file", str(file), "--state"])
    return file


@pytest.fixture
def members(packed_once: Path) -> Members:
    with zipfile.ZipFile(packed_once) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of another machine."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_zip(file: Path, members: Members, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def with_sum(members: Members, name: str, content: bytes) -> Members:
    """The members with other content of a file, whose checksum is right."""
    before, sums = members[f"{NAME}/{name}"], members[f"{NAME}/SHA256SUMS"].decode()
    old, new = (io.BytesIO(each) for each in (before, content))
    digests = [hashlib.file_digest(each, "sha256").hexdigest() for each in (old, new)]
    return members | {f"{NAME}/{name}": content, f"{NAME}/SHA256SUMS": sums.replace(*digests).encode()}


def test_the_same_run_elsewhere(
    trained_once: Trained, packed_once: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unpack(["--file", str(packed_once)])
    assert capsys.readouterr().out.startswith("runs/small is unpacked; next: resume it: make cv RUN=small, or make ")
    ours, theirs = files_of(elsewhere / "runs" / NAME), files_of(trained_once.run.root)
    added = {"README.md", "SHA256SUMS"}
    assert ours.keys() - theirs.keys() == added
    assert all(theirs[name] == content for name, content in ours.items() if name not in added)
    assert "README.md" in ours["SHA256SUMS"].decode()
    assert {"settings.yaml", "folds.csv", "fold0/last.pt", "fold1/best.safetensors"} <= ours.keys()
    unpack(["--file", str(packed_once)])
    assert "runs/small is there already, with the same files" in capsys.readouterr().out
    assert [path.name for path in (elsewhere / "runs").iterdir() if path.suffix != ".lock"] == [NAME]


def test_a_training_resumes_elsewhere_with_data_in_another_folder(
    tiny_data: Path, tmp_path: Path, elsewhere: Path
) -> None:
    """One epoch and a bit here, the rest there: the weights are those of an uninterrupted training."""
    torch.set_num_threads(1)
    settings = [
        *("split.folds=5", "input={height: 32, width: 64}", "network={width: 8, depth: 1, stem: 4}"),
        *("train={batch_size: 2, lr: 0.01, workers: 0, epochs: 2}", "train.save_seconds=0"),
    ]
    here, whole = tmp_path / "here" / "runs" / "x", tmp_path / "whole" / "x"
    for run in (here, whole):
        train(["--fold", "0", "--run", str(run), "--data", str(tiny_data), "--preset", "demo", "--set", *settings])
    # As after the first epoch: without what follows from the rest.
    state = load_state(RunFolder(whole).last(0))
    shutil.rmtree(here)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("folds.trainer.epoch_line", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(["--fold", "0", "--run", str(here), "--data", str(tiny_data), "--preset", "demo", "--set", *settings])
    pack(["--run", str(here), "--state"])
    data = Path(shutil.copytree(tiny_data, elsewhere / "photos"))
    unpack(["--file", str(here.with_name("x.zip"))])
    shutil.rmtree(here)
    run = RunFolder(Path("runs/x"))
    assert load_state(run.last(0))["epoch"] == 1
    train(["--fold", "0", "--run", "x", "--data", str(data)])
    resumed = load_state(run.last(0))
    assert all(torch.equal(value, state["network"][name]) for name, value in resumed["network"].items())
    best = [safetensors.torch.load_file(each.best(0)) for each in (run, RunFolder(whole))]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())


def test_a_prediction_resumes_elsewhere(trained: Trained, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two shards is predicted here, the other one there."""
    monkeypatch.chdir(trained.run.root.parent.parent)
    call = ["--run", NAME, "--hours", "11", "--set", "inference.shard=16"]
    left = iter([True])
    with monkeypatch.context() as patch, pytest.raises(OutOfTime, match=r"predict: 16 of 32 images are done"):
        patch.setattr(Deadline, "leaves", lambda *_: next(left, False))
        inference.predict.main(call)
    pack(["--run", NAME, "--state"])
    inference.predict.main(call)
    whole = sha256(trained.run.submission)
    monkeypatch.chdir(elsewhere)
    unpack(["--file", str(trained.run.packed)])
    predict_to, begun = inference.predict.predict_to, []
    monkeypatch.setattr("inference.predict.predict_to", lambda *a, **k: begun.append(a[0]) or predict_to(*a, **k))
    inference.predict.main(call)
    assert [path.name for path in begun] == ["00001-of-00002.csv.gz"]
    assert sha256(Path("runs", NAME, "submission.csv.gz")) == whole


def test_the_model_card_has_the_cv(trained: Trained, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score(trained.arguments)
    for file in ("a.zip", "b.zip"):
        pack([*trained.arguments, "--file", file])
    assert sha256(Path("a.zip")) == sha256(Path("b.zip")), "the same run gives the same bytes"
    assert re.search(r"b.zip: fold0, fold1, \d+ files, .* MB  next: make unpack FILE=b.zip", capsys.readouterr().out)
    unpack(["--file", "a.zip", "--run", "other"])
    run = RunFolder(Path("runs/other"))
    assert run.cv.read_bytes() == trained.run.cv.read_bytes()
    assert run.oof.is_file()
    assert not run.last(0).exists(), "only with --state"
    card = run.model_card.read_text()
    assert re.search(r"Mean Dice \*\*0\.\d{5}\*\*, mean IoU 0\.\d{5}: 64 photos of 4 cars", card)
    for part in (
        "one for each of 2 of 2 folds",
        "License of the data",
        "runs/small/fold0/best",
        "trained from scratch",
    ):
        assert part in card
    assert "{" not in card.partition("## Settings")[0].replace("{'", "")


def test_a_shared_run_does_not_tell_where_the_data_lie(
    trained: Trained, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds data of that name in data/, and is still the run that it was packed from."""
    score(trained.arguments)
    pack([*trained.arguments, "--file", "shared.zip"])
    with zipfile.ZipFile("shared.zip") as archive:
        for name in archive.namelist():
            assert str(trained.data.parent).encode() not in archive.read(name), name
    unpack(["--file", "shared.zip", "--run", str(trained.run.root)])
    unpack(["--file", "shared.zip"])
    run = RunFolder(Path("runs") / NAME)
    pack(["--run", NAME, "--file", "again.zip"])
    unpack(["--file", "again.zip"])
    assert capsys.readouterr().out.count("is there already, with the same files") == 2
    shutil.copytree(trained.data, Path("data") / trained.data.name)
    settings, data = load_settings(run.settings), data_of(run, None)
    require_same_data(run, data)
    assert next_hint("predict", run, settings, data) == "make predict RUN=small"
    assert next_hint("predict", run, settings, DataFolder(trained.data)) == (
        f"make predict RUN=small DATA={trained.data}"
    )


def test_only_a_trained_run_is_packed(trained: Trained, tmp_path: Path) -> None:
    run = trained.run
    with pytest.raises(Failure, match=r"no run .*nothing; RUN must name a trained run"):
        pack(["--run", str(tmp_path / "nothing")])
    for fold in (0, 1):
        run.best(fold).unlink()
    with pytest.raises(
        Failure, match=r"no fold of run small is trained: make train .*; if a training has begun, add S"
    ):
        pack([*trained.arguments])
    pack([*trained.arguments, "--state"])
    assert run.packed.is_file()


def test_a_run_that_changes_is_not_packed(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_meanwhile(run: RunFolder) -> str:
        os.utime(run.best(0), ns=(1, 1))
        return "card"

    monkeypatch.setattr("competition.run.pack.model_card", train_meanwhile)
    with pytest.raises(Failure, match=r"run small changed while it was packed \(is it training\?\)"):
        pack([*trained.arguments])
    assert not trained.run.packed.exists()


@pytest.mark.parametrize("nested", [False, True])
def test_a_folder_that_kaggle_unpacked(members: Members, tmp_path: Path, elsewhere: Path, nested: bool) -> None:
    folder = tmp_path / "input"
    write_zip(tmp_path / "x.zip", members)
    shutil.unpack_archive(tmp_path / "x.zip", folder)
    (folder / NAME / "dataset-metadata.json").write_text("{}")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    unpack(["--file", str(folder / NAME if nested else folder)])
    assert (elsewhere / "runs" / NAME / "fold0" / "last.pt").read_bytes() == members[f"{NAME}/fold0/last.pt"]
    assert not (elsewhere / "runs" / NAME / "dataset-metadata.json").exists()


class Command:
    """Its pickle runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, ("touch harmed",)


def hostile_state() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Command(), protocol=2))
    return content.getvalue()


FIRST = f"{NAME}/settings.yaml"
LINK = zipfile.ZipInfo(f"{NAME}/folds.csv")
LINK.external_attr = (stat.S_IFLNK | 0o777) << 16


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m | {"../evil.txt": b""}, r"\.\./evil\.txt is not a file of a run"),
        (lambda m: m | {f"{NAME}/../../evil": b""}, "evil is not a file of a run"),
        (lambda m: m | {"/tmp/evil": b""}, "/tmp/evil is not a file of a run"),
        (lambda m: m | {f"{NAME}/shards/../../evil.json": b""}, "evil.json is not a file of a run"),
        (lambda m: m | {f"{NAME}/fold0/model.pkl": b""}, "fold0/model.pkl is not a file of a run"),
        (lambda m: m | {"other/cv.json": b""}, "cv.json is missing|is not in SHA256SUMS"),
        (lambda m: m | {f"{NAME}/cv.json": b"{}"}, "cv.json is not in SHA256SUMS"),
        (lambda m: {n: c for n, c in m.items() if "folds.csv" not in n}, "folds.csv is missing"),
        (lambda m: {n: c for n, c in m.items() if "SUMS" not in n}, "there is no SHA256SUMS in it"),
        (lambda m: m | {f"{NAME}/SHA256SUMS": b"what\n"}, "SHA256SUMS has the line 'what'"),
        (lambda m: m | {FIRST: m[FIRST] + b"\n"}, "settings.yaml does not have its checksum; copy the file again"),
        (lambda m: {LINK if n.endswith("folds.csv") else n: c for n, c in m.items()}, "folds.csv is a link"),
        (
            lambda m: with_sum(m, "fold0/last.pt", hostile_state()),
            r"last\.pt is a pickle that names posix\.system, which may run code when it is loaded",
        ),
        (lambda m: with_sum(m, "fold0/last.pt", pickle.dumps(Command())), "last.pt is not a file of torch.save"),
    ],
)
def test_a_hostile_or_damaged_zip_leaves_nothing(
    members: Members, elsewhere: Path, change: Callable[[Members], Members], reason: str
) -> None:
    write_zip(elsewhere / "x.zip", change(members))
    with pytest.raises(Failure, match=reason):
        unpack(["--file", "x.zip"])
    assert files_of(elsewhere).keys() == {"x.zip"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bombs_duplicates_and_other_files(members: Members, elsewhere: Path) -> None:
    bomb = members | {f"{NAME}/oof.csv.gz": bytes(5_000_000)}
    write_zip(elsewhere / "bomb.zip", bomb, zipfile.ZIP_DEFLATED)
    write_zip(elsewhere / "twice.zip", members)
    with zipfile.ZipFile(elsewhere / "twice.zip", "a") as archive:
        archive.writestr(FIRST, b"")
    (elsewhere / "no.zip").write_bytes(b"PK\3\4 no")
    (elsewhere / "empty").mkdir()
    for file, reason in (
        ("bomb.zip", "would become more than 100 times as large"),
        ("twice.zip", "names a file twice"),
        ("no.zip", "is damaged or not a zip file"),
        ("empty", "empty is not a packed run: there is no SHA256SUMS in it"),
        ("none.zip", "no file none.zip; FILE must name a zip file of make pack"),
    ):
        with pytest.raises(Failure, match=reason):
            unpack(["--file", file])
    assert not (elsewhere / "runs").exists()


def test_a_link_out_of_an_unpacked_folder(members: Members, tmp_path: Path, elsewhere: Path) -> None:
    shutil.unpack_archive(write_zip(tmp_path / "x.zip", members), tmp_path)
    (tmp_path / NAME / "folds.csv").unlink()
    (tmp_path / NAME / "folds.csv").symlink_to("/etc/passwd")
    with pytest.raises(Failure, match=r"folds.csv is a link to a file outside of"):
        unpack(["--file", str(tmp_path / NAME)])
    assert not files_of(elsewhere)


def test_another_run_of_that_name_is_kept(members: Members, elsewhere: Path) -> None:
    write_zip(elsewhere / "x.zip", members)
    unpack(["--file", "x.zip"])
    settings = elsewhere / "runs" / NAME / "settings.yaml"
    settings.write_text("seed: 2\n")
    with pytest.raises(
        Failure, match=r"run runs/small exists, and its settings.yaml is not that of x.zip; unpack under"
    ):
        unpack(["--file", "x.zip"])
    assert settings.read_text() == "seed: 2\n"
    unpack(["--file", "x.zip", "--run", "second"])
    assert (elsewhere / "runs" / "second" / "settings.yaml").read_bytes() == members[FIRST]


def test_the_states_of_torch_are_harmless(trained_once: Trained, tmp_path: Path) -> None:
    require_harmless(trained_once.run.last(0))
    for dtype in (torch.bfloat16, torch.float16, torch.int32, torch.bool):
        torch.save({"a": torch.zeros(2, dtype=dtype), "b": [torch.nn.Parameter(torch.ones(1))]}, tmp_path / "last.pt")
        require_harmless(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folds.csv", True),
        ("fold12/last.pt", True),
        ("first-stage/fold0/last.pt", True),
        ("first-stage/settings.yaml", False),
        ("shards/0123/00000-of-00001.csv.gz", True),
        ("pseudo/shards/0123/fold0/00000-of-00001.npy", True),
        ("fold0/fold0/last.pt", False),
        ("./cv.json", False),
        ("", False),
        ("fold0", False),
        (".lock", False),
        ("shards/.x.json", False),
        ("shards/x.py", False),
        ("shards\\..\\x.json", False),
        ("submission.csv.gz", False),
    ],
)
def test_the_names_of_a_packed_run(name: str, expected: bool) -> None:
    assert is_packed(name) == expected


def test_a_run_of_any_name_is_unpacked(members: Members, elsewhere: Path) -> None:
    name = "résumé (2), b@c"
    write_zip(elsewhere / "x.zip", {path.replace(NAME, name, 1): content for path, content in members.items()})
    unpack(["--file", "x.zip"])
    assert (elsewhere / "runs" / name / "settings.yaml").is_file()


@pytest.mark.parametrize("name", [".hidden", "a\nb", "a\\b"])
def test_a_name_that_is_no_visible_folder(members: Members, elsewhere: Path, name: str) -> None:
    write_zip(elsewhere / "x.zip", {path.replace(NAME, name, 1): content for path, content in members.items()})
    with pytest.raises(Failure, match="is not a file of a run"):
        unpack(["--file", "x.zip"])
