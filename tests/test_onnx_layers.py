"""Layers in the form that onnxruntime computes fastest: they return what the trained ones return."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from competition.settings.resolve import resolve
from competition.settings.schema import Norm
from folds.networks.build import make_network
from folds.networks.unet import Expansion, SpaceToDepth
from inference.engine.onnx_layers import ConvolvedSpaceToDepth, TransposedExpansion, prepare


@settings(max_examples=25, deadline=None)
@given(
    below=st.integers(1, 9),
    skips=st.lists(st.integers(1, 5), max_size=2),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    norm=st.sampled_from(["batch", "group"]),
)
def test_an_expansion_stays_the_same(below: int, skips: Sequence[int], size: tuple[int, int], norm: Norm) -> None:
    torch.manual_seed(1)
    height, width = size
    expansion = Expansion(below, sum(skips), 8, norm).eval()
    convolution = expansion[0]
    assert isinstance(convolution, nn.Conv2d)
    convolution.bias = nn.Parameter(torch.randn(8)) if norm == "batch" else None  # as folded normalization leaves it
    maps = [torch.randn(2, below, height, width), *(torch.randn(2, each, 2 * height, 2 * width) for each in skips)]
    with torch.inference_mode():
        expected, found = expansion(*maps), TransposedExpansion(expansion)(*maps)
    assert torch.allclose(found, expected, atol=1e-5)  # the largest values are about 1


@pytest.mark.parametrize("factor", [2, 4])
def test_space_to_depth_moves_each_pixel_to_the_same_place(factor: int) -> None:
    images = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12)
    assert torch.equal(ConvolvedSpaceToDepth(factor, 3)(images), SpaceToDepth(factor)(images))


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        ({"width": 4, "depth": 2, "stem": 2}, {TransposedExpansion: 2, ConvolvedSpaceToDepth: 1, SpaceToDepth: 0}),
        ({"width": 4, "depth": 1}, {TransposedExpansion: 1, ConvolvedSpaceToDepth: 0, SpaceToDepth: 1}),
        (
            {"name": "timm_unet", "encoder": "resnet10t", "decoder": [8, 8, 8, 8], "stem": 2, "detail": 4},
            {TransposedExpansion: 4, ConvolvedSpaceToDepth: 1, SpaceToDepth: 0},
        ),
    ],
)
def test_a_prepared_network_is_a_copy_without_slow_layers(
    chosen: dict[str, object], kinds: dict[type[nn.Module], int]
) -> None:
    torch.manual_seed(1)
    network = make_network(
        resolve({"input": {"height": 32, "width": 32}, "network": chosen}), pretrained=False
    ).eval()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    prepared = prepare(network)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(prepared(pixels), network(pixels), atol=1e-5)
    modules = list(prepared.modules())
    assert {kind: sum(isinstance(module, kind) for module in modules) for kind in kinds} == kinds
    assert not any(isinstance(module, Expansion) for module in modules)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
