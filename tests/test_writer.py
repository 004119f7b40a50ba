"""Checkpoints are written in a thread, one at a time."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from competition.command import Failure
from folds.writer import Writer, host_copy


def test_a_copy_shares_nothing_that_changes() -> None:
    weight = torch.arange(6.0).view(1, 2, 3, 1).to(memory_format=torch.channels_last)
    state = {"network": {"w": weight}, "groups": [{"lr": 0.1, "steps": [torch.tensor(3)]}], "name": None}
    taken = host_copy(state)
    weight += 1
    state["groups"][0]["lr"] = 0.2  # type: ignore[index]
    assert torch.equal(taken["network"]["w"], weight - 1)
    assert taken["network"]["w"].stride() == weight.stride()
    assert (taken["groups"][0]["lr"], taken["groups"][0]["steps"], taken["name"]) == (0.1, [torch.tensor(3)], None)


def test_a_state_is_taken_when_the_one_before_is_written() -> None:
    order: list[str] = []
    may_write = threading.Event()

    def write(state: dict[str, Any]) -> None:
        assert may_write.wait(60)
        order.append(f"written {state['number']}")

    def take(number: int) -> dict[str, Any]:
        order.append(f"taken {number}")
        return {"number": number}

    with Writer() as writer:
        writer.start(write, lambda: take(1))
        threading.Timer(0.05, may_write.set).start()
        writer.start(write, lambda: take(2))
    assert order == ["taken 1", "written 1", "taken 2", "written 2"]


@pytest.mark.parametrize("call", ["check", "wait", "start", "__exit__"])
def test_an_error_is_raised_by_the_next_call_once(tmp_path: Path, call: str) -> None:
    def write(_: dict[str, Any]) -> None:
        raise Failure("cannot write last.pt: no space left")

    writer = Writer()
    writer.start(write, dict)
    assert writer._job is not None
    assert writer._job.exception(60)
    with pytest.raises(Failure, match="no space left"):
        {"check": writer.check, "wait": writer.wait, "start": lambda: writer.start(write, dict)}.get(
            call, writer.__exit__
        )()
    writer.check()
    writer.wait()
