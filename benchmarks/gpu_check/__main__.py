"""``make gpu-check``: whether everything works on the GPU of this machine, how fast, and which batch fits.

Each step runs in a process of its own within a time limit. A step that fails is reported, and the others run.
``--rehearse`` runs the steps on the CPU, everything tiny, to see that the program itself works.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu_check.compiled import predict_compile, train_compile
from benchmarks.gpu_check.dice import dice
from benchmarks.gpu_check.facts import facts
from benchmarks.gpu_check.masks import augment, masks
from benchmarks.gpu_check.networks import networks
from benchmarks.gpu_check.prediction import memory, pipeline
from benchmarks.gpu_check.process import Result, run_limited
from benchmarks.gpu_check.several import nccl
from benchmarks.gpu_check.speed import batch, predict, speed
from benchmarks.gpu_check.step import Check, Figure, Step
from benchmarks.gpu_check.training import checkpoint, overflow, resume, train
from benchmarks.material import data_folder
from benchmarks.measure import RESULTS, machine
from competition import files
from competition.command import Failure, parser, run_command
from competition.plural import counted
from folds.device import pick_device


class Limited(NamedTuple):
    """A step, and the seconds that it may take."""

    act: Step
    seconds: int


# In the order of their value: the last ones are lost if a session on a GPU ends.
STEPS = {
    "facts": Limited(facts, 60),
    "networks": Limited(networks, 120),
    "masks": Limited(masks, 60),
    "augment": Limited(augment, 60),
    "train": Limited(train, 120),
    "overflow": Limited(overflow, 60),
    "resume": Limited(resume, 120),
    "pipeline": Limited(pipeline, 120),
    "speed": Limited(speed, 300),
    "predict": Limited(predict, 180),
    "batch": Limited(batch, 180),
    "memory": Limited(memory, 90),
    "nccl": Limited(nccl, 120),
    "checkpoint": Limited(checkpoint, 90),
    "train_compile": Limited(train_compile, 240),
    "predict_compile": Limited(predict_compile, 240),
    "dice": Limited(dice, 1800),
}
ON_DEMAND = ("dice",)
# Modules that the project imports late; the steps are forked and share them.
LATE = ("sklearn.model_selection", "albumentations", "torch.utils.tensorboard")


def run_step(name: str, check: Check, out: Path, limit: float | None = None) -> Result:
    """Run a step in a process of its own."""
    step, folder, log = STEPS[name], check.folder / name, out / f"{name}.txt"
    folder.mkdir()
    log.write_text("")
    result = run_limited(name, partial(step.act, check._replace(folder=folder)), limit or step.seconds, log)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def print_result(result: Result) -> None:
    """A step and its figures."""
    state = "passed" if result.error is None else "FAILED"
    print(f"{result.step:16} {state} {result.seconds:7.1f} s  {result.error or ''}".rstrip())
    for figure in result.figures:
        print(figure)
    print(end="", flush=True)


def require_gpu(out: Path) -> None:
    """Raise a Failure without a GPU. It is looked for in another process: this one must not use CUDA."""

    def look() -> Iterator[Figure]:
        yield Figure("device", pick_device().type)

    result = run_limited("device", look, 60, out / "device.txt")
    if result.error:
        raise Failure(result.error)
    if result.figures[0].value != "cuda":
        chosen = os.environ.get("DEVICE") or "auto"
        missing = "this machine has no NVIDIA GPU" if chosen == "auto" else f"DEVICE={chosen} is no NVIDIA GPU"
        raise Failure(
            f"{missing}, so there is nothing to check; run this on a machine with one, or add REHEARSE=1 to run "
            "every step tiny on this CPU"
        )


def write(out: Path, check: Check, results: Sequence[Result], machine: Mapping[str, Any] | None = None) -> Path:
    """Write the results so far, and at the end the machine, to a JSON file."""
    steps = [
        {
            "step": result.step,
            "passed": result.error is None,
            "error": result.error,
            "seconds": result.seconds,
            "figures": [figure._asdict() for figure in result.figures],
        }
        for result in results
    ]
    path = out / "gpu_check.json"
    files.write_json(path, {"rehearsal": check.rehearsal, "steps": steps, "machine": machine})
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps, print their figures and write them."""
    arguments = parser("Check that everything works on the GPU of this machine, how fast, and which batch fits.")
    arguments.add_argument("--data", type=Path, help="data folder; by default generated cars")
    arguments.add_argument("--steps", nargs="+", choices=STEPS, metavar="STEP", help=f"some of {', '.join(STEPS)}")
    arguments.add_argument("--out", type=Path, default=RESULTS / "gpu_check", help="folder for the results")
    arguments.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of step dice")
    arguments.add_argument("--limit", type=float, help="seconds of each step, instead of its own limit")
    arguments.add_argument("--rehearse", action="store_true", help="run every step tiny on the CPU")
    options = arguments.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.rehearse:
        os.environ["DEVICE"] = "cpu"
    else:
        require_gpu(options.out)
    for module in LATE:
        import_module(module)
    names = options.steps or [name for name in STEPS if name not in ON_DEMAND]
    results = []
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        check = Check(data_folder(options.data), Path(folder), options.rehearse, tuple(options.set))
        for name in names:
            results.append(run_step(name, check, options.out, options.limit))
            print_result(results[-1])
            write(options.out, check, results)
    path = write(options.out, check, results, machine())  # it asks CUDA for the card's name, after the last fork
    failed = [result.step for result in results if result.error]
    if failed:
        raise Failure(
            f"{len(failed)} of {counted(len(results), 'step')} failed: {', '.join(failed)}; what they printed is in "
            f"{options.out}/{failed[0]}.txt, and STEPS={failed[0]} runs this one alone"
        )
    print(f"all {counted(len(results), 'step')} passed; {path}")


if __name__ == "__main__":
    run_command(main)
