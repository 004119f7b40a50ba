"""Steps ``train``, ``resume``, ``checkpoint`` and ``overflow``: a training on the GPU, and what it saves."""

import copy
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.checkpoint import stalls, state_of
from benchmarks.gpu_check.process import forked, kill
from benchmarks.gpu_check.step import Check, Figure, require
from benchmarks.loader import trainer_of
from benchmarks.material import first
from competition.run.folder import RunFolder
from competition.run.records import read_history
from competition.settings.resolve import Tree
from competition.settings.schema import Precision
from folds.checkpoint import load_state, save_state
from folds.train import main as train_command
from folds.trainer import Trainer
from folds.writer import Writer

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
SETTINGS = ["split.folds=2", "train.epochs=4", "train.validate_every=2", "train.save_seconds=0", "train.workers=1"]
SAVED = 3  # checkpoints before the kill
SAME = 0.02  # difference of two losses of one training, if a GPU does not compute the same bits twice


def trainer(check: Check, name: str, precision: Precision, *, on_device: bool = False, images: int = 32) -> Trainer:
    """The trainer of a small fold with preset ``demo``; a worker loads the samples if the device changes them."""
    chosen = {"precision": precision, "epochs": 2, "validate_every": 2, "cache": False}
    workers = 1 if on_device and not check.rehearsal else 0
    over: Tree = {"train": {**chosen, "workers": workers}, "augment": {"on_device": on_device}}
    photos = first(check.data.train, check.few(8, images))
    return trainer_of(check.data, photos, check.settings("demo", over), check.folder / name)


def train(check: Check) -> Iterator[Figure]:
    """The loss of a small training in each precision, with the random changes in the workers and on the device."""
    for precision in PRECISIONS:
        for on_device in (False, True):
            name = f"{precision}, changes {'on the device' if on_device else 'in the workers'}"
            made = trainer(check, name.replace(" ", "_"), precision, on_device=on_device)
            made.fit()
            before, after = (epoch.loss for epoch in made.state.history)
            yield Figure(f"{name}: loss", f"{before:.3f} to {after:.3f}, Dice {made.state.history[-1].dice:.3f}")
            require(after < before, f"{name}: the loss rises from {before:.3f} to {after:.3f}")


def resume(check: Check) -> Iterator[Figure]:
    """A training that is killed by SIGKILL and resumed, compared with one that is not."""
    whole, killed = (RunFolder(check.folder / name) for name in ("whole", "killed"))
    act, log = partial(train_fold, check), check.folder / "log.txt"
    finish(partial(act, whole), log)
    process = forked(partial(act, killed), log)
    saved: set[int] = set()
    last = killed.last(0)
    while len(saved) < SAVED and process.exitcode is None:
        if last.is_file():
            saved.add(last.stat().st_mtime_ns)
        time.sleep(0.001)
    require(process.exitcode is None, "the training ended before it was killed")
    kill(process)
    state = load_state(last)
    yield Figure("killed", f"in epoch {state['epoch'] + 1} after update {state['update']}")
    finish(partial(act, killed), log)
    ours, theirs = (load_state(run.last(0)) for run in (killed, whole))
    differences = (tensor.float() - ours["network"][name].float() for name, tensor in theirs["network"].items())
    apart = max(float(each.abs().max()) for each in differences)
    yield Figure("largest difference of a weight from an uninterrupted training", apart)
    pairs = zip(read_history(killed.history(0)), read_history(whole.history(0)), strict=True)
    losses = max(abs(a.loss - b.loss) for a, b in pairs)
    yield Figure("largest difference of a loss", losses)
    limit = SAME if check.device.type == "cuda" else 0
    require(losses <= limit and (limit > 0 or apart == 0), f"resumed, its losses differ by {losses:.4f}")


def train_fold(check: Check, run: RunFolder) -> None:
    """``make train FOLD=0`` with deterministic kernels, so that two trainings can give the same bits."""
    torch.backends.cudnn.deterministic = True
    arguments = ["--fold", "0", "--run", str(run.root), "--data", str(check.data.root), "--preset", "demo"]
    train_command([*arguments, "--set", *SETTINGS, *check.tiny])


def finish(act: partial[None], log: Path) -> None:
    """Run a training in a process of its own to its end: a process that uses CUDA cannot fork."""
    process = forked(act, log)
    process.join()
    last = log.read_text().strip().rpartition("\n")[2]
    require(process.exitcode == 0, f"a training ended with status {process.exitcode}: {last}")


def checkpoint(check: Check) -> Iterator[Figure]:
    """How long a checkpoint stops the training, and whether it holds the state at its beginning."""
    preset = check.preset
    state, path = state_of(preset), check.folder / "last.pt"
    found = stalls(state, path, repeats=check.few(1, 3))
    yield Figure(f"last.pt of preset {preset}", path.stat().st_size / 1e6, "MB")
    for way, stall in found.stall.items():
        yield Figure(f"stall, written {way}", stall, "ms")
    before = copy.deepcopy(state.network.state_dict())
    with Writer() as writer:
        writer.start(partial(save_state, path), state.snapshot)
        with torch.no_grad():  # as an update does while the file is written
            for parameter in state.network.parameters():
                parameter.add_(1)
    require(same_tensors(load_state(path)["network"], before), "a checkpoint holds weights of a later update")


def overflow(check: Check) -> Iterator[Figure]:
    """An fp16 update that overflows must be skipped, and the next one made."""
    made = trainer(check, "overflow", "fp16")
    layer = made.network.get_submodule("contracting.0.0")
    batches = repeat(next(iter(made.loader)))
    made.network.train()
    before = copy.deepcopy(made.network.state_dict())
    hook = layer.register_forward_pre_hook(_enlarge)
    made.train_step(batches)
    hook.remove()
    require(same_tensors(made.network.state_dict(), before), "an update that overflowed has changed the network")
    require(made.state.overflows.in_epoch == 1, "an update that overflowed was not counted")
    loss = float(made.train_step(batches))
    yield Figure("loss after a skipped update", loss)
    yield Figure("scale of the loss", made.state.scaler.get_scale())
    require(0 < loss < 10, f"the loss after a skipped update is {loss}")


def _enlarge(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] * 1e30,)


def same_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether two networks have the same weights and statistics."""
    return all(torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in ours.items())
