"""A network that onnxruntime computes instead of torch."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from competition.command import Failure
from competition.images import Pixels
from folds.frame import Frame
from inference.engine.onnx_graph import to_onnx
from inference.engine.onnx_layers import prepare
from inference.engine.onnx_session import open_session

INPUT, OUTPUT = "pixels", "logits"


class OnnxNetwork:
    """A network as a session of onnxruntime, on the CPU and in fp32.

    Threads that share the work of one image wait for each other after every operation, for a small network as long as
    they compute. So each thread computes images of its own if a batch has enough of them. This needs less memory too.

    Args:
        network: takes (N, 3, h, w) uint8 RGB and returns (N, 1, h, w) logits.
        frame: its h and w, which the session is made for.
        threads: of one call.
        batch_size: images in a call; the last call may have fewer.
    """

    def __init__(self, network: nn.Module, frame: Frame, threads: int, batch_size: int = 1) -> None:
        self.pool = ThreadPoolExecutor(threads) if batch_size >= threads > 1 else None
        prepared = prepare(network.eval())
        image = torch.zeros(1, 3, frame.height, frame.width, dtype=torch.uint8)
        try:
            content = to_onnx(prepared, image, inputs=INPUT, outputs=OUTPUT)
            self.session = open_session(content, 1 if self.pool else threads)
        except Failure:
            raise
        except Exception as error:  # of the exporter, which raises many types, or of onnxruntime
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise Failure(
                f"onnxruntime cannot compute this network ({reason}); let torch do it: SET=inference.engine=torch"
            ) from error

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) uint8 RGB to (N, 1, h, w) float32 logits."""
        images = pixels.contiguous().numpy()
        if self.pool is None:
            return torch.from_numpy(self._logits(images))
        return torch.from_numpy(np.concatenate(list(self.pool.map(self._logits, np.split(images, len(images))))))

    def _logits(self, images: Pixels) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.session.run([OUTPUT], {INPUT: images})[0]
        return logits
