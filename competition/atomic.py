"""Writing a file so that a kill at any instant leaves the old one or the new one, never a part."""

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
