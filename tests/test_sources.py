"""A run that starts from another run's weights: fold by fold, with the same split, or not at all."""

import shutil
from pathlib import Path

import pytest
import torch

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.run.folder import RunFolder
from competition.settings.resolve import load_yaml, merge, resolve
from competition.settings.schema import Settings
from folds.begin import main as begin
from folds.checkpoint import load_state, load_weights
from folds.sources import pseudo_label_file, split_source
from folds.split import photos_by_fold
from folds.start import starting_weights
from folds.train import main as train
from folds.train import make_trainer

SMALL = [
    *("split.folds=2", "input={height: 32, width: 64}", "network={width: 4, depth: 1, stem: 2, weights: none}"),
    "train={epochs: 1, batch_size: 2, workers: 0, ema: 0, save_seconds: 1000}",
]


def arguments_of(run: RunFolder, data: Path, *settings: str) -> list[str]:
    return ["--run", str(run.root), "--data", str(data), "--preset", "demo", "--set", *SMALL, *settings]


def from_source(run: RunFolder, source: RunFolder, data: Path, *settings: str) -> list[str]:
    """A run at a larger size that starts from the weights of its source."""
    return arguments_of(run, data, "input={height: 64, width: 96}", f"network.init_from={source.root}", *settings)


@pytest.fixture(scope="module")
def source_once(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with fold 0 of two trained, on a split that this version would not make."""
    torch.set_num_threads(1)
    run = RunFolder(tmp_path_factory.mktemp("source") / "runs" / "small")
    begin(arguments_of(run, tiny_data))
    rows = run.folds.read_text().splitlines()
    swapped = [row[:-1] + {"0": "1", "1": "0"}[row[-1]] for row in rows[1:]]
    run.folds.write_text("\n".join([rows[0], *sorted(swapped)]) + "\n")
    train(["--fold", "0", "--run", str(run.root)])
    return run


@pytest.fixture
def source(source_once: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(source_once.root, tmp_path / "runs" / "small"))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "large")


def settings_of(run: RunFolder) -> Settings:
    return resolve(load_yaml(run.settings))


def test_a_fold_starts_from_the_best_weights_of_the_same_fold(
    tiny_data: Path, source: RunFolder, run: RunFolder
) -> None:
    for _ in range(2):  # the second call opens the run
        begin(from_source(run, source, tiny_data, "split.folds=4"))
    assert settings_of(run).split.folds == 2, "the number of folds of the source"
    assert run.folds.read_bytes() == source.folds.read_bytes(), "the split of the source, not a new one"
    settings, data = settings_of(run), DataFolder(tiny_data)
    trainer = make_trainer(run, settings, data, photos_by_fold(run.folds, data.train), 0)
    best = load_weights(source.best(0))[0].state_dict()
    ours = trainer.network.state_dict()
    assert ours.keys() == best.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in best.items())


def test_a_fold_that_has_started_no_longer_needs_the_source(
    tiny_data: Path, source: RunFolder, run: RunFolder
) -> None:
    train(["--fold", "0", *from_source(run, source, tiny_data)])
    state = load_state(run.last(0))
    shutil.rmtree(source.root)
    settings, data = settings_of(run), DataFolder(tiny_data)
    trainer = make_trainer(run, settings, data, photos_by_fold(run.folds, data.train), 0)
    assert trainer.finished
    assert all(torch.equal(tensor, state["network"][name]) for name, tensor in trainer.network.state_dict().items())
    with pytest.raises(Failure, match=r"no split .*small/folds.csv of the run that network.init_from names"):
        train(["--fold", "1", "--run", str(run.root)])


def test_a_source_whose_split_changes_later_is_rejected(tiny_data: Path, source: RunFolder, run: RunFolder) -> None:
    begin(from_source(run, source, tiny_data))
    rows = source.folds.read_text().splitlines(keepends=True)
    source.folds.write_text("".join([rows[0], *reversed(rows[1:])]))
    with pytest.raises(Failure, match="which is a leak"):
        train(["--fold", "0", "--run", str(run.root)])
    assert not run.last(0).exists()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("--fold 1", r"fold 1 of .*small, .*, is not trained; train it first: make train FOLD=1 RUN=.*/small"),
        ("--all", r"fold 1 of .*small, .*, is not trained; train it first: make train FOLD=1 RUN=.*/small"),
        ("--fold 2", "there is no fold 2 among 2; FOLD is 0 to 1"),
        ("--fold 0 network.width=8", r"small.* do not fit network.width=8; set SET=\"network.width=4\" to use them"),
        ("--fold 0 network.init_from=other", r"no split runs/other/folds.csv .*; .*: make cv RUN=other"),
    ],
)
def test_a_rejected_source_leaves_no_run(
    tiny_data: Path, source: RunFolder, run: RunFolder, asked: str, reason: str
) -> None:
    words = asked.split()
    settings = [word for word in words if "=" in word]
    which = words[: len(words) - len(settings)]
    with pytest.raises(Failure, match=reason) as rejected:
        train([*which, *from_source(run, source, tiny_data, *settings)])
    assert "\n" not in str(rejected.value)
    assert not run.root.exists()


def test_a_run_that_has_another_split_is_rejected(tiny_data: Path, source: RunFolder, run: RunFolder) -> None:
    run.root.mkdir(parents=True)
    run.folds.write_text(source.folds.read_text() + "\n")
    with pytest.raises(Failure, match="which is a leak"):
        train(["--fold", "0", *from_source(run, source, tiny_data)])
    assert not run.settings.exists()


def test_starting_weights_only_need_the_same_architecture(source: RunFolder, run: RunFolder) -> None:
    settings = load_weights(source.best(0))[1]
    changes = {"network": {"init_from": str(source.root), "weights": "hub", "freeze": 2}}
    assert starting_weights(run, resolve(merge(settings.model_dump(), changes)), 0, [])
    assert starting_weights(run, settings, 0, []) is None


def test_pseudo_labels_of_another_orientation_are_rejected(source: RunFolder, run: RunFolder) -> None:
    run.root.mkdir()
    run.folds.write_bytes(source.folds.read_bytes())
    settings = resolve({"data": {"pseudo": str(source.root), "orientation": "stored"}})
    with pytest.raises(
        Failure, match=r"data\.orientation is stored, but auto in .*; set SET=data\.orientation=auto to"
    ):
        pseudo_label_file(run, settings, 0)


def test_sources_of_different_splits_are_rejected(source: RunFolder, run: RunFolder) -> None:
    other = RunFolder(shutil.copytree(source.root, source.root.parent / "other"))
    settings = resolve({"network": {"init_from": str(source.root)}, "data": {"pseudo": str(other.root)}})
    assert split_source(settings) == source
    other.folds.write_text(f"{other.folds.read_text()}\n")
    with pytest.raises(Failure, match=r"network\.init_from and data\.pseudo name runs of different splits"):
        split_source(settings)
