"""Files: atomic writes, JSON, hashes, and locks between processes."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from competition.command import Failure, os_reason


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, flush it to disk and rename it.

    When the block fails the temporary file is removed and ``path`` is what it was. What a killed process left is
    written over by the next one; two that may write the same file at once hold a lock.

    Raises:
        Failure: the disk is full, the folder cannot be written, or the like; it names ``path``.
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
        # Unlinking must not hide the error that brought us here.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 in place of ``path``, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as readable JSON in place of ``path``, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises Failure where it is missing or damaged."""
    again = "put it back, or remove it and give the command that writes it again"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
    except ValueError as error:
        raise Failure(f"{path} is not JSON: {error}; {again}") from error
    if not isinstance(content, dict):
        raise Failure(f"{path} holds no JSON object; {again}")
    return content


def sha256(path: Path) -> str:
    """SHA-256 of a file, by which a submission is known, in 64 hexadecimal digits; raises Failure if unreadable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error


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
