"""Several processes of one command, as torchrun starts them, without its seconds: they are forked from a server that
has already imported torch."""

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
from competition.run.folder import RunFolder
from competition.settings.resolve import resolve
from folds import batch_size, losses, ranks
from folds.begin import ensure_split
from folds.train import make_trainer
from folds.trainer import Trainer
from inference import predict

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rank_processes", "inference.score"])
Script = Callable[..., None]


def together(world: int, script: Script, *arguments: Any, folder: Path) -> list[tuple[int, str, str]]:
    """Run a script in processes that are each other's ranks; the exit status, stdout and stderr of each."""
    folder.mkdir(parents=True, exist_ok=True)
    start_server()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    screens = [(folder / f"{rank}.out", folder / f"{rank}.err") for rank in range(world)]
    processes = []
    for rank in range(world):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        processes.append(CONTEXT.Process(target=run_rank, args=(environment, screens[rank], script, arguments)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        assert process.exitcode is not None, "a rank hangs"
    return [
        (process.exitcode or 0, out.read_text(), err.read_text())
        for process, (out, err) in zip(processes, screens, strict=True)
    ]


def start_server() -> None:
    """Start the server of ``CONTEXT`` if it is not running."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # or the server cannot import what it is to preload
        patched.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the launcher sets it; torch reads it when it is imported
        forkserver.ensure_running()


def run_rank(environment: dict[str, int], screens: tuple[Path, Path], script: Script, arguments: Any) -> None:
    """The life of one rank."""
    os.environ |= {name: str(value) for name, value in environment.items()} | {"MASTER_ADDR": "localhost"}
    for number, path in enumerate(screens, start=1):
        with path.open("w") as file:
            os.dup2(file.fileno(), number)
    torch.set_num_threads(1)
    run_command(lambda: script(*arguments))


# Scripts.


def command(module: str, arguments: list[str]) -> None:
    importlib.import_module(module).main(arguments)


def predict_and_die(arguments: list[str], parts: list[int]) -> None:
    """Each rank is killed before it writes that many-eth part of its own."""
    begun = []
    write = predict.submission_file.write_shard

    def die(path: Path, rows: Any) -> None:
        begun.append(path)
        if len(begun) == parts[ranks.rank()]:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, rows)

    predict.submission_file.write_shard = die
    predict.main(arguments)


def train_and_die(module_arguments: list[str], rank: int, step: int) -> None:
    """One rank is killed in a step."""
    steps = []
    update = Trainer.train_step

    def die(self: Trainer, batches: Any) -> Tensor:
        steps.append(1)
        if len(steps) == step and ranks.rank() == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, batches)

    Trainer.train_step = die  # type: ignore[method-assign]
    command("folds.train", module_arguments)


def train_and_spoil(arguments: list[str], rank: int, step: int) -> None:
    """The loss of one rank is no number in a step."""
    calls = []
    plain = losses.segmentation_loss

    def spoil(*arguments: Any) -> Tensor:
        calls.append(1)
        return plain(*arguments) * (float("nan") if len(calls) == step and ranks.rank() == rank else 1)

    losses.segmentation_loss = spoil
    command("folds.train", arguments)


def batch_size_of(fitting: list[int], photos: int) -> None:
    """What auto is where each rank has a GPU of its own, on which so many images fit."""
    with ranks.joined():
        batch_size.pick_device = lambda: torch.device("cuda")
        batch_size.largest_that_fits = lambda _settings, _device, at_most: min(fitting[ranks.rank()], at_most)
        print(batch_size.automatic_batch_size(resolve({}), photos))


def compare(root: Path, data: Path, tree: dict[str, Any], plain: bool, answer: Path) -> None:
    """Train fold 0, and write what each rank has in the end: hashes of its weights, and the weights of the first."""
    with ranks.joined():
        run, settings, folder = RunFolder(root), resolve(tree), DataFolder(data)
        made = make_trainer(run, settings, folder, ensure_split(run, settings, folder), 0)
        if plain:
            made = without_norms(made)
        made.fit()
        states = [made.network.state_dict(), made.state.evaluated.state_dict()]
        hashes = ranks.all_gather([hash_of(state) for state in states])
        finite = ranks.all_gather(
            all(bool(torch.isfinite(each).all()) for state in states for each in state.values())
        )
        assert made.best is not None
        if ranks.first():
            weights = [parameter.detach().flatten().tolist() for parameter in made.network.parameters()]
            content = {"hashes": hashes, "finite": finite, "weights": weights, "dice": made.best.dice}
            answer.write_text(json.dumps(content | {"loss": [epoch.loss for epoch in made.state.history]}))


def without_norms(made: Trainer) -> Trainer:
    """A trainer of a network for which the gradient of a batch is the mean of its images' gradients."""
    torch.manual_seed(0)
    return Trainer(
        Plain(),
        made.loader.dataset,  # type: ignore[arg-type]
        made.validation,
        settings=made.settings,
        run=made.run,
        fold=0,
        device=torch.device("cpu"),
    )


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers(pixels.float() / 255)
        return logits


def hash_of(state: dict[str, Tensor]) -> str:
    content = b"".join(tensor.contiguous().numpy().tobytes() for tensor in state.values())
    return hashlib.sha256(content).hexdigest()
