"""The processes that load samples: how they start, and what it means when they fail.

They need memory, processes and open files of the machine. Neither torch nor Python has error types for a lack of
these, so it is recognized by the text of an error.
"""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from competition.command import Failure
from folds import ranks

MANY_FILES = 2**16
FILES_OF_A_PROCESS = 128  # libraries, data, logs and connections
FILES_OF_A_WORKER = 12  # pipes and batches of the loaders of training and validation
RAM_IS_SHORT = "usually because the machine or the container has no memory (RAM) left"
LESS_RAM = ', and takes less memory with SET="train.workers=0 train.cache=false"'
FEWER = " with SET=train.workers=0, or fewer than now"
# Texts of errors, what they mean, and what to add to "the same command resumes".
MEANINGS = (
    (
        ("killed by signal: Bus error", "shared memory", "file </torch_"),
        "/dev/shm, where workers leave their batches, is full",
        " with SET=train.workers=0, or in a container with more shared memory (docker run --shm-size=...)",
    ),
    (("killed by signal: Killed",), f"a worker was killed (SIGKILL), {RAM_IS_SHORT}", LESS_RAM),
    (("Too many open files", "items of ancdata"), "the limit of open files is used up (ulimit -n)", FEWER),
    (
        ("Resource temporarily unavailable", "can't start new thread"),
        "the limit of processes and threads is used up (ulimit -u, or that of the container)",
        FEWER,
    ),
    (
        ("MemoryError", "allocate memory", "Unable to allocate", "Insufficient memory"),
        "the machine or the container has no memory (RAM) left",
        LESS_RAM,
    ),
    (("killed by signal",), "a worker was killed by a signal", ""),
    (
        ("exited unexpectedly", "ConnectionRefusedError", "ConnectionResetError", "EOFError"),
        f"a worker ended unexpectedly, {RAM_IS_SHORT}",
        LESS_RAM,
    ),
)


def start_method(workers: int) -> str | None:
    """How a loader starts its workers: by fork on Linux, where they share the cache of the samples.

    Python 3.14 has another default, with which each worker gets a pickled copy of it. None without workers, and on
    macOS, where a fork can crash.
    """
    return "fork" if workers and sys.platform == "linux" else None


def start_worker(_worker: int) -> None:
    """Give a DataLoader worker a process group of its own, and let a bus error end it without a message of torch.

    Ctrl-C, `timeout` and many schedulers signal the whole group, but workers must run until the trainer has saved.
    Workers end by themselves when their trainer is gone.
    """
    os.setpgrp()
    signal.signal(signal.SIGBUS, signal.SIG_DFL)


def require_files(workers: int) -> None:
    """Raise the limit of open files as far as the system allows, or a Failure if that is too low for the workers.

    At the limit, torch's workers do not fail but wait forever.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    needed = FILES_OF_A_PROCESS + FILES_OF_A_WORKER * workers
    if workers and hard != resource.RLIM_INFINITY and hard < needed:
        fewer = max(0, hard - FILES_OF_A_PROCESS) // FILES_OF_A_WORKER
        raise Failure(
            f"train.workers={workers} can need {needed} open files, and the limit is {hard} (ulimit -Hn); raise it, "
            f"or use SET=train.workers={fewer}"
        )


@contextmanager
def lack_explained(fold: int) -> Iterator[None]:
    """Turn an error because of a lack of memory, processes or open files into a Failure that says what to do."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError, EOFError) as error:
        if ranks.is_lost_peer(error):
            raise
        text = _text(error)
        for parts, meaning, advice in MEANINGS:
            if any(part in text for part in parts):
                raise Failure(
                    f"fold {fold} was interrupted: {meaning}; the same command resumes from the last save{advice}"
                ) from error
        raise


def _text(error: BaseException | None) -> str:
    """The types and messages of an error and of those that caused it: torch names the signal in one of these."""
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
