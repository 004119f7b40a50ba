"""Copies to and from a GPU that run while its networks compute: uploads ahead of them, downloads behind them.

A GPU works through each of its streams in order, and through several streams at the same time. A CPU computes
everything at once and needs nothing of this.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

Mark = torch.cuda.Event | None


class Overlap:
    """The side streams of a device; the networks compute in its current stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.uploads, self.fetches = _side_streams(device)

    def staging(self, *shape: int) -> Tensor:
        """A uint8 tensor on the host to upload from; pinned if there is a GPU, so that the copy is asynchronous."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.uploads is not None)

    def upload(self, images: Tensor) -> Tensor:
        """Copy images to the device; later work of the networks waits for the copy."""
        if self.uploads is None:
            return images.to(self.device)
        with torch.cuda.stream(self.uploads):
            uploaded = images.to(self.device, non_blocking=True)
        networks = torch.cuda.current_stream(self.device)
        networks.wait_stream(self.uploads)
        uploaded.record_stream(networks)  # keeps its memory until the networks have used it
        return uploaded

    def mark(self) -> Mark:
        """The current position in the work of the networks, for ``fetching`` to wait for."""
        return torch.cuda.current_stream(self.device).record_event() if self.fetches is not None else None

    @contextmanager
    def fetching(self, mark: Mark) -> Iterator[None]:
        """A context whose work on the device waits for the networks up to the mark, and not for what came after it.

        The block must end with its results on the host; its inputs may be freed then.
        """
        if self.fetches is None or mark is None:
            yield
            return
        with torch.cuda.stream(self.fetches):
            self.fetches.wait_event(mark)
            yield


@lru_cache
def _side_streams(device: torch.device) -> tuple[torch.cuda.Stream | None, torch.cuda.Stream | None]:
    """The same two streams for all shards, because a stream cannot reuse memory that another stream has freed."""
    return _side_stream(device), _side_stream(device)


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
