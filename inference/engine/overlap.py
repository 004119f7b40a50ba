"""Copies to and from a GPU while its networks compute: uploads run ahead of them, results are fetched behind them.

Work that is given to a GPU is done later, stream by stream: what one stream is given is done in order, and two
streams go on side by side. On a CPU everything is done at once, and nothing of this is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

Mark = torch.cuda.Event | None


class Overlap:
    """The side streams of a device; its current stream is that of the networks."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.uploads, self.fetches = _side_streams(device)

    def staging(self, *shape: int) -> Tensor:
        """A uint8 tensor on the host from which an upload needs no detour: pinned, where there is a GPU."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.uploads is not None)

    def upload(self, images: Tensor) -> Tensor:
        """Images on the device, in time for what the networks are given next."""
        if self.uploads is None:
            return images
        with torch.cuda.stream(self.uploads):
            uploaded = images.to(self.device, non_blocking=True)
        networks = torch.cuda.current_stream(self.device)
        networks.wait_stream(self.uploads)
        uploaded.record_stream(networks)  # its memory must outlive what the networks do with it
        return uploaded

    def mark(self) -> Mark:
        """The place in the networks' work up to which a later ``fetching`` waits."""
        return torch.cuda.current_stream(self.device).record_event() if self.fetches is not None else None

    @contextmanager
    def fetching(self, mark: Mark) -> Iterator[None]:
        """Work that waits for what the networks were given before the mark, and for nothing that came after it.

        The block must end with its results on the host: then what they were made of may be freed.
        """
        if self.fetches is None or mark is None:
            yield
            return
        with torch.cuda.stream(self.fetches):
            self.fetches.wait_event(mark)
            yield


@lru_cache
def _side_streams(device: torch.device) -> tuple[torch.cuda.Stream | None, torch.cuda.Stream | None]:
    """The same two for all shards: a stream does not take the memory that another one has freed."""
    return _side_stream(device), _side_stream(device)


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
