"""The U-Net decoder on timm encoders."""

from typing import Any

import pytest
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor

from competition.command import Failure
from competition.settings.schema import Train
from folds.networks.timm_unet import TimmUNet
from folds.optimizer import make_optimizer


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def logits_of(network: TimmUNet, height: int, width: int) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = network.eval()(torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8))
    return logits


@pytest.mark.parametrize("encoder", ["mobilenetv2_100", "resnet18", "convnext_atto"])
def test_every_pixel_gets_a_logit(encoder: str) -> None:
    network = TimmUNet(encoder, "none", [16, 12, 8, 8, 4])
    assert network.divisor == 32
    logits = logits_of(network, 64, 96)
    assert logits.shape == (1, 1, 64, 96)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_logits_of_a_shorter_decoder_have_full_size(levels: int) -> None:
    network = TimmUNet("resnet18", "none", [8] * levels)
    assert len(network.blocks) == levels
    assert logits_of(network, 64, 64).shape == (1, 1, 64, 64)


def test_more_levels_than_the_encoder_has() -> None:
    with pytest.raises(Failure, match=r"network.decoder has 6 levels, but resnet18 halves the size only 5 times"):
        TimmUNet("resnet18", "none", [8] * 6)


def test_skip_connections_join_where_the_encoder_has_a_feature() -> None:
    """resnet18 halves five times with 64, 64, 128, 256, 512 channels; the photo itself joins at full size."""
    network = TimmUNet("resnet18", "none", [40, 30, 20, 10, 5])
    assert [block[0].in_channels for block in network.blocks] == [512 + 256, 40 + 128, 30 + 64, 20 + 64, 10 + 3]
    sparse = TimmUNet("convnext_atto", "none", [40, 30, 20, 10, 5])
    assert [block[0].in_channels for block in sparse.blocks] == [320 + 160, 40 + 80, 30 + 40, 20, 10 + 3]


@pytest.mark.parametrize("options", [{"norm": "group"}, {"detail": 6}])
def test_every_option_gives_logits_and_trains_all_parameters(options: dict[str, Any]) -> None:
    network = TimmUNet("resnet10t", "none", [16, 12, 8, 8, 4], **options)
    logits = network(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    assert logits.shape == (2, 1, 64, 96)
    logits.square().mean().backward()
    parameters = [each for name, each in network.named_parameters() if not name.startswith("encoder.")]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)


def test_detail_is_two_convolutions_at_full_size() -> None:
    """The last level gets 7 channels, each with a receptive field of 5 x 5 pixels."""
    network = TimmUNet("resnet18", "none", [40, 30, 20, 10, 5], detail=7).eval()
    assert network.blocks[-1][0].in_channels == 10 + 7
    assert network.detail is not None
    photo = torch.zeros(1, 3, 16, 16)
    other = photo.clone()
    other[..., 8, 8] = 1
    with torch.inference_mode():
        changed = (network.detail(photo) != network.detail(other)).any(1)[0]
    assert torch.nonzero(changed).amin(0).tolist() == [6, 6]
    assert torch.nonzero(changed).amax(0).tolist() == [10, 10]


def test_detail_needs_the_last_level() -> None:
    reason = "network.detail=4 needs a decoder of 5 levels, but network.decoder has 4; give it 5 channels"
    with pytest.raises(Failure, match=reason), torch.device("meta"):
        TimmUNet("resnet18", "none", [8] * 4, detail=4)


def test_the_stem_joins_the_last_level_by_space_to_depth() -> None:
    """With stem 2, 12 channels join the encoder's feature at half size, and the head has 4 logits per position."""
    network = TimmUNet("resnet18", "none", [40, 30, 20, 10], stem=2)
    assert [block[0].in_channels for block in network.blocks] == [512 + 256, 40 + 128, 30 + 64, 20 + 64 + 12]
    assert logits_of(network, 64, 96).shape == (1, 1, 64, 96)
    detailed = TimmUNet("resnet18", "none", [8] * 4, stem=2, detail=6)
    assert detailed.blocks[-1][0].in_channels == 8 + 64 + 6
    assert logits_of(detailed, 64, 64).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("stem", [1, 2])
