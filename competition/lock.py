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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise Failure(f"cannot write {path}: {os_reason(error)}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise Failure(f"{busy} (it holds {path})") from None
        yield
