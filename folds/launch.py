"""``make ... NPROC=k``: a command in several processes of this machine, by torchrun's own launcher.

Rendezvous, watching and signals are torchrun's. Here is only what a person sees of it: one line for an error, and the
exit status of the command.
"""

import logging
import os
import signal
import sys
import tempfile
import uuid
from argparse import REMAINDER
from collections.abc import Iterable, Sequence

from competition.command import TERMINATED, Failure, parser, run_command

# Processes that share cores must not wait for each other by spinning, and one that is told to end has to save first.
# torch 2.11 does not read that timeout yet: there it is 30 seconds, and the next call goes on from the last save.
SHARING = {"OMP_WAIT_POLICY": "PASSIVE", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120"}


def launch(processes: int, module: str, arguments: Sequence[str]) -> None:
    """Run ``python -m module arguments`` in several processes, and end as they do.

    Args:
        processes: how many.
        module: the command's module.
        arguments: its arguments.

    Raises:
        Failure: a process was killed; processes that fail by themselves have said why, and here only the exit
            status is theirs.
    """
    for name, value in {**SHARING, **threads(processes, module)}.items():
        os.environ.setdefault(name, value)
    # Only now: torch reads some of these when it is imported.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="launch-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,  # the same command goes on, and its user decides when
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except ChildFailedError as error:
            sys.exit(status_of(failure.exitcode for failure in error.failures.values()))
        except SignalException as stop:
            sys.exit(128 + stop.sigval)


def threads(processes: int, module: str) -> dict[str, str]:
    """How many threads each process has.

    Training shares the cores. A network's last bits depend on its number of threads on a CPU, so in prediction each
    process has as many as one alone would have: the same masks, whatever the number of processes.
    """
    cores = len(os.sched_getaffinity(0))
    return {} if module.startswith("inference.") else {"OMP_NUM_THREADS": str(max(1, cores // processes))}


def status_of(exitcodes: Iterable[int]) -> int:
    """The exit status for those of the processes that failed: what they say themselves.

    SIGTERM is what torchrun ends the others with, once one has failed.

    Raises:
        Failure: one was killed by another signal, so that nobody has said anything yet.
    """
    codes = list(exitcodes)
    killed = [signal.Signals(-code).name for code in codes if code < 0 and -code != signal.SIGTERM]
    if killed:
        raise Failure(
            f"a process was killed by {killed[0]} (out of memory?); the same command goes on where it stopped"
        )
    return max((code for code in codes if code > 0), default=TERMINATED)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command in several processes."""
    arguments = parser("Run a command in several processes: one a GPU, or several on a CPU.")
    arguments.add_argument("--nproc", type=int, required=True, help="number of processes")
    arguments.add_argument("module", help="folds.train, inference.score, .predict or .pseudo")
    arguments.add_argument("arguments", nargs=REMAINDER, help="the command's own arguments")
    options = arguments.parse_args(argv)
    if options.nproc < 1:
        raise Failure(f"NPROC={options.nproc} is not a number of processes; it is at least 1")
    if "--debug" not in options.arguments:
        logging.disable(logging.CRITICAL)
        # Or torch's own lines on lost connections stand beside the one that says why a process ended.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    launch(options.nproc, options.module, options.arguments)


if __name__ == "__main__":
    run_command(main)
