"""The command that trains: what it says, what it refuses, and what it leaves behind."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import CARS, full_disk

from competition.command import Failure, run_command
from competition.run.folder import RunFolder
from competition.settings.resolve import load_yaml, resolve
from competition.settings.schema import Settings
from folds import batch_size, begin
from folds.begin import require_suitable
from folds.checkpoint import load_state, load_weights, save_state
from folds.networks.build import make_network
from folds.train import main as train

SMALL = [
    "split.folds=3",
    "input={height: 32, width: 64}",
    "network={width: 4, depth: 1, stem: 2}",
    "train={epochs: 2, batch_size: 2, workers: 0, save_seconds: 0}",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "mine")


def arguments_of(run: RunFolder, data: Path, *which: str, settings: list[str] | None = None) -> list[str]:
    chosen = SMALL if settings is None else settings
    preset = ["--preset", "demo", "--set", *chosen] if chosen else []
    return [*(which or ("--fold", "0")), "--run", str(run.root), "--data", str(data), *preset]


def test_the_command_as_it_is_spelled(
    tiny_data: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "carvana").symlink_to(tiny_data)
    network = "network={name: unet, width: 4, depth: 2, weights: none, freeze: 0, decoder: [128, 64, 32, 24, 16]}"
    size = ("--set", "input.height=32", "input.width=64", network)
    done = command("folds.train", "--fold", 0, "--epochs", 2, "--batch-size", 4, *size)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "next: make cv RUN=default"
    run = RunFolder(tmp_path / "runs" / "default")
    _, settings, provenance = load_weights(run.best(0))
    assert (settings.train.epochs, settings.train.batch_size) == (2, 4)
    assert provenance.fold == 0
    assert len(run.history(0).read_text().splitlines()) == 2
    assert load_state(run.last(0))["epoch"] == 2


def test_without_a_hub_the_default_preset_says_how_to_go_on(
    tiny_data: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    refused = command("folds.train", "--fold", 0, "--data", tiny_data, "--preset", "cpu", **offline)
    assert refused.returncode == 1
    assert "cannot load mobilenetv2_100's pretrained weights from timm's hub" in refused.stderr
    assert "SET=network.weights=FILE" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "runs" / "default" / "settings.yaml").exists(), (
        "the next command may choose other settings"
    )


def test_auto_is_a_number_from_the_beginning(
    tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batches are tried for real, here up to 4; the weights are those of a run that was told 4, to the bit."""

    def tried(settings: Settings, photos: int) -> int:
        assert photos == 10
        return batch_size.largest_that_fits(settings, torch.device("cpu"), at_most=4)

    told = RunFolder(run.root.parent / "told")
    train([*arguments_of(told, tiny_data), "--batch-size", "4"])
    monkeypatch.setattr(begin, "automatic_batch_size", tried)
    command = [*arguments_of(run, tiny_data), "--batch-size", "auto"]
    train(command)
    assert run.settings.read_bytes() == told.settings.read_bytes()
    assert load_weights(run.best(0))[1] == load_weights(told.best(0))[1]
    states = [load_state(each.last(0)) for each in (run, told)]
    for part in ("network", "ema"):
        assert all(torch.equal(tensor, states[1][part][name]) for name, tensor in states[0][part].items())
    assert torch.equal(*(state["random"] for state in states))
    monkeypatch.delattr(begin, "automatic_batch_size")
    capsys.readouterr()
    train(command)
    assert "fold 0 is trained" in capsys.readouterr().out


