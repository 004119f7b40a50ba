"""Which operations of a network leave the channels-last layout."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# On a GPU its result is never channels-last. The networks convert it back.
LAID_OUT_AGAIN = torch.ops.aten.pixel_unshuffle.default


class MemoryFormats(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation whose result has several channels and is not channels-last.

    Attributes:
        left: the operations, with the shapes of their results.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operation and look at its results."""
        out = func(*args, **(kwargs or {}))
        for result in out if isinstance(out, tuple | list) else [out]:
            if func is not LAID_OUT_AGAIN and isinstance(result, Tensor) and not comes_last(result):
                self.left.append(f"{func} {tuple(result.shape)}")
        return out


def comes_last(result: Tensor) -> bool:
    """Whether a tensor is channels-last, or has no layout to speak of."""
    return result.ndim != 4 or result.shape[1] == 1 or result.is_contiguous(memory_format=torch.channels_last)
