"""What every command of the project has in common: its parser, its errors, its exit status."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

USAGE_ERROR = 2
INTERRUPTION = "interrupted; nothing is half written, and the same command can be given again"
INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C
TERMINATED = 143  # and for one ended by SIGTERM


class Failure(Exception):
    """An error for a person: one line that names the file, row or setting, what is wrong and what to do."""


class Terminated(Exception):
    """SIGTERM arrived and everything worth keeping has been saved; the message says how to go on."""


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line; where a command runs in several processes, one complaint is enough."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and end with status 2."""
        first = os.environ.get("RANK", "0") == "0"
        self.exit(USAGE_ERROR, f"error: {message}; --help lists the options\n" if first else None)


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the one option that every command has."""
    made = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    made.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    return made


def run_command(main: Callable[[], None]) -> None:
    """Run a command's main and end the process: 0 done, 1 failed with one line, 2 for a usage error.

    A ``Failure`` prints its one line. So does an error of the operating system (disk full, no permission),
    and anything unforeseen; ``--debug`` shows the traceback instead.
    """
    debug = "--debug" in sys.argv[1:]
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output (`| head`) has left; closing stdout again at exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{INTERRUPTION}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Terminated as stop:
        print(stop, file=sys.stderr)
        sys.exit(TERMINATED)
    except Exception as error:
        if debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1)


def end_in_one_line_while_starting() -> None:
    """Let Ctrl-C end a command in one line already during its imports, which take seconds; for a package of commands.

    Python calls a program ``-m`` while it imports the packages that the module to run is in.
    """
    if sys.argv[:1] == ["-m"]:
        sys.excepthook = _say_interrupted


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(f"\n{INTERRUPTION}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def one_line(error: Exception) -> str:
    """What to tell a person about an error, in one line."""
    said = _own_words(error)
    if isinstance(error, Failure):
        return " ".join(said.split())
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return " ".join(f"{where}{said if error.errno is None else os_reason(error)}".split())
    return f"{type(error).__name__}: {' '.join(said.split())} (unforeseen; --debug shows where)"


def _own_words(error: Exception) -> str:
    """An error's message, without the traceback of another process: torch raises what a DataLoader's worker has
    raised anew, as the same type, with the worker's whole traceback for a message. Its last part is the message.
    """
    name = type(error).__name__
    said = str(error)
    return said.rpartition(f"{name}: ")[2] if said.startswith(f"Caught {name} in ") else said


def os_reason(error: OSError) -> str:
    """The reason in an operating system's error, and what to do about the common ones."""
    advice = {
        errno.ENOSPC: "no space left on the disk; free some and type the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and type the same command again",
        errno.EROFS: "the file system is read-only; choose a folder that can be written",
        errno.EACCES: "permission denied; check who owns it and what may be written there",
        errno.EPERM: "permission denied; check who owns it and what may be written there",
        errno.ENOENT: "no such file or folder",
    }
    return advice.get(error.errno or 0, error.strerror or str(error))
