"""SIGTERM and Ctrl-C ask the trainer to stop, so that it can save first."""

import signal
from types import FrameType
from typing import Self


class StopSignal:
    """While entered, SIGTERM and the first Ctrl-C are recorded; a second one ends the process at once.

    Attributes:
        number: of the signal that arrived, 0 if none did.
    """

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> Self:
        """Install the handlers."""
        self.previous = {number: signal.signal(number, self._record) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _record(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
