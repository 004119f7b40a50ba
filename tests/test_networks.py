"""The network of a run's settings."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from benchmarks.gpu_check.memory_formats import MemoryFormats
from competition.command import Failure
from competition.settings.resolve import load_preset, merge, preset_names, resolve
from folds.networks import timm_unet
from folds.networks.build import make_network
from folds.networks.pretrained import make_encoder
from folds.networks.timm_unet import TimmUNet
from folds.networks.unet import UNet


def test_a_unet_by_its_settings() -> None:
    network = make_network(resolve({"network": {"width": 4, "depth": 3, "stem": 2, "max_width": 8}}))
    assert isinstance(network, UNet)
    assert [block[0].out_channels for block in network.contracting] == [4, 8, 8, 8]
    assert network.divisor == 16


def test_unet_with_group_normalisation() -> None:
    network = make_network(resolve({"network": {"width": 4, "depth": 1, "norm": "group"}}))
    modules = list(network.modules())
    assert sum(isinstance(module, torch.nn.GroupNorm) for module in modules) == 6
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in modules)


@pytest.mark.parametrize(
    ("network", "other", "name", "value", "default"),
    [
        ("unet", "timm_unet", "encoder", "resnet10t", "mobilenetv2_100"),
        ("unet", "timm_unet", "weights", "hub", "none"),
        ("unet", "timm_unet", "decoder", [8, 4], "[128,64,32,24,16]"),
        ("unet", "timm_unet", "detail", 16, 0),
        ("unet", "timm_unet", "freeze", 2, 0),
        ("timm_unet", "unet", "width", 64, 32),
        ("timm_unet", "unet", "max_width", 512, 256),
        ("timm_unet", "unet", "depth", 5, 4),
    ],
)
def test_settings_of_the_other_network_are_an_error(
    network: str, other: str, name: str, value: object, default: object
) -> None:
    settings = resolve({"network": {"name": network, name: value}})
    with pytest.raises(Failure) as caught:
        make_network(settings)
    assert str(caught.value) == (
        f"network.{name}={str(value).replace(' ', '')} has no effect with network.name={network}; "
        f'use SET=network.name={other}, or the default: SET="network.{name}={default}"'
    )


def test_all_settings_of_the_other_network_are_named_in_one_error() -> None:
    decoder = r"network.decoder=\[128,64,32,24,16\]"
    with pytest.raises(Failure, match=f'SET="network.weights=none {decoder} network.freeze=0"'):
        make_network(resolve(merge(load_preset("cpu"), {"network": {"name": "unet"}})))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"input": {"height": 96, "width": 128}}, "input.height=96 is not a multiple of 64, .*; use 128"),
        ({"input": {"height": 128, "width": 224}}, "input.width=224 is not a multiple of 64, .*; use 256"),
        ({"input": {"height": 32, "width": 128}}, "input.height=32 is not a multiple of 64, .*; use 64"),
        ({"augment": {"crop": [96, 64]}}, "the height of augment.crop=96 is not a multiple of 64, .*; use 128"),
        ({"augment": {"crop": [64, 100]}}, "the width of augment.crop=100 is not a multiple of 64, .*; use 128"),
    ],
)
def test_sizes_must_be_multiples(settings: dict[str, Any], reason: str) -> None:
    tree: dict[str, Any] = {"input": {"height": 128, "width": 128}, "network": {"width": 4, "depth": 6}}
    make_network(resolve(tree | {"augment": {"crop": [64, 128]}}))
    with pytest.raises(Failure, match=reason):
        make_network(resolve(tree | settings))


def test_a_timm_unet_by_its_settings() -> None:
    chosen = {"norm": "group", "detail": 6, "decoder": [8, 8, 8, 8, 4]}
    network = make_network(resolve({"network": {"name": "timm_unet", "encoder": "resnet10t"} | chosen}))
    assert isinstance(network, TimmUNet)
    assert [block[0].out_channels for block in network.blocks] == [8, 8, 8, 8, 4]
    assert network.detail is not None
    kinds = [type(module) for module in network.blocks.modules()]
    assert (kinds.count(torch.nn.GroupNorm), kinds.count(torch.nn.BatchNorm2d)) == (10, 0)


def test_weights_are_not_downloaded_if_a_checkpoint_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def recorded(name: str, weights: str) -> object:
        seen.append(weights)
        return make_encoder(name, "none")

    monkeypatch.setattr(timm_unet, "make_encoder", recorded)
    settings = resolve({"network": {"name": "timm_unet", "encoder": "resnet10t", "weights": "hub"}})
    make_network(settings)
    make_network(settings, pretrained=False)
    make_network(resolve(merge(settings.model_dump(), {"network": {"init_from": "other"}})))
    assert seen == ["hub", "none", "none"]


@pytest.mark.parametrize("preset", preset_names())
def test_the_input_size_of_every_preset_fits_its_network(preset: str) -> None:
    with torch.device("meta"):
        make_network(resolve(load_preset(preset)), pretrained=False)


@pytest.mark.parametrize(
    ("over", "learns"), [({"weights": "none"}, True), ({"weights": "hub"}, False), ({"init_from": "first"}, False)]
)
def test_only_layers_with_loaded_weights_are_frozen(over: dict[str, str], learns: bool) -> None:
    """With random initial weights, the layers that PRESET=cpu freezes would stay random."""
    settings = resolve(merge(load_preset("cpu"), {"network": over | {"weights": over.get("weights", "none")}}))
    network = make_network(settings, pretrained=False)
    assert all(value.requires_grad for value in network.parameters()) is learns


class FormatsOfGPUs(MemoryFormats):
    """On a GPU ``pixel_unshuffle`` is torch's composite kernel, math_pixel_unshuffle, which is contiguous."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.pixel_unshuffle.default:
            return func(*args, **(kwargs or {})).contiguous()
        return super().__torch_dispatch__(func, types, args, kwargs)


def test_a_contiguous_activation_is_noted_unless_the_network_lays_it_out_again() -> None:
    image = torch.zeros(1, 3, 4, 4)
    with MemoryFormats() as formats:
        unshuffled = functional.pixel_unshuffle(image, 2)
    assert formats.left == []
    with formats:
        torch.relu(unshuffled)
    assert formats.left == ["aten.relu.default (1, 12, 2, 2)"]


@pytest.mark.parametrize("preset", preset_names())
def test_activations_of_presets_stay_channels_last(preset: str) -> None:
    network = make_network(resolve(merge(load_preset(preset), {"network": {"weights": "none", "freeze": 0}})))
    network = network.to(memory_format=torch.channels_last).train()
    pixels = torch.zeros(2, 128, 128, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    with FormatsOfGPUs() as formats:
        network(pixels)
    assert formats.left == []


def test_levels_of_preset_fullres_have_multiples_of_8_channels() -> None:
    """Tensor cores take 8 channels at a time; only the layers that see the photo have 3, and the logits 1."""
    network = make_network(resolve(merge(load_preset("fullres"), {"network": {"weights": "none"}})))
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert {module.in_channels for module in convolutions if module.in_channels % 8} == {3}
    assert {module.out_channels for module in convolutions if module.out_channels % 8} == {1}
