"""Work ahead in threads, in order, with errors of each item."""

import threading
import time

import pytest

from competition.command import Failure
from inference.cutouts.reading import in_batches, mapped_ahead


def test_order_and_failures_are_kept() -> None:
    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        if item % 4 == 1:
            raise Failure(f"{item} is bad")
        return -item

    found = list(mapped_ahead(work, range(12), threads=3, ahead=5))
    assert [item for item, _ in found] == list(range(12))
    assert [str(result) for _, result in found] == [
        f"{item} is bad" if item % 4 == 1 else str(-item) for item in range(12)
    ]


def test_only_a_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    before = threading.active_count()  # other tests may have left threads, such as that of a progress bar
    mapped = mapped_ahead(lambda item: item, items(), threads=2, ahead=4)
    next(mapped)
    assert len(taken) == 4
    mapped.close()
    assert threading.active_count() == before


def test_other_errors_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(mapped_ahead(lambda item: 1 // item, [1, 0, 1], threads=1, ahead=2))


def test_batches() -> None:
    assert list(in_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_batches([], 2)) == []
