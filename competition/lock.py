"""One command at a time, where two would be in each other's way."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from competition.command import Failure, os_reason


@contextmanager
def held(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock, which goes with the process, however that ends.

    Args:
        path: the lock's file; it stays, empty.
        busy: what to say when another process holds the lock; None waits for it.

    Raises:
        Failure: another process holds it, and ``busy`` says so; or the file cannot be made.
    """
    with claimed(path, wait=not busy) as mine:
        if not mine:
            raise Failure(f"{busy} (it holds {path})")
        yield


@contextmanager
def claimed(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock if it is free, or wait until it is, and tell whether it is held.

    Args:
        path: the lock's file; it stays, empty.
        wait: wait for another process that holds the lock.

    Raises:
        Failure: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise Failure(f"cannot write {path}: {os_reason(error)}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            mine = False
        else:
            mine = True
        yield mine