def test_one_pixel_of_the_photo_reaches_the_logit_at_its_place(stem: int) -> None:
    """With all other weights 0, the head repeats the red channel: space-to-depth and back move no pixel."""
    network = TimmUNet("resnet18", "none", [3 * stem**2] * (6 - stem), stem=stem).eval()
    block = network.blocks[-1]
    for name, value in network.blocks[-1].named_parameters():
        if name in ("0.weight", "3.weight"):
            torch.nn.init.zeros_(value)
            for channel in range(3 * stem**2):
                value.data[channel, channel - 3 * stem**2 if name == "0.weight" else channel, 1, 1] = 1
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    for part in range(stem**2):
        network.head.weight.data[part, part] = 1
    assert block[0].in_channels > 3 * stem**2
    dark = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    lit = dark.clone()
    lit[0, 0, 13, 38] = 255
    with torch.inference_mode():
        changed = torch.nonzero((network(lit) - network(dark))[0, 0].abs() > 0.1)
    assert changed.tolist() == [[13, 38]]


@pytest.mark.parametrize(
    ("encoder", "freeze", "frozen"),
    [
        ("resnet18", 2, {"conv1", "bn1", "act1", "maxpool", "layer1"}),
        ("mobilenetv2_100", 1, {"conv_stem", "bn1", "blocks.0"}),
        ("convnext_atto", 1, {"stem_0", "stem_1", "stages_0"}),
    ],
)
def test_frozen_layers_keep_their_values_and_all_others_learn(encoder: str, freeze: int, frozen: set[str]) -> None:
    network = TimmUNet(encoder, "none", [8] * 5, freeze=freeze).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = make_optimizer(network, Train(optimizer="sgd", lr=0.1, weight_decay=0.1))
    network(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)).square().mean().backward()
    optimizer.step()
    kept = {name for name in before if name.startswith(tuple(f"encoder.{part}." for part in frozen))}
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert kept
    assert not kept & changed, "weights and statistics"
    assert {name for name, value in network.named_parameters() if value.grad is None} == {
        name for name, _ in network.named_parameters() if name in kept
    }


def test_frozen_layers_stay_frozen_with_sync_batch_norm() -> None:
    network = convert_sync_batchnorm(TimmUNet("resnet18", "none", [8], freeze=1)).train()
    assert isinstance(network.encoder.bn1, torch.nn.SyncBatchNorm)
    assert not network.encoder.bn1.training
    assert not network.encoder.bn1.weight.requires_grad
    assert network.encoder.layer1[0].bn1.training


def test_more_frozen_features_than_there_are() -> None:
    with pytest.raises(Failure, match=r"network.freeze=6, but resnet18 has only 5 features; freeze at most 5"):
        TimmUNet("resnet18", "none", [8], freeze=6)


@pytest.mark.parametrize(("stem", "levels", "wanted"), [(2, 5, 4), (4, 4, 3), (2, 3, 4)])
def test_the_decoder_must_end_at_the_stem(stem: int, levels: int, wanted: int) -> None:
    reason = f"network.stem={stem} with resnet18 needs a decoder of {wanted} levels, .* has {levels}; give"
    with pytest.raises(Failure, match=reason), torch.device("meta"):
        TimmUNet("resnet18", "none", [8] * levels, stem=stem)


def test_pixels_are_normalised_as_the_encoder_was_trained() -> None:
    network = TimmUNet("tf_efficientnet_lite0", "none", [8])
    grey = network.normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    assert torch.allclose(grey, torch.ones(1, 3, 2, 2), atol=1e-6), "mean and std of this encoder are 0.5"
