"""Files of weights: which kind a file is, by its content, and the sets of tensors in it.

Nothing in a file is run: of Python objects only tensors, plain values and ``argparse.Namespace`` are unpickled.
"""

import argparse
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from competition.command import Failure, os_reason

Weights = Mapping[str, Tensor]
AGAIN = "download it again"
SAVE = "in the program that made it, save only the weights: torch.save(model.state_dict(), FILE)"
# What a file is by its first bytes, and what to do.
FOREIGN = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run `git lfs pull` where it is from"),
    (b"<", "a web page, not a file of weights", f"{AGAIN}, by the link to the file itself"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", "use the file for PyTorch"),
    (b"\x93NUMPY", "an array of NumPy", "use the file for PyTorch"),
)
ZIP, TAR, TAR_AT = b"PK\x03\x04", b"ustar", 257
ALLOWED: list[Any] = [argparse.Namespace]  # of the arguments in checkpoints of timm
STATES = ("optim", "scaler", "sched")  # the states of other parts of a training have tensors, too


class WeightFile(NamedTuple):
    """The content of a file.

    Attributes:
        sets: the state dicts in it by their place, such as "state_dict_ema"; "" is the file as a whole.
        architecture: what timm's training script has written as ``arch``, such as resnet50; "" without it.
    """

    sets: dict[str, Weights]
    architecture: str


def read_weights(path: Path) -> WeightFile:
    """The tensors in a .safetensors or PyTorch file."""
    start = _start(path)
    _require_weights(path, start)
    try:
        if _is_safetensors(start):
            return WeightFile({"": safetensors.torch.load_file(path)}, "")
        # As an open file: torch decides by the name of a path.
        with (
            path.open("rb") as opened,
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(ALLOWED),
        ):
            content: Any = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives raise many types
        raise Failure(_unreadable(path, error)) from error
    found = dict(_sets(content, ""))
    if not found:
        raise Failure(
            f"{path} does not contain a state dict of tensors; network.weights is hub, none, or a file of weights"
        )
    named = content.get("arch") if isinstance(content, Mapping) else None
    return WeightFile(found, named if isinstance(named, str) else "")


def _start(path: Path) -> bytes:
    if path.is_dir():
        raise Failure(f"{path} is a folder; network.weights is hub, none, or a file")
    try:
        with path.open("rb") as file:
            return file.read(512)
    except FileNotFoundError as error:
        raise Failure(f"there is no file {path}; network.weights is hub, none, or a file") from error
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error


def _is_safetensors(start: bytes) -> bool:
    """Whether a file begins with the length of a header, and the header."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**30


def _require_weights(path: Path, start: bytes) -> None:
    """Raise a Failure that says what a file is, if it is of another kind."""
    if not start:
        raise Failure(f"{path} is empty; {AGAIN}")
    for magic, kind, advice in FOREIGN:
        if start.lstrip().startswith(magic):
            raise Failure(f"{path} is {kind}; {advice}")
    if start[TAR_AT : TAR_AT + len(TAR)] == TAR:
        raise Failure(f"{path} is a tar archive; unpack it. If PyTorch before 0.4 wrote it, {SAVE}")
    if start.startswith(ZIP):
        _require_torch_archive(path)


def _require_torch_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise Failure(f"{path} is truncated or damaged ({error}); {AGAIN}") from error
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        raise Failure(f"{path} is a TorchScript program, not a file of weights; {SAVE}")
    if "data.pkl" not in ends:
        shown = ", ".join(names[:3]) or "nothing"
        raise Failure(f"{path} is a zip file that PyTorch did not write, with {shown} in it; unpack it")


def _unreadable(path: Path, error: Exception) -> str:
    """The message for a file that torch or safetensors cannot read."""
    reason = str(error).partition("\n")[0].partition(". ")[0][:120] or type(error).__name__
    if "Weights only load failed" in str(error) or "Unsupported" in str(error):
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:  # not a zip archive
            names = []
        if names:
            return f"{path} contains Python objects ({', '.join(names[:3])}), whose code is not run; {SAVE}"
    return (
        f"{path} is not a readable file of weights ({reason}); network.weights takes a state dict of tensors, as "
        "torch.save or safetensors writes it"
    )


def _sets(content: object, place: str) -> Iterator[tuple[str, Weights]]:
    """All state dicts in nested dicts; those of optimizers and the like are left out."""
    if not isinstance(content, Mapping) or not content:
        return
    if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        yield place, content
        return
    for key, value in content.items():
        if isinstance(key, str) and not any(part in key for part in STATES):
            yield from _sets(value, f"{place}.{key}".strip("."))