def test_the_split_of_a_run_settles_auto_too(
    tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    begin.main([*arguments_of(run, tiny_data)[2:], "train.batch_size=auto"])
    assert load_yaml(run.settings)["train"]["batch_size"] == 8


def test_all_folds(tiny_data: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    train(arguments_of(run, tiny_data, "--fold", "1"))
    before = run.last(1).read_bytes()
    capsys.readouterr()
    train(arguments_of(run, tiny_data, "--all"))
    printed = capsys.readouterr().out
    assert [f"fold {fold} begins" in printed for fold in range(3)] == [True, False, True]
    assert f"next: make score RUN={run.root}" in printed
    assert all(run.best(fold).is_file() for fold in range(3))
    assert run.last(1).read_bytes() == before, "a finished fold is left as it is"


def test_a_finished_fold_says_so(tiny_data: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    train(arguments_of(run, tiny_data))
    before = run.last(0).read_bytes()
    capsys.readouterr()
    train(arguments_of(run, tiny_data))
    printed = capsys.readouterr().out
    assert "fold 0 is trained" in printed
    assert "begins" not in printed
    assert run.last(0).read_bytes() == before


def test_what_a_finished_fold_has_lost_is_written_again(tiny_data: Path, run: RunFolder) -> None:
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


def test_weights_that_no_state_holds_are_gone(tiny_data: Path, run: RunFolder) -> None:
    """Older versions did not keep them in last.pt."""
    train(arguments_of(run, tiny_data))
    save_state(run.last(0), load_state(run.last(0)) | {"best": None})
    history = run.history(0).read_bytes()
    run.history(0).unlink()
    train(["--fold", "0", "--run", str(run.root)])
    assert run.history(0).read_bytes() == history
    run.best(0).unlink()
    with pytest.raises(Failure, match=r"fold0/best\.safetensors is gone for good; remove .*fold0 to train it again"):
        train(["--fold", "0", "--run", str(run.root)])


def test_other_settings_are_refused_with_the_difference(tiny_data: Path, run: RunFolder) -> None:
    train(arguments_of(run, tiny_data))
    before = run.last(0).read_bytes()
    with pytest.raises(Failure, match=r"train.lr is 0.004, asked for 0.5; name a new RUN"):
        train([*arguments_of(run, tiny_data, settings=[]), "--set", "train.lr=0.5"])
    assert run.last(0).read_bytes() == before


@pytest.mark.parametrize(
    ("which", "settings", "reason"),
    [
        (("--fold", "7"), SMALL, "there is no fold 7 among 3; FOLD is 0 to 2"),
        (("--fold", "-1"), SMALL, "there is no fold -1 among 3; FOLD is 0 to 2"),
        (("--fold", "0"), [*SMALL, "split.folds=9"], "5 cars cannot be divided into 9 folds"),
        (("--fold", "0"), [*SMALL, "train.epochs=0"], "train.epochs=0 is not allowed"),
        (("--fold", "0", "--batch-size", "max"), SMALL, "train.batch_size='max' is not allowed: auto or a whole"),
        (
            ("--fold", "0"),
            [*SMALL, "network={width: 4, depth: 6, stem: 4}"],
            "input.height=32 is not a multiple of 256",
        ),
        (
            ("--fold", "0"),
            [*SMALL, "network={name: timm_unet, width: 32, encoder: resnet10t, weights: none.pth}"],
            "no file of weights none.pth",
        ),
        (
            ("--fold", "0"),
            [
                *SMALL,
                "network={name: timm_unet, width: 32, encoder: swin_tiny_patch4_window7_224, decoder: [8], stem: 1}",
            ],
            r"network.encoder=swin_tiny_patch4_window7_224 cannot take 64 x 32 \(.*224",
        ),
        (
            ("--fold", "0"),
            [
                *("split.folds=3", "input={height: 256, width: 448}", "augment.crop=[224, 224]"),
                "network={name: timm_unet, width: 32, encoder: maxvit_tiny_tf_224, decoder: [8], stem: 1}",
            ],
            r"network.encoder=maxvit_tiny_tf_224 cannot take 448 x 256 \(.*window",
        ),
        (
            ("--fold", "0"),
            [*SMALL, "input={height: 32, width: 64, fit: pad}"],
            r"_01\.jpg is .*, larger than the frame of 64 x 32 that input.fit=pad .* or use input.fit=resize",
        ),
        (
            ("--fold", "0"),
            [*SMALL, f"data.leave_out=[{','.join(CARS)}]"],
            r"data\.leave_out=.* leaves nothing to learn from; name fewer",
        ),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    tiny_data: Path, run: RunFolder, which: tuple[str, ...], settings: list[str], reason: str
) -> None:
    """Else the run would exist with the settings that were refused, and refuse the corrected ones."""
    with pytest.raises(Failure, match=reason):
        train(arguments_of(run, tiny_data, *which, settings=settings))
    assert not run.root.exists()


def test_a_fold_that_the_split_lacks_is_refused(tiny_data: Path, run: RunFolder) -> None:
    train(arguments_of(run, tiny_data))
    with pytest.raises(Failure, match=r"there is no fold 3 in .*folds.csv; FOLD is one of 0, 1, 2"):
        train(arguments_of(run, tiny_data, "--fold", "3"))


def test_a_missing_mask_is_refused(own_data: Path, run: RunFolder) -> None:
    photo = sorted((own_data / "train").iterdir())[3]
    (own_data / "train_masks" / f"{photo.stem}_mask.gif").unlink()
    (own_data / "train_masks.csv").unlink()
    with pytest.raises(Failure, match=rf"{photo.name} has no mask"):
        train(arguments_of(run, own_data))
    assert not run.root.exists()


def test_an_unknown_preset_is_one_line_and_status_1(
    tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--fold", "0", "--run", str(run.root), "--data", str(tiny_data), "--preset", "gpuu"]
    monkeypatch.setattr(sys, "argv", ["train", *chosen])
    with pytest.raises(SystemExit) as end:
        run_command(train)
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: no preset 'gpuu'; did you mean gpu?")
    assert printed.err.count("\n") == 1
    assert not run.root.exists()


def test_a_full_disk_is_said_and_the_next_call_goes_on(
    tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """last.pt no longer fits after a few of its updates; what was saved before is where it goes on."""
    from folds import training_state

    saves = []

    def save(path: Path, state: object) -> None:
        saves.append(1)
        with full_disk(10_000) if len(saves) == 4 else nullcontext():
            save_state(path, state)

    save_state = training_state.save_state
    with monkeypatch.context() as patched:
        patched.setattr(training_state, "save_state", save)
        with pytest.raises(Failure, match=r"cannot write .*last.pt: "):
            train(arguments_of(run, tiny_data))
    state = load_state(run.last(0))
    assert (state["epoch"], state["update"]) == (0, 3)
    assert not list(run.fold(0).glob(".*.part"))
    train(arguments_of(run, tiny_data))
    assert load_state(run.last(0))["epoch"] == 2


def test_a_run_without_permission_is_one_line(
    tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write anywhere, so the refusal itself is played."""

    def refuse(self: Path, _content: object) -> int:
        raise PermissionError(13, "Permission denied", str(self))

    train(arguments_of(run, tiny_data, "--fold", "1"))
    with monkeypatch.context() as patched, pytest.raises(Failure, match=r"cannot write .*fold0/.*permission denied"):
        patched.setattr(Path, "write_bytes", refuse)
        train(arguments_of(run, tiny_data))


def test_trying_a_network_draws_no_random_number() -> None:
    settings = resolve({"network": {"name": "timm_unet", "encoder": "resnet10t"}})
    network = make_network(settings)
    before = torch.get_rng_state()
    require_suitable(network, settings)
    assert torch.equal(torch.get_rng_state(), before)
