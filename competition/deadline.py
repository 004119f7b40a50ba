"""``HOURS``: the time after which a command stops, so that it ends before a notebook's time is over."""

import math
import os
import time
from argparse import ArgumentParser, ArgumentTypeError

from competition.command import Failure

# The start of the hours, in seconds since 1970. make sets it to its own start, so that its targets share a
# deadline; a notebook sets it in its first cell.
STARTED = "CARVANA_STARTED"


class Deadline:
    """The time at which a command stops.

    Args:
        hours: from the start of the command, or from ``CARVANA_STARTED``; None for no deadline.
    """

    def __init__(self, hours: float | None = None) -> None:
        self.hours = hours
        self.at = math.inf if hours is None else _started() + hours * 3600

    def __str__(self) -> str:
        """The variable of make that sets it."""
        return f"HOURS={self.hours:g}"

    def leaves(self, seconds: float = 0.0) -> bool:
        """Whether more than this many seconds are left."""
        return time.time() + seconds < self.at


def add_deadline_argument(parser: ArgumentParser) -> None:
    """Add the option ``--hours``, which ``Deadline`` takes."""
    parser.add_argument(
        "--hours", type=_hours, help="stop and save after this time; the same command resumes (exit status 124)"
    )


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise ArgumentTypeError(f"{text} is not a number of hours above 0, such as 11 or 0.5")
    return hours


def _started() -> float:
    text = os.environ.get(STARTED)
    try:
        return float(text) if text else time.time()
    except ValueError:
        raise Failure(f"{STARTED}={text} is not a time in seconds since 1970, as `date +%s` prints it") from None
