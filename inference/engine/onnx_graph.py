"""A network as an ONNX model, by torch's exporter."""

import io
import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from competition.command import Failure

OPSET = 17  # of onnxruntime 1.12 and newer; a later one has nothing that the networks need
LARGEST = 2**31 - 2**20  # bytes of weights: a protobuf, which an ONNX file is, ends at 2 GiB
PACKAGES = ("onnx", "onnxruntime")


def missing_packages() -> list[str]:
    """Those of the packages that make and run an ONNX model that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def require_packages() -> None:
    """Raise a Failure that names the missing packages."""
    if missing := missing_packages():
        names = " ".join(missing)
        raise Failure(f"an ONNX model needs packages that are missing: {names}; install them: pip install {names}")


def to_onnx(network: nn.Module, images: Tensor, *, inputs: str, outputs: str) -> bytes:
    """An ONNX model of a network in evaluation mode, for any number of images.

    torch has two exporters. The one that traces with TorchScript is used, because the newer one takes many times as
    long and gives the same nodes for these networks.

    Args:
        network: on the CPU; its weights are stored once, however often it uses them.
        images: one image, which the network is traced with.
        inputs: name of the input; its first dimension is the number of images.
        outputs: name of the output, likewise.
    """
    size = sum(weight.nbytes for weight in network.state_dict().values())
    if size > LARGEST:
        raise Failure(f"{size / 2**30:.1f} GiB of weights are more than an ONNX file can hold, 2 GiB; use FOLD=0")
    content: Any = io.BytesIO()  # torch's annotation names paths only
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # about the exporter, and that sizes become constants, as they should
        torch.onnx.export(
            network,
            (images,),
            content,
            dynamo=False,
            opset_version=OPSET,
            input_names=[inputs],
            output_names=[outputs],
            dynamic_axes={inputs: {0: "N"}, outputs: {0: "N"}},
        )
    return bytes(content.getbuffer())
