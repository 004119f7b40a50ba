"""A network that onnxruntime computes instead of torch."""

import torch
from torch import Tensor, nn

from competition.command import Failure
from folds.frame import Frame
from inference.engine.fusion import fuse_batch_norm
from inference.engine.onnx_graph import to_onnx
from inference.engine.onnx_session import open_session

INPUT, OUTPUT = "pixels", "logits"


class OnnxNetwork:
    """A network as a session of onnxruntime, on the CPU and in fp32.

    Args:
        network: takes (N, 3, h, w) uint8 RGB and returns (N, 1, h, w) logits.
        frame: its h and w, which the session is made for.
        threads: of one call.
    """

    def __init__(self, network: nn.Module, frame: Frame, threads: int) -> None:
        fused = fuse_batch_norm(network.eval())
        image = torch.zeros(1, 3, frame.height, frame.width, dtype=torch.uint8)
        try:
            content = to_onnx(fused, image, inputs=INPUT, outputs=OUTPUT)
            self.session = open_session(content, threads)
        except Failure:
            raise
        except Exception as error:  # of the exporter, which raises many types, or of onnxruntime
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise Failure(
                f"onnxruntime cannot compute this network ({reason}); let torch do it: SET=inference.engine=torch"
            ) from error

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) uint8 RGB to (N, 1, h, w) float32 logits."""
        return torch.from_numpy(self.session.run([OUTPUT], {INPUT: pixels.contiguous().numpy()})[0])
