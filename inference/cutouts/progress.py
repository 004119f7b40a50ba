"""The progress of a long command: one line that is redrawn on a terminal, else a line every few seconds."""

import sys
import time

SHOWN_EVERY = 0.1, 5.0  # seconds between two lines on a terminal, and elsewhere


class Progress:
    """Counts photos and shows their number, their rate and the time left.

    tqdm would do this, but an exported model runs without it.

    Args:
        total: the number of photos.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.skipped = 0
        self._terminal = sys.stderr.isatty()
        self._start = self._shown = time.monotonic()
        self._width = 0

    def add(self, *, skipped: bool = False) -> None:
        """Count a photo."""
        self.done += 1
        self.skipped += skipped
        now = time.monotonic()
        if now - self._shown >= SHOWN_EVERY[not self._terminal] or (self._terminal and self.done == 1):
            self._shown = now
            self._show(now)

    def close(self) -> None:
        """Remove the line from a terminal."""
        if self._terminal:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)

    def _show(self, now: float) -> None:
        rate = self.done / max(now - self._start, 1e-9)
        left = round((self.total - self.done) / rate)
        line = f"cutout: {self.done:,} of {self.total:,} photos, {rate:.1f}/s, {left // 60}:{left % 60:02d} left"
        line += f", {self.skipped:,} skipped" if self.skipped else ""
        if self._terminal:
            print("\r" + line.ljust(self._width), end="", file=sys.stderr, flush=True)
            self._width = len(line)
        else:
            print(line, flush=True)
