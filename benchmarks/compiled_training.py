"""A training step of a preset with ``train.compile`` and without, in turns, after the compilation."""

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks.loader import trainer_of
from benchmarks.material import data_folder, first, settings_of
from benchmarks.measure import Clock, in_turns, median_ratio, medians, print_rows, report
from benchmarks.stand_ins import made_up_weights
from competition.command import parser, run_command
from competition.data_folder import DataFolder
from folds.trainer import Trainer


def trainer_for(preset: str, data: DataFolder, *, compiled: bool, folder: Path) -> Trainer:
    """The trainer of a preset on a few photos."""
    described = settings_of(preset).network
    weights = described.weights if described.weights == "none" else str(made_up_weights(described.encoder, folder))
    changes = {"network": {"weights": weights}, "train": {"compile": compiled, "cache": False, "workers": 0}}
    trainer = trainer_of(data, first(data.train, 32), settings_of(preset, changes), folder / preset / str(compiled))
    trainer.network.train()
    return trainer


def measure(preset: str, data: DataFolder, *, steps: int, clock: Clock, folder: Path) -> dict[str, Any]:
    """Milliseconds of a step, and seconds of the first step, which compiles."""
    trainers = {
        name: trainer_for(preset, data, compiled=compiled, folder=folder)
        for name, compiled in (("eager", False), ("compiled", True))
    }
    batch = next(iter(trainers["eager"].loader))
    ways = {name: partial(trainer.train_step, repeat(batch)) for name, trainer in trainers.items()}
    compilation = in_turns({"": ways["compiled"]}, 1)[""][0]
    in_turns(ways, 1)
    seconds = in_turns(ways, steps, clock)
    return {
        "preset": preset,
        "batch": len(batch[0]),
        "first_compiled_step_s": compilation,
        "step_ms": {name: 1000 * value for name, value in medians(seconds).items()},
        "ratio": median_ratio(seconds["eager"], seconds["compiled"]),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    arguments = parser("Time a training step with train.compile and without, after the compilation.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--presets", nargs="+", default=["cpu", "scratch", "demo"])
    arguments.add_argument("--steps", type=int, default=10, help="measured steps of each")
    arguments.add_argument("--cpu-time", action="store_true", help="measure CPU time, on a busy machine")
    options = arguments.parse_args(argv)
    data, found = data_folder(options.data), []
    clock = time.process_time if options.cpu_time else time.perf_counter
    for preset in options.presets:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(preset, data, steps=options.steps, clock=clock, folder=Path(folder)))
        print_rows(f"preset {preset}, batches of {found[-1]['batch']}: a step", found[-1]["step_ms"], "ms", digits=1)
        print(f"  eager / compiled {found[-1]['ratio']:.2f}; first step {found[-1]['first_compiled_step_s']:.0f} s")
    report("compiled_training", {"data": str(data.root), "presets": found}, [])


if __name__ == "__main__":
    run_command(main)
