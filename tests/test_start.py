"""The weights of a whole network as a start: only where they have not learned the cars of the fold."""

from pathlib import Path

import pytest
import torch
from conftest import CARS
from safetensors.torch import load_file

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.run.folder import RunFolder
from competition.settings.resolve import resolve
from competition.settings.schema import Settings
from folds.begin import ensure_split, require_possible
from folds.checkpoint import Provenance, load_provenance, save_weights
from folds.networks.build import make_network
from folds.networks.whole import whole_network
from folds.train import main as train

NETWORK = "network={width: 4, max_width: 256, depth: 1, stem: 2, weights: %s}"
SMALL = [
    *("split.folds=2", "input={height: 32, width: 64}"),
    "train={epochs: 1, batch_size: 2, workers: 0, ema: 0, save_seconds: 1000}",
]


def settings_with(weights: object, **network: object) -> Settings:
    return resolve({"network": {"width": 4, "depth": 1, "stem": 2, "weights": str(weights), **network}})


def weights_at(path: Path, learned: tuple[str, ...] | None) -> Path:
    """Weights that have learned these cars; None: the file of an earlier version."""
    settings = settings_with("none")
    provenance = Provenance(fold=0, held_out="0" * 16, epoch=1, dice=0.9, iou=0.8, learned=learned)
    torch.manual_seed(5)
    save_weights(path, make_network(settings).state_dict(), settings, provenance)
    return path


def arguments_of(run: RunFolder, data: Path, weights: Path) -> list[str]:
    chosen = [*SMALL, NETWORK % weights]
    return ["--run", str(run.root), "--data", str(data), "--preset", "demo", "--set", *chosen]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "new")


def test_a_fold_starts_from_a_file_and_records_all_learned_cars(tiny_data: Path, run: RunFolder) -> None:
    start = weights_at(run.root.parent / "old.safetensors", ("other",))
    train(["--fold", "0", *arguments_of(run, tiny_data, start), "train.lr=1.0e-9"])
    rows = [row.split(",") for row in run.folds.read_text().splitlines()[1:]]
    trained_on = {car for _, car, fold in rows if fold != "0"}
    assert load_provenance(run.best(0)).learned == tuple(sorted({"other", *trained_on}))
    before, after = load_file(start), load_file(run.best(0))
    assert torch.allclose(before["head.weight"], after["head.weight"], atol=1e-5)
    # These weights are a leak for fold 1, whose cars fold 0 has learned, and none for fold 0.
    again = RunFolder(run.root.parent / "again")
    with pytest.raises(Failure, match=r"have learned . cars? that fold 1 is validated on, which is a leak: 0000"):
        train(["--all", *arguments_of(again, tiny_data, run.best(0))])
    assert not again.settings.exists()
    data, settings = DataFolder(tiny_data), settings_with(run.best(0))
    two = settings.with_folds(2)
    require_possible(again, two, data, 0)
    ensure_split(again, two, data, 0)
    assert again.folds.read_bytes() == run.folds.read_bytes()
    with pytest.raises(Failure, match="that fold 1 is validated on"):
        train(["--all", "--run", str(again.root)])


def test_cars_are_compared_as_the_weights_name_them(tiny_data: Path, run: RunFolder) -> None:
    start = weights_at(run.root.parent / "old.safetensors", (CARS[0],))
    data = {"cars": "photo"}  # each photo is a car here
    settings = resolve({"data": data, **settings_with(start).model_dump(include={"network"})}).with_folds(2)
    with pytest.raises(Failure, match=f"have learned 1 car that fold . is validated on, .*: {CARS[0]}"):
        ensure_split(run, settings, DataFolder(tiny_data, settings.data))


def test_weights_without_a_record_are_refused(tiny_data: Path, run: RunFolder) -> None:
    settings = settings_with(weights_at(run.root.parent / "old.safetensors", None))
    with pytest.raises(Failure, match="does not record which cars it has learned"):
        ensure_split(run, settings.with_folds(2), DataFolder(tiny_data))


def test_all_differences_of_the_networks_are_named(tiny_data: Path, run: RunFolder) -> None:
    start = weights_at(run.root.parent / "old.safetensors", ())
    settings = settings_with(start, width=8, depth=2)
    fits = 'set SET="network.width=4 network.depth=1" to use them'
    with pytest.raises(Failure, match=f"do not fit network.width=8 network.depth=2; {fits}"):
        require_possible(run, settings, DataFolder(tiny_data), 0)


def test_only_files_that_describe_a_network_are_whole_networks(tmp_path: Path) -> None:
    path = weights_at(tmp_path / "best.safetensors", ())
    assert whole_network(str(path)) == path
    (tmp_path / "encoder.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (tmp_path / "w.pth").write_bytes(b"PK")
    for other in ("none", "hub", str(tmp_path / "encoder.safetensors"), str(tmp_path / "w.pth"), "missing"):
        assert whole_network(other) is None
    with pytest.raises(Failure, match=r"encoder.safetensors is not a file with the weights of a whole network"):
        make_network(settings_with(tmp_path / "encoder.safetensors"))
