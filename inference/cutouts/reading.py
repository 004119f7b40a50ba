"""Photos are read ahead in threads and handed on in batches, in order. A photo that cannot be read stops nothing."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from competition.command import Failure

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[tuple[Item, Result | Failure]]:
    """Call ``work`` with each item in threads. Yield each item with its result, or with its Failure, in order.

    Other exceptions are raised.

    Args:
        work: is called with one item.
        items: taken one after the other.
        threads: number of threads.
        ahead: the largest number of items that are worked on or wait.
    """

    def attempt(item: Item) -> Result | Failure:
        try:
            return work(item)
        except Failure as failure:
            return failure

    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Item, Future[Result | Failure]]] = deque()
        try:
            for item in rest:
                waiting.append((item, pool.submit(attempt, item)))
                if len(waiting) >= ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, or when the caller stops early


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
