"""How long a checkpoint stops the training: written in a thread, and written by the training itself.

The state is that of a preset's training: network, moving average, AdamW and the best weights.
"""

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.material import settings_of
from benchmarks.measure import Target, in_turns, median_ratio, medians, print_rows, report
from competition.command import parser, run_command
from folds.checkpoint import save_state
from folds.device import pick_device
from folds.losses import batch_loss
from folds.networks.build import make_network
from folds.training_state import TrainingState
from folds.writer import Writer


def state_of(preset: str) -> TrainingState:
    """The state of a preset's training after one update, with best weights."""
    settings = settings_of(preset, {"network": {"weights": "none", "freeze": 0}})
    device = pick_device()
    network = make_network(settings).to(device).to(memory_format=torch.channels_last)
    state = TrainingState(network, settings.train, "fp32", fold=0, held_out="")
    image = torch.zeros(2, 64, 64, 3, dtype=torch.uint8, device=device)
    batch_loss(network, image, image[..., 0], settings.loss, "fp32").backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.best_weights = {name: value.cpu().clone() for name, value in state.evaluated.state_dict().items()}
    return state


class Stalls(NamedTuple):
    """How long checkpoints stop a training.

    Attributes:
        stall: median milliseconds, by who writes.
        ratio: of the two.
        writing: seconds until a thread has written, after it was started.
    """

    stall: dict[str, float]
    ratio: float
    writing: list[float]


def stalls(state: TrainingState, path: Path, repeats: int) -> Stalls:
    """Write a state some times, alternating between the thread of the training and another one."""
    writer, writing = Writer(), []
    seconds: dict[str, list[float]] = {"in the training": [], "in a thread": []}
    for _ in range(repeats):
        once = in_turns(
            {
                "in the training": lambda: save_state(path, state.state_dict()),
                "in a thread": lambda: writer.start(partial(save_state, path), state.snapshot),
            },
            1,
        )
        start = time.perf_counter()
        writer.wait()
        writing.append(time.perf_counter() - start)
        for way, values in once.items():
            seconds[way] += values
    stall = {way: 1000 * value for way, value in medians(seconds).items()}
    return Stalls(stall, median_ratio(seconds["in the training"], seconds["in a thread"]), writing)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Time how long a checkpoint stops the training.")
    arguments.add_argument("--data", type=Path, help="not used: make bench gives it to every program")
    arguments.add_argument("--preset", default="fullres")
    arguments.add_argument("--repeats", type=int, default=5)
    options = arguments.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=".") as name:  # on the disk of the project, where the runs are
        path = Path(name) / "last.pt"
        found = stalls(state_of(options.preset), path, options.repeats)
        size = path.stat().st_size
    print_rows(
        f"preset {options.preset}, last.pt of {size / 1e6:.0f} MB: the training waits", found.stall, "ms", digits=0
    )
    result = {"preset": options.preset, "bytes": size, "stall_ms": found.stall, "written_s": found.writing}
    report("checkpoint", result, [Target("shorter stall of a checkpoint, times", found.ratio, 3)])


if __name__ == "__main__":
    run_command(main)
