"""What every command does before its imports: check Python's version, and let Ctrl-C end it with one line.

Older versions of Python 3 must be able to run this file and ``competition/__init__.py``. It imports little, because
Ctrl-C before ``start`` shows Python's traceback.
"""

import os
import signal
import sys

OLDEST_PYTHON = (3, 11)
INTERRUPTION = "interrupted; all files are complete, and the same command can be run again"
INTERRUPTED = 128 + signal.SIGINT  # as a shell reports it


def start() -> None:
    """Begin a command. For the ``__init__.py`` that is imported first.

    While Python imports the package of the module to run, ``sys.argv[0]`` is ``-m``. A process that ignores Ctrl-C,
    such as a background job, continues to ignore it.
    """
    if sys.version_info[:2] < OLDEST_PYTHON:
        sys.exit(
            f"error: Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed, and {sys.executable} is "
            f"{sys.version.partition(' ')[0]}; run the same command with a newer one, such as python3.12"
        )
    if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


def end_at_once(_number: int, _frame: object) -> None:
    """Handle Ctrl-C during imports. KeyboardInterrupt is not enough there: some libraries catch or print it."""
    os.write(2, f"\n{INTERRUPTION}\n".encode())
    os._exit(INTERRUPTED)
