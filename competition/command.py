"""What all commands have in common: the argument parser, the error messages, the exit status."""

import argparse
import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from competition.startup import INTERRUPTED, INTERRUPTION, end_at_once

USAGE_ERROR = 2
BROKEN_PIPE = 128 + signal.SIGPIPE  # as a shell reports it
TERMINATED = 128 + signal.SIGTERM
OUT_OF_TIME = 124  # as timeout(1) reports it


class Failure(Exception):
    """An error for users: one line that names the file, row or setting, what is wrong and what to do."""


class Terminated(Exception):
    """SIGTERM or Ctrl-C arrived and the work has been saved; the message says how to resume.

    Args:
        message: for the user.
        number: of the signal.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.status = 128 + number  # as a shell reports it


class OutOfTime(Terminated):
    """The deadline of ``HOURS`` is reached and the work has been saved; the message says how to resume."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.status = OUT_OF_TIME


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line. If a command runs in several processes, only the first one prints it."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the command line, and exit with status 2."""
        first = os.environ.get("RANK", "0") == "0"
        self.exit(USAGE_ERROR, f"error: {message}; --help lists the options\n" if first else None)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with ``--debug``, which every command has."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    made = Parser(_program(), description=description, formatter_class=formatter, allow_abbrev=False)
    made.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    return made


def _program() -> str | None:
    """How the command was started, for its help: ``python -m inference.report``; None leaves it to argparse."""
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else None


def run_command(main: Callable[[], None]) -> None:
    """Run the main function of a command. The exit status is 0 for success, 1 for an error and 2 for a usage error.

    Errors of every kind are printed as one line; ``--debug`` shows the traceback instead.
    """
    debug = "--debug" in sys.argv[1:]
    _print_everything()
    try:
        with _interruptible():
            main()
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output, such as `| head`, has ended. Python would print an error when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except KeyboardInterrupt:
        print(f"\n{INTERRUPTION}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Terminated as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.status)
    except Exception as error:
        if debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    finally:
        # At its end Python would look for reference cycles among all objects: one second with PyTorch's modules.
        gc.freeze()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt, which lets the work end in an orderly way."""
    before = signal.getsignal(signal.SIGINT)
    if before is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if before is end_at_once:
            signal.signal(signal.SIGINT, before)


def _print_everything() -> None:
    """Let print escape what the terminal's encoding lacks, such as an umlaut with PYTHONIOENCODING=ascii."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # stderr escapes by itself
        sys.stdout.reconfigure(errors="backslashreplace")


def one_line(error: Exception) -> str:
    """Return the message of an error in one line that can be printed."""
    message = printable(" ".join(_message(error).split()))
    if isinstance(error, Failure):
        return message
    if isinstance(error, OSError):
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        return f"{where}{message if error.errno is None else os_reason(error)}"
    return f"{type(error).__name__}: {message} (unexpected error; --debug shows the traceback)"


def _message(error: Exception) -> str:
    """The message of an error. If it comes from a worker of a DataLoader, torch has put a traceback before it."""
    name, text = type(error).__name__, str(error)
    return text.rpartition(f"{name}: ")[2] if text.startswith(f"Caught {name} in ") else text


def printable(text: str) -> str:
    r"""The text with backslash escapes for control characters, and for bytes of a file name that are not UTF-8."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def os_reason(error: OSError) -> str:
    """Return the reason of an error of the operating system, and what to do about common ones."""
    advice = {
        errno.ENOSPC: "no space left on the disk; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EROFS: "the file system is read-only; use another folder",
        errno.EACCES: "permission denied; check the owner and the permissions",
        errno.EPERM: "permission denied; check the owner and the permissions",
        errno.ENOENT: "no such file or folder",
    }
    return advice.get(error.errno or 0, error.strerror or str(error))
