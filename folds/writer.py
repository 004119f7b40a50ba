"""Checkpoints are written in a thread while the training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from torch import Tensor

from folds.checkpoint import State


class Writer:
    """Writes one state at a time in a thread; an error there is raised by the next call in the training's thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._job: Future[None] | None = None

    def __enter__(self) -> Self:
        """Nothing to do: the thread starts with the first state."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait, so that nothing is being written when the training has ended."""
        self.wait()

    def start(self, write: Callable[[State], None], take: Callable[[], State]) -> None:
        """Start writing a state.

        Args:
            write: called in the thread.
            take: gives the state; called at once, but after the last state is written, so that memory holds only one.
        """
        self.wait()
        self._job = self._thread.submit(write, take())

    def wait(self) -> None:
        """Wait until the last state is written."""
        job, self._job = self._job, None
        if job:
            job.result()

    def check(self) -> None:
        """Raise the error of a write that has failed, without waiting for one that is going on."""
        if self._job and self._job.done():
            self.wait()


def host_copy(state: Any) -> Any:
    """A copy of nested dicts and lists; its tensors are on the CPU and share no memory with the originals."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: host_copy(value) for name, value in state.items()}
    if isinstance(state, list):
        return [host_copy(value) for value in state]
    return state
