"""Atomic writes, JSON files, hashes, and locks between processes."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from competition.command import Failure, os_reason


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block succeeds, flush that file to disk and rename it.

    If the block fails, the temporary file is removed and ``path`` is unchanged. The next writer overwrites the
    temporary file of a killed process; processes that could write the same file at the same time must hold a lock.
    Errors of the file system become a Failure that names ``path``.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise Failure(f"cannot write {path}: {os_reason(error)}") from error
    finally:
        # A failed unlink must not hide the first error.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` as indented JSON, atomically."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """The text of a JSON file."""
    return json.dumps(content, indent=2) + "\n"


def read_json(path: Path, advice: str = "remove it and run the same command again") -> dict[str, Any]:
    """The JSON object in a file; fails with the advice if the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise Failure(f"{path} is not JSON: {error}; {advice}") from error
    if not isinstance(content, dict):
        raise Failure(f"{path} holds no JSON object; {advice}")
    return content


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error


@contextmanager
def held(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock; it is free again when the process ends, also after SIGKILL.

    Args:
        path: the lock file; it is created empty, and never removed.
        busy: error message if another process holds the lock; None waits for that process.
    """
    with claimed(path, wait=not busy) as mine:
        if not mine:
            raise Failure(f"{busy} (it holds {path})")
        yield


# Lock files of this process. A forked process inherits them and would hold the locks after this one is killed.
_open_locks: set[IO[str]] = set()


def _close_locks() -> None:
    for file in _open_locks:
        file.close()  # the lock itself stays with the first process


os.register_at_fork(after_in_child=_close_locks)


@contextmanager
def _closed_in_forks(file: IO[str]) -> Iterator[None]:
    _open_locks.add(file)
    try:
        yield
    finally:
        _open_locks.discard(file)


@contextmanager
def claimed(path: Path, *, wait: bool) -> Iterator[bool]:
    """Try to hold a lock and give whether it is held.

    Args:
        path: the lock file; it is created empty, and never removed.
        wait: wait for another process that holds the lock; the result is then always True.
    """
    # Not the filelock package: it uses flock too, but polls every 50 ms while it waits, falls back to a marker file
    # that survives SIGKILL where flock is missing, and would need as many lines here.

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise Failure(f"cannot write {path}: {os_reason(error)}") from error
    with file, _closed_in_forks(file):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            mine = False
        else:
            mine = True
        yield mine
