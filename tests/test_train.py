"""The command ``folds.train``: its output, its files, and finished folds."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import full_disk

from competition.command import Failure
from competition.run.folder import RunFolder
from competition.settings.resolve import load_preset, resolve
from competition.settings.schema import Settings
from folds import batch_size, begin
from folds.checkpoint import load_state, load_weights
from folds.train import main as train
from folds.train import small_share
from folds.trainer import Trainer

SMALL = [
    *("split.folds=3", "input={height: 32, width: 64}", "network={width: 4, depth: 1, stem: 2}"),
    "train={epochs: 2, batch_size: 2, workers: 0, save_seconds: 1000}",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "mine")


def arguments_of(run: RunFolder, data: Path, *which: str) -> list[str]:
    chosen = which or ("--fold", "0")
    return [*chosen, "--run", str(run.root), "--data", str(data), "--preset", "demo", "--set", *SMALL]


def test_the_defaults_and_short_options(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "carvana").symlink_to(tiny_data)
    monkeypatch.chdir(tmp_path)
    network = "network={name: unet, width: 4, depth: 2, weights: none, freeze: 0, decoder: [128, 64, 32, 24, 16]}"
    size = ("--set", "input.height=64", "input.width=128", "train.workers=0", "first_stage.epochs=0", network)
    train(["--fold", "0", "--epochs", "1", "--batch-size", "4", *size])
    assert capsys.readouterr().out.splitlines()[-1] == "next: make cv RUN=default"
    run = RunFolder(tmp_path / "runs" / "default")
    _, settings, provenance = load_weights(run.best(0))
    assert (settings.train.epochs, settings.train.batch_size) == (1, 4)
    assert (provenance.fold, provenance.epoch) == (0, 1)
    assert len(run.history(0).read_text().splitlines()) == 1
    assert load_state(run.last(0))["epoch"] == 1


def test_an_automatic_batch_size_trains_as_the_number_does(
    tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch sizes are really tried, here up to 4. The weights are bit-identical to those with batch size 4."""

    def tried(settings: Settings, photos: int) -> int:
        assert photos == 10
        return batch_size.largest_that_fits(settings, torch.device("cpu"), at_most=4)

    other = RunFolder(run.root.parent / "other")
    train([*arguments_of(other, tiny_data), "--batch-size", "4"])
    monkeypatch.setattr(begin, "automatic_batch_size", tried)
    command = [*arguments_of(run, tiny_data), "--batch-size", "auto"]
    train(command)
    assert run.settings.read_bytes() == other.settings.read_bytes()
    states = [load_state(each.last(0)) for each in (run, other)]
    for part in ("network", "ema"):
        assert all(torch.equal(tensor, states[1][part][name]) for name, tensor in states[0][part].items())
    assert torch.equal(*(state["random"] for state in states))
    monkeypatch.delattr(begin, "automatic_batch_size")
    capsys.readouterr()
    train(command)
    assert "fold 0 is trained" in capsys.readouterr().out, "an existing run keeps its number"


def test_all_trains_the_folds_that_are_not_finished(
    tiny_data: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    train(arguments_of(run, tiny_data, "--fold", "1"))
    before = run.last(1).read_bytes()
    for begun in ([True, False, True], [False, False, False]):
        capsys.readouterr()
        train(arguments_of(run, tiny_data, "--all"))
        printed = capsys.readouterr().out
        assert [f"fold {fold} begins" in printed for fold in range(3)] == begun
        assert printed.count("is trained") == 3
        assert f"next: make score RUN={run.root}" in printed
    assert all(run.best(fold).is_file() for fold in range(3))
    assert run.last(1).read_bytes() == before
    with pytest.raises(Failure, match=r"there is no fold 3 in .*folds.csv; FOLD is one of 0, 1, 2"):
        train(arguments_of(run, tiny_data, "--fold", "3"))
    with pytest.raises(Failure, match=r"train.lr is 0.004, asked for 0.5; name a new RUN"):
        train(["--fold", "1", "--run", str(run.root), "--set", "train.lr=0.5"])
    assert run.last(1).read_bytes() == before


def test_lost_files_of_a_finished_fold_are_written_again(tiny_data: Path, run: RunFolder) -> None:
    train(arguments_of(run, tiny_data))
    before, settings, provenance = load_weights(run.best(0))
    history = run.history(0).read_bytes()
    for lost in (run.best(0), run.history(0)):
        lost.unlink()
        train(["--fold", "0", "--run", str(run.root)])
        again = load_weights(run.best(0))
        assert again[1:] == (settings, provenance)
        assert all(map(torch.equal, again[0].state_dict().values(), before.state_dict().values()))
        assert run.history(0).read_bytes() == history


def test_after_a_full_disk_the_next_call_resumes(
    tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth write of last.pt fails; the training resumes from the third."""
    saves = []

    def saved(trainer: Trainer) -> None:
        saves.append(1)
        with full_disk(10_000) if len(saves) == 4 else nullcontext():
            save(trainer)
            trainer.writer.wait()

    save = Trainer.save
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "save", saved)
        with pytest.raises(Failure, match=r"cannot write .*last.pt: "):
            train([*arguments_of(run, tiny_data), "train.save_seconds=0"])
    state = load_state(run.last(0))
    assert (state["epoch"], state["update"]) == (0, 3)
    assert not list(run.fold(0).glob(".*.part"))
    train(arguments_of(run, tiny_data))
    assert load_state(run.last(0))["epoch"] == 2


def test_missing_permission_is_reported(tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is simulated, because root may write anywhere."""

    def deny(self: Path, content: bytes) -> int:
        if "fold0" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return write(self, content)

    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", deny)
    with pytest.raises(Failure, match=r"cannot write .*fold0/.*permission denied"):
        train(arguments_of(run, tiny_data))


def test_a_small_share_of_several_gpus_is_named() -> None:
    settings = resolve(load_preset("fullres"))
    assert small_share(settings, 1) is None
    assert small_share(settings, 4) is None
    crops = settings.model_copy(update={"augment": settings.augment.model_copy(update={"crop": (1024, 1024)})})
    assert "each of 8 GPUs gets train.batch_size / NPROC = 1 x 1024 x 1024" in (small_share(crops, 8) or "")
