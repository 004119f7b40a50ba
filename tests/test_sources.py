"""A run that begins from another's weights: fold by fold, on the same split, or not at all."""

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
from folds.checkpoint import load_state, load_weights, save_weights
from folds.sources import starting_weights
from folds.split import photos_by_fold
from folds.train import main as train
from folds.train import make_trainer

NETWORK = "network={width: 4, depth: 1, stem: 2, weights: none}"
SMALL = ["split.folds=2", "train={epochs: 1, batch_size: 2, workers: 0, ema: 0, save_seconds: 0}"]


def arguments_of(run: RunFolder, data: Path, *settings: str, which: tuple[str, ...] = ("--fold", "0")) -> list[str]:
    chosen = ["--preset", "demo", "--set", *SMALL, NETWORK, *settings]
    return [*which, "--run", str(run.root), "--data", str(data), *chosen]


def from_source(run: RunFolder, source: RunFolder, data: Path, *more: str, fold: int = 0) -> list[str]:
    size = "input={height: 64, width: 96}"
    begins = f"network.init_from={source.root}"
    return arguments_of(run, data, size, begins, *more, which=("--fold", str(fold)))


@pytest.fixture(scope="module")
def source_once(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Fold 0 of two, trained; its split is none that this version would make."""
    torch.set_num_threads(1)
    run = RunFolder(tmp_path_factory.mktemp("source") / "runs" / "small")
    begin(arguments_of(run, tiny_data, "input={height: 32, width: 64}", which=()))
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


def test_a_fold_begins_with_the_best_weights_of_its_own(tiny_data: Path, source: RunFolder, run: RunFolder) -> None:
    begin(from_source(run, source, tiny_data)[2:])
    assert run.folds.read_bytes() == source.folds.read_bytes(), "the split is the source's, not a new one"
    settings, data = settings_of(run), DataFolder(tiny_data)
    trainer = make_trainer(run, settings, data, photos_by_fold(run.folds, data.train), 0)
    best = load_weights(source.best(0))[0].state_dict()
    ours = trainer.network.state_dict()
    assert ours.keys() == best.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in best.items())


def test_the_settings_say_how_many_folds_the_source_has(tiny_data: Path, source: RunFolder, run: RunFolder) -> None:
    for _ in range(2):
        begin(from_source(run, source, tiny_data, "split.folds=4")[2:])
        assert settings_of(run).split.folds == 2


def test_it_trains_and_goes_on_without_its_source(tiny_data: Path, source: RunFolder, run: RunFolder) -> None:
    train(from_source(run, source, tiny_data, "train.epochs=2"))
    finished = run.last(0).read_bytes()
    state = load_state(run.last(0))
    shutil.rmtree(source.root)
    train(["--fold", "0", "--run", str(run.root)])
    assert run.last(0).read_bytes() == finished
    settings, data = settings_of(run), DataFolder(tiny_data)
    trainer = make_trainer(run, settings, data, photos_by_fold(run.folds, data.train), 0)
    assert trainer.finished
    assert all(torch.equal(tensor, state["network"][name]) for name, tensor in trainer.network.state_dict().items())
    with pytest.raises(Failure, match=r"no split .*small/folds.csv of the run that network.init_from names"):
        train(["--fold", "1", "--run", str(run.root)])


def test_another_split_is_a_leak(tiny_data: Path, source: RunFolder, run: RunFolder) -> None:
    """The run's own folds.csv came first: one byte more is another file."""
    run.root.mkdir(parents=True)
    shutil.copy(source.folds, run.folds)
    with run.folds.open("a") as file:
        file.write("\n")
    with pytest.raises(Failure, match=r"large/folds.csv is not the split of .*small/folds.csv: .*, which is a leak"):
        train(from_source(run, source, tiny_data))
    assert not run.settings.exists()


def test_a_split_that_changed_later_is_a_leak_too(tiny_data: Path, source: RunFolder, run: RunFolder) -> None:
    begin(from_source(run, source, tiny_data)[2:])
    rows = source.folds.read_text().splitlines(keepends=True)
    source.folds.write_text("".join([rows[0], *reversed(rows[1:])]))
    with pytest.raises(Failure, match="which is a leak"):
        train(["--fold", "0", "--run", str(run.root)])
    assert not run.last(0).exists()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("1", r"fold 1 of .*small, .*, is not trained; train it first: make train FOLD=1 RUN=.*/small"),
        ("2", "there is no fold 2 among 2; FOLD is 0 to 1"),
        (
            "0 network.width=8",
            r"network.width is 8, but 4 in .*small, .*; set SET=network.width=4 to use",
        ),
        ("0 network.init_from=nobody", r"no split runs/nobody/folds.csv .*; .*: make cv RUN=nobody"),
    ],
)
def test_what_is_refused_leaves_no_run(
    tiny_data: Path, source: RunFolder, run: RunFolder, asked: str, reason: str
) -> None:
    fold, *settings = asked.split()
    with pytest.raises(Failure, match=reason) as refused:
        train(from_source(run, source, tiny_data, *settings, fold=int(fold)))
    assert "\n" not in str(refused.value)
    assert not run.root.exists()


def test_all_folds_are_asked_for_before_the_first_is_trained(
    tiny_data: Path, source: RunFolder, run: RunFolder
) -> None:
    with pytest.raises(Failure, match=f"make train FOLD=1 RUN={source.root}"):
        train(["--all", *from_source(run, source, tiny_data)[2:]])
    assert not run.root.exists()


def test_weights_of_another_fold_under_its_name_are_refused(source: RunFolder, run: RunFolder) -> None:
    network, settings, provenance = load_weights(source.best(0))
    save_weights(source.best(0), network.state_dict(), settings, provenance.model_copy(update={"fold": 1}))
    begins = resolve(merge(settings.model_dump(), {"network": {"init_from": str(source.root)}}))
    with pytest.raises(
        Failure, match="holds the weights of fold 1, which have seen the cars that fold 0 is validated"
    ):
        starting_weights(run, begins, 0)


def test_where_a_network_begins_is_not_what_it_is(source: RunFolder, run: RunFolder) -> None:
    settings = load_weights(source.best(0))[1]
    begins = {"network": {"init_from": str(source.root), "weights": "hub", "freeze": 2}}
    assert starting_weights(run, resolve(merge(settings.model_dump(), begins)), 0)
    assert starting_weights(run, settings, 0) is None


def test_a_run_cannot_begin_from_itself(source: RunFolder) -> None:
    settings = load_weights(source.best(0))[1]
    begins = resolve(merge(settings.model_dump(), {"network": {"init_from": str(source.root)}}))
    with pytest.raises(Failure, match="the run itself"):
        starting_weights(source, begins, 0)
