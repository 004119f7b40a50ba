"""Batch normalization folded into the convolution before it, for networks that only predict.

During prediction batch normalization is a fixed scale and shift of each channel, which the weights of the convolution
can contain (Jacob et al., Quantization and Training of Neural Networks, 2018, section 3.2). This saves one pass over
every feature map.
"""

import copy
from collections import Counter, OrderedDict

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Tracer(fx.Tracer):
    """Traces a convolution and a normalization as one step each, also timm's, which pad or activate inside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one step."""
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def fuse_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode with batch normalization folded into convolutions.

    A convolution is changed only if its result goes to one normalization and nowhere else. The output stays the same
    up to rounding. A network that cannot be traced is returned as a plain copy.
    """
    network = copy.deepcopy(network)
    try:
        graph = Tracer().trace(network)
    except Exception:  # any Python code that depends on values stops the tracer
        return network
    modules = dict(network.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or node.op != "call_module" or source.op != "call_module":
            continue
        convolution, norm = modules[str(source.target)], modules[str(node.target)]
        used_once = len(source.users) == 1 and calls[source.target] == calls[node.target] == 1
        if used_once and isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            network.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, norm))
            # timm's normalizations may contain an activation.
            network.set_submodule(str(node.target), nn.Sequential(OrderedDict(norm.named_children())))
    return network


def cast_weights(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast the weights of convolutions and linear layers once, which autocast would otherwise do at each call."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(dtype)
    return network
