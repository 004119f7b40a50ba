"""A step in a process of its own, within a time limit: a step that hangs or crashes does not stop the others.

The process is forked, so it needs no time for imports. A process that has used CUDA must not be forked, so the
program itself never uses it: all that needs the GPU is in the steps.
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.gpu_check.step import Figure
from competition.command import Failure

FORK = multiprocessing.get_context("fork")
INTERVAL = 0.1  # seconds between two looks at a process
OVER = "over"


@dataclass
class Result:
    """What became of a step.

    Attributes:
        step: its name.
        error: why it failed, one line; None if it passed.
        seconds: how long it took.
        figures: what it has measured, until it failed.
    """

    step: str
    error: str | None = None
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)


def run_limited(name: str, act: Callable[[], Iterator[Figure]], limit: float, log: Path) -> Result:
    """Run a step to its end, or until its time is over.

    Args:
        name: of the step.
        act: yields the figures.
        limit: seconds.
        log: file for what the step prints.
    """
    result, start = Result(name), time.monotonic()
    receiver, sender = FORK.Pipe(duplex=False)
    process = forked(lambda: _report(act, sender), log, with_group=True)
    sender.close()
    try:
        result.error = _collect(result.figures, process, receiver, start + limit)
        if result.error == OVER:
            result.error = f"not finished after {limit:g} s"
    finally:
        kill(process)
    result.seconds = round(time.monotonic() - start, 1)
    return result


def forked(act: Callable[[], None], log: Path, *, with_group: bool = False) -> BaseProcess:
    """Start a function in a forked process; what it prints is appended to a file.

    Args:
        act: the function.
        log: the file.
        with_group: give the process a group of its own, to which all that it starts belongs.
    """

    def work() -> None:
        if with_group:
            os.setpgrp()
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        act()

    process = FORK.Process(target=work)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """End a process, and its group if it has one, by SIGKILL. Workers of a DataLoader end by themselves then."""
    assert process.pid
    with suppress(ProcessLookupError):  # it has no group of its own, or has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _report(act: Callable[[], Iterator[Figure]], sender: Connection) -> None:
    """Send the figures of a step, and its error or None at the end."""
    try:
        for figure in act():
            print(figure, flush=True)
            sender.send(figure)
    except BaseException as error:  # also the SystemExit of a command
        traceback.print_exc()
        kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
        sender.send(kind + " ".join(str(error).split())[:500])
    else:
        sender.send(None)


def _collect(figures: list[Figure], process: BaseProcess, receiver: Connection, end: float) -> str | None:
    """Receive the figures; returns the error of the step."""
    while time.monotonic() < end:
        if receiver.poll(INTERVAL):
            try:
                message = receiver.recv()
            except EOFError:
                process.join()
                return f"its process ended with status {process.exitcode}"
            if not isinstance(message, Figure):
                return message  # type: ignore[no-any-return]
            figures.append(message)
        elif process.exitcode is not None and not receiver.poll(0):  # its workers may hold the pipe open
            return f"its process ended with status {process.exitcode}"
    return OVER
