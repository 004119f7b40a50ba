"""Ranks of one command, forked from a server that has already imported torch: cheaper than torchrun's processes."""

import hashlib
import importlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from competition.command import run_command
from competition.data_folder import DataFolder
from competition.deadline import Deadline
from competition.run.folder import RunFolder
from competition.settings.resolve import resolve
from folds import batch_size, losses, ranks
from folds.begin import ensure_split
from folds.train import make_trainer
from folds.trainer import Trainer
from inference import predict

CONTEXT = multiprocessing.get_context("forkserver")
# What a training imports when it begins, here once for all processes: torch's optimizers import torch._dynamo.
BEGIN = ["albumentations", "sklearn.model_selection", "timm.utils", "torch._dynamo", "torch.utils.tensorboard"]
CONTEXT.set_forkserver_preload(["rank_processes", "inference.score", *BEGIN])
Script = Callable[..., None]


def run_ranks(world: int, script: Script, *arguments: Any, folder: Path) -> list[tuple[int, str, str]]:
    """Run a script in ``world`` ranks, and return the exit status, stdout and stderr of each rank."""
    folder.mkdir(parents=True, exist_ok=True)
    start_server()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    outputs = [(folder / f"{rank}.out", folder / f"{rank}.err") for rank in range(world)]
    processes = []
    for rank in range(world):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        processes.append(CONTEXT.Process(target=run_rank, args=(environment, outputs[rank], script, arguments)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        assert process.exitcode is not None, "a rank hangs"
    return [
        (process.exitcode or 0, out.read_text(), err.read_text())
        for process, (out, err) in zip(processes, outputs, strict=True)
    ]


def start_server() -> None:
    """Start the server of ``CONTEXT`` if it is not running."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server imports test files
        patched.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the launcher sets it; torch reads it when it is imported
        forkserver.ensure_running()


def run_rank(environment: dict[str, int], outputs: tuple[Path, Path], script: Script, arguments: Any) -> None:
    """The main function of one process."""
    os.environ |= {name: str(value) for name, value in environment.items()} | {"MASTER_ADDR": "localhost"}
    for number, path in enumerate(outputs, start=1):
        with path.open("w") as file:
            os.dup2(file.fileno(), number)
    torch.set_num_threads(1)
    run_command(lambda: script(*arguments))


# Scripts.


def command(module: str, arguments: list[str]) -> None:
    importlib.import_module(module).main(arguments)


def command_of_rank(module: str, arguments: list[list[str]]) -> None:
    """Each rank has its own arguments."""
    command(module, arguments[int(os.environ["RANK"])])


def launch_module(folder: Path, source: str) -> None:
    """Launch two processes of a module with this source code."""
    (folder / "module_to_launch.py").write_text(source)
    os.chdir(folder)
    command("folds.launch", ["--nproc", "2", "module_to_launch"])


def predict_and_kill(arguments: list[str], shards: list[int]) -> None:
    """Predict; rank r is killed before it writes its shard number ``shards[r]``, counted from 1."""
    started = []
    write = predict.submission_file.write_shard

    def killed(path: Path, rows: Any) -> None:
        started.append(path)
        if len(started) == shards[ranks.rank()]:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, rows)

    predict.submission_file.write_shard = killed
    predict.main(arguments)


def train_and_kill(arguments: list[str], rank: int, step: int) -> None:
    """Train; one rank is killed before a training step, counted from 1."""
    steps = []
    train_step = Trainer.train_step

    def killed(self: Trainer, batches: Any) -> Tensor:
        steps.append(1)
        if len(steps) == step and ranks.rank() == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_step(self, batches)

    Trainer.train_step = killed  # type: ignore[method-assign]
    command("folds.train", arguments)


def train_until(arguments: list[str], rank: int, step: int) -> None:
    """Train; the clock of one rank reaches the deadline after a training step, counted from 1."""
    looks = iter([True] * step)  # the first look is before the first step
    Deadline.leaves = lambda *_: ranks.rank() != rank or next(looks, False)  # type: ignore[method-assign]
    command("folds.train", arguments)


def train_with_nan(arguments: list[str], rank: int, step: int) -> None:
    """Train; the loss of one rank is NaN in one step, counted from 1."""
    calls = []
    original = losses.segmentation_loss

    def loss_or_nan(*given: Any) -> Tensor:
        calls.append(1)
        return original(*given) * (float("nan") if len(calls) == step and ranks.rank() == rank else 1)

    losses.segmentation_loss = loss_or_nan
    command("folds.train", arguments)


def print_batch_size(fitting: list[int], photos: int) -> None:
    """Print the automatic batch size where ``fitting[r]`` images fit in the memory of rank r's GPU."""
    with ranks.joined():
        batch_size.pick_device = lambda: torch.device("cuda")
        batch_size.largest_that_fits = lambda _settings, _device, at_most: min(fitting[ranks.rank()], at_most)
        print(batch_size.automatic_batch_size(resolve({}), photos))


def train_and_describe(root: Path, data: Path, tree: dict[str, Any], plain: bool, result: Path) -> None:
    """Train fold 0, and write the losses, a hash of each rank's weights, and the weights of the first rank."""
    with ranks.joined():
        run, settings, folder = RunFolder(root), resolve(tree), DataFolder(data)
        trainer = make_trainer(run, settings, folder, ensure_split(run, settings, folder), 0)
        if plain:
            trainer = with_plain_network(trainer)
        trainer.fit()
        assert ranks.world() == 1 or not trainer.parallel.will_sync_module_buffers(), "no buffers are sent"
        states = [trainer.network.state_dict(), trainer.state.evaluated.state_dict()]
        hashes = ranks.all_gather([hash_of(state) for state in states])
        assert trainer.best is not None
        if ranks.first():
            weights = [parameter.detach().flatten().tolist() for parameter in trainer.network.parameters()]
            content = {"hashes": hashes, "weights": weights, "dice": trainer.best.dice}
            result.write_text(json.dumps(content | {"loss": [epoch.loss for epoch in trainer.state.history]}))


def with_plain_network(trainer: Trainer) -> Trainer:
    """The trainer with a network without batch norm: the gradient of a batch is the mean of its images' gradients."""
    torch.manual_seed(0)
    return Trainer(
        Plain(),
        trainer.loader.dataset,  # type: ignore[arg-type]
        trainer.validation,
        settings=trainer.settings,
        run=trainer.run,
        fold=0,
        device=torch.device("cpu"),
    )


class Plain(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers(pixels.float() / 255)
        return logits


def hash_of(state: dict[str, Tensor]) -> str:
    content = b"".join(tensor.contiguous().numpy().tobytes() for tensor in state.values())
    return hashlib.sha256(content).hexdigest()
