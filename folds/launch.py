"""``make ... NPROC=k``: run a command in several processes of this machine with the API of torchrun.

``torchrun --standalone --nproc-per-node=k -m -- MODULE ARGUMENTS`` does the same work. This launcher adds what users
rely on: one line for an error, where torchrun adds a report of about 45 lines; the exit status of the command, where
torchrun's is 1 even for a usage error; and training shares the cores, as ``ranks.shared_cores`` says, where torchrun
sets one thread per process.
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

# A rank needs time to save after SIGTERM. torch 2.11 does not read this variable: there the limit is 30 seconds, and
# training resumes from the last save.
ENVIRONMENT = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120"}


def launch(processes: int, module: str, arguments: Sequence[str]) -> None:
    """Run ``python -m module arguments`` in several processes and exit with their status."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Imported here: torch reads some of these variables when it is imported.
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
            max_restarts=0,  # the user decides when to run the command again, which resumes
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except ChildFailedError as error:
            sys.exit(status_of(failure.exitcode for failure in error.failures.values()))
        except SignalException as stop:
            sys.exit(128 + stop.sigval)


def status_of(exitcodes: Iterable[int]) -> int:
    """The exit status of the failed processes, except those that torchrun ended with SIGTERM after the first failure.

    A process that another signal killed has printed no error, so it raises a Failure here.
    """
    codes = list(exitcodes)
    killed = [signal.Signals(-code).name for code in codes if code < 0 and -code != signal.SIGTERM]
    if killed:
        raise Failure(f"a process was killed by {killed[0]} (out of memory?); run the same command again to resume")
    return max((code for code in codes if code > 0), default=TERMINATED)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command in several processes."""
    arguments = parser("Run a command in several processes: one per GPU, or several on a CPU.")
    arguments.add_argument("--nproc", type=int, required=True, help="number of processes")
    arguments.add_argument("module", help="folds.train, inference.cv, .score, .predict or .pseudo")
    arguments.add_argument("arguments", nargs=REMAINDER, help="the command's own arguments")
    options = arguments.parse_args(argv)
    if options.nproc < 1:
        raise Failure(f"NPROC={options.nproc} is not a number of processes; it must be at least 1")
    if "--debug" not in options.arguments:
        logging.disable(logging.CRITICAL)
        # Otherwise torch's lines on lost connections hide the line that says why a process failed.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    launch(options.nproc, options.module, options.arguments)


if __name__ == "__main__":
    run_command(main)
