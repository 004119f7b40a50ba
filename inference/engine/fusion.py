"""Batch normalisation folded into the convolution before it, for networks that only predict.

At prediction a normalisation is a fixed scale and shift for each channel, which the convolution's own weights can
hold (Jacob et al., Quantization and Training of Neural Networks, 2018, section 3.2): one pass over every feature map
less.
"""

import copy
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Tracer(fx.Tracer):
    """Sees convolutions and normalisations as one step each, timm's too, which pad or activate on the way."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one step."""
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def fused(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode whose convolutions do the work of the normalisations after them.

    A convolution is changed only where its result goes to one normalisation and nowhere else. The answers stay the
    same up to rounding.

    Args:
        network: in evaluation mode; it is not changed.
    """
    network = copy.deepcopy(network)
    try:
        graph = Tracer().trace(network)
    except Exception:  # whatever Python does that depends on values; such a network only stays slower
        return network
    modules = dict(network.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or node.op != "call_module" or source.op != "call_module":
            continue
        convolution, norm = modules[str(source.target)], modules[str(node.target)]
        alone = len(source.users) == 1 and calls[source.target] == calls[node.target] == 1
        if alone and isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            network.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(str(node.target), nn.Sequential(*norm.children()))  # its activation, if it has one
    return network


def stored_as(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Keep the weights of convolutions and linear layers in a dtype that autocast would else make at each call."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(dtype)
    return network
