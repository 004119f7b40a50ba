"""The progress of a prediction, image by image: a bar on a terminal, otherwise a line every half minute."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from competition.plural import counted
from folds import ranks

Item = TypeVar("Item")
EVERY = 30.0  # seconds between two lines
RECOUNT = 1.0  # seconds between two looks at what other processes have finished


class Progress:
    """Counts images that are done; the first rank shows them.

    Args:
        title: what is done.
        total: number of images.
        finished: returns the number of images that are finished and saved, by this process or others; by default none
            are saved before the end.
    """

    def __init__(self, title: str, total: int, finished: Callable[[], int] = lambda: 0) -> None:
        self.title, self.total, self.count_finished = title, total, finished
        self.begun = self.printed = self.counted_at = time.monotonic()
        self.finished = self.before = finished()
        self.current = 0  # images of this process that are not saved yet
        hidden = None if ranks.first() else True
        self.bar = tqdm(total=total, initial=self.before, desc=title, unit="image", disable=hidden, leave=False)

    def close(self) -> None:
        """Remove the bar from the screen."""
        self.bar.close()

    @property
    def done(self) -> int:
        """The number of images that are done."""
        return min(self.total, self.finished + self.current)

    def counted(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, one for each image; an image is done when the next one is asked for."""
        for item in items:
            yield item
            self.current += 1
            self.show()

    def saved(self) -> None:
        """Count again what is finished: what this process has done is saved now."""
        self.current, self.counted_at = 0, 0.0
        self.show()

    def show(self) -> None:
        """Show what is done, and from time to time look at what other processes have finished."""
        now = time.monotonic()
        if now - self.counted_at >= RECOUNT:
            self.finished, self.counted_at = self.count_finished(), now
            self.bar.refresh()  # its clock moves during a slow batch, too
        self.bar.update(self.done - self.bar.n)
        if self.bar.disable and now - self.printed >= EVERY:
            self.printed = now
            rate = (self.done - self.before) / (now - self.begun)
            left = f", {rate:.1f} images/s, {duration((self.total - self.done) / rate)} left" if rate else ""
            print(f"{self.title}: {self.done:,} of {self.total:,} images{left}", flush=True)

    def print_end(self) -> None:
        """Print what was done, how long it took, and the rate."""
        now, new = time.monotonic(), self.total - self.before
        self.close()
        if not new:
            done = "the 1 image was" if self.total == 1 else f"all {self.total:,} images were"
            print(f"{self.title}: {done} done before", flush=True)
            return
        before = f" ({self.before:,} of {self.total:,} were done before)" if self.before else ""
        speed = new / max(now - self.begun, 1e-3)
        print(
            f"{self.title}: {counted(new, 'image')} in {duration(now - self.begun)}, {speed:.1f} images/s{before}",
            flush=True,
        )


def duration(seconds: float) -> str:
    """Minutes and seconds as ``4:07``, with hours as ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
