"""Checkpoints are read as they were written, rejected when damaged, and never run code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import full_disk

from competition.command import Failure
from competition.settings.resolve import resolve
from competition.settings.schema import Settings
from folds.checkpoint import Provenance, load_state, load_weights, save_state, save_weights
from folds.networks.build import make_network

PROVENANCE = Provenance(fold=0, held_out="0" * 16, epoch=3, dice=0.1 + 0.2, iou=0.18)


def tiny() -> Settings:
    return resolve({"input": {"height": 32, "width": 32}, "network": {"width": 4, "depth": 1}})


def state() -> dict[str, Any]:
    torch.manual_seed(1)
    values = torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last)
    return {
        "network": {"a": values, "half": values.bfloat16(), "count": torch.tensor(7)},
        "ema": None,
        "random": torch.get_rng_state(),
        "history": [{"epoch": 1, "dice": 0.1 + 0.2, "best": True, "iou": None}],
    }


def test_a_state_is_read_as_it_was(tmp_path: Path) -> None:
    before = state()
    save_state(tmp_path / "new" / "last.pt", before)
    after = load_state(tmp_path / "new" / "last.pt")
    assert after.keys() == before.keys()
    for name, tensor in before["network"].items():
        assert torch.equal(after["network"][name], tensor)
        assert after["network"][name].dtype == tensor.dtype
        assert after["network"][name].stride() == tensor.stride()
    assert torch.equal(after["random"], before["random"])
    assert (after["ema"], after["history"]) == (None, before["history"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.pt"]


def test_weights_are_read_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = make_network(tiny()).to(memory_format=torch.channels_last).train()
    network(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))  # moves the running statistics
    save_weights(tmp_path / "best.safetensors", network.state_dict(), tiny(), PROVENANCE)
    loaded, settings, read = load_weights(tmp_path / "best.safetensors")
    assert (settings, read) == (tiny(), PROVENANCE)
    assert not loaded.training
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("these are no weights\n")
    elif how == "zeros":
        path.write_bytes(bytes(len(content)))


@pytest.mark.parametrize("how", ["cut", "empty", "text", "zeros"])
def test_damaged_files_are_rejected(tmp_path: Path, how: str) -> None:
    save_state(tmp_path / "last.pt", state())
    damage(tmp_path / "last.pt", how)
    with pytest.raises(Failure, match=r"last\.pt is damaged \(.+\); remove it to train this fold from its beginning"):
        load_state(tmp_path / "last.pt")
    save_weights(tmp_path / "best.safetensors", make_network(tiny()).state_dict(), tiny(), PROVENANCE)
    damage(tmp_path / "best.safetensors", how)
    reason = r"best\.safetensors is damaged \(.+\); .* or remove it and run `make train`"
    with pytest.raises(Failure, match=reason) as rejected:
        load_weights(tmp_path / "best.safetensors")
    assert "\n" not in str(rejected.value)


def test_missing_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cannot read .*last.pt: no such file"):
        load_state(tmp_path / "last.pt")
    with pytest.raises(Failure, match=r"no checkpoint .*best.safetensors; train its fold first"):
        load_weights(tmp_path / "best.safetensors")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"settings": None}, "was not written by this project"),
        (
            {"settings": '{"network": {"wings": 2}}'},
            r"unknown setting network.wings; .*use the version that",
        ),
        ({"settings": '{"seed": '}, "use the version that wrote it, or train its fold again"),
        ({"settings": "[1]"}, "settings are sections with names, not .*; use the version that wrote it, or train"),
        ({"provenance": '{"fold": 0}'}, "was written by another version of this project; train its fold again"),
        ({}, "does not fit the network it describes"),
    ],
)
def test_weights_of_something_else_are_rejected(tmp_path: Path, changes: dict[str, str | None], reason: str) -> None:
    metadata = {"settings": tiny().model_dump_json(), "provenance": PROVENANCE.model_dump_json()} | changes
    written = {name: value for name, value in metadata.items() if value is not None}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "best.safetensors", metadata=written)
    with pytest.raises(Failure, match=f"best.safetensors.*{reason}"):
        load_weights(tmp_path / "best.safetensors")


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_state_is_not_run(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "executed")
    torch.save({"network": trap}, tmp_path / "torch.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(trap))
    for name in ("torch.pt", "plain.pt"):
        with pytest.raises(Failure, match="is damaged"):
            load_state(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path: Path) -> None:
    save_state(tmp_path / "last.pt", {"epoch": 1})
    with pytest.raises(Failure, match=r"cannot write .*last.pt: "), full_disk():
        save_state(tmp_path / "last.pt", {"epoch": 2, "network": torch.zeros(10_000)})
    assert load_state(tmp_path / "last.pt") == {"epoch": 1}
    large = PROVENANCE.model_copy(update={"held_out": "x" * 5000})
    with pytest.raises(Failure, match=r"cannot write .*best.safetensors: "), full_disk():
        save_weights(tmp_path / "best.safetensors", make_network(tiny()).state_dict(), tiny(), large)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
