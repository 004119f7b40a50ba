"""Files of weights of every kind: read, or refused by what they are."""

import argparse
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from competition.command import Failure
from folds.networks.weight_file import read_weights

TENSORS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(3)}
EMA = {"a.weight": torch.full((2, 3), 5.0), "a.bias": torch.zeros(3)}
# As timm's training script writes it.
TIMM = {
    "epoch": 3,
    "arch": "resnet10t",
    "state_dict": TENSORS,
    "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "version": 2,
    "args": argparse.Namespace(model="resnet10t", lr=0.1, aa=None, mean=(0.5, 0.5, 0.5)),
    "amp_scaler": {"scale": torch.ones(1)},
    "metric": 76.5,
}


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (TENSORS, [""]),
        (TIMM, ["state_dict"]),
        (TIMM | {"state_dict_ema": EMA}, ["state_dict", "state_dict_ema"]),
        ({"state_dict_ema": EMA}, ["state_dict_ema"]),
        ({"state_dict": TENSORS, "state_dict_ema": None}, ["state_dict"]),
        ({"model": TENSORS, "model_ema": EMA, "optimizer_state": {"x": torch.ones(1)}}, ["model", "model_ema"]),
        ({"ema": {"module": EMA, "decay": 0.9}}, ["ema.module"]),
    ],
)
def test_the_sets_of_tensors(tmp_path: Path, content: dict[str, Any], places: list[str]) -> None:
    torch.save(content, tmp_path / "w.pth")
    file = read_weights(tmp_path / "w.pth")
    assert list(file.sets) == places
    assert file.architecture == content.get("arch", "")
    for place, weights in file.sets.items():
        assert torch.equal(weights["a.weight"], (EMA if "ema" in place else TENSORS)["a.weight"])


def test_a_file_is_read_by_its_content(tmp_path: Path) -> None:
    safetensors.torch.save_file(TENSORS, tmp_path / "named.pth")
    torch.save(TENSORS, tmp_path / "named.safetensors")
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("named.pth", "named.safetensors", "old.pth"):
        (weights,) = read_weights(tmp_path / name).sets.values()
        assert torch.equal(weights["a.weight"], TENSORS["a.weight"])


def saved(content: object, **options: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/resnet.pth", "x")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (bytes, "is empty; download it again"),
        (
            lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            "is a pointer of Git LFS, .*run `git lfs pull`",
        ),
        (
            lambda: b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
            "is a web page, .*by the link to the file",
        ),
        (lambda: b"\x1f\x8b\x08\x00abc", "is compressed with gzip; unpack it first"),
        (lambda: b"\x89HDF\r\n\x1a\n123", "is an HDF5 file, as Keras writes it"),
        (lambda: saved(TENSORS)[:-100], r"is truncated or damaged \(.*\); download it again"),
        (
            lambda: saved(TENSORS, _use_new_zipfile_serialization=False)[:-9],
            r"is not a readable file of weights \(.",
        ),
        (lambda: safetensors.torch.save(TENSORS)[:-9], r"is not a readable file of weights \(."),
        (
            lambda: saved(nn.Linear(2, 2)),
            r"contains Python objects \(torch.nn.*torch.save\(model",
        ),
        (
            lambda: saved({"model": TENSORS, "path": Path("x")}),
            r"contains Python objects \(pathlib",
        ),
        (
            lambda: saved(nn.Linear(2, 2), _use_new_zipfile_serialization=False),
            "(contains Python|is not a readable)",
        ),
        (script, r"is a TorchScript program, not a file of weights; in the program that made it, save only"),
        (zipped, "is a zip file that PyTorch did not write, with weights/resnet.pth in it; unpack it"),
        (tarred, r"is a tar archive; unpack it"),
        (lambda: pickle.dumps({"a": 1}), "is not a readable file of weights"),
        (lambda: b'{"metadata": {}, "weight_map": {}}', "is not a readable file of weights"),
        (lambda: struct.pack("<Q", 2**20) + b"{", "is not a readable file of weights"),
        (lambda: saved({"epoch": 3, "state_dict": {}}), "does not contain a state dict of tensors"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, make: Callable[[], bytes], reason: str) -> None:
    (tmp_path / "w.pth").write_bytes(make())
    with pytest.raises(Failure, match=rf"^{tmp_path}/w.pth {reason}") as error:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(error.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"is a folder; network\.weights is hub, none, or a file"):
        read_weights(tmp_path)


def test_half_precision(tmp_path: Path) -> None:
    half: dict[str, Tensor] = {name: value.bfloat16() for name, value in TENSORS.items()}
    torch.save(half, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").sets[""]["a.weight"].dtype == torch.bfloat16
