"""Sizes and batches that a network can be trained with."""

from typing import Any

import pytest
import torch

from competition.command import Failure
from competition.settings.resolve import resolve
from folds import ranks
from folds.networks.build import make_network
from folds.networks.suitable import require_batch, require_suitable, why_not_one

DEEP = {"width": 4, "depth": 4, "stem": 2}  # 1 x 1 for an input of 32 x 32
TIMM = {"name": "timm_unet", "decoder": [8]}


@pytest.mark.parametrize(
    ("network", "size", "learns"),
    [
        (DEEP, 32, False),
        (DEEP | {"norm": "group"}, 32, True),
        (DEEP, 64, True),
        (TIMM | {"encoder": "resnet10t"}, 32, False),
        (TIMM | {"encoder": "resnet10t"}, 64, True),
        (TIMM | {"encoder": "convnext_atto"}, 32, True),
        (TIMM | {"encoder": "skresnet18"}, 64, False),  # normalizes a pooled vector
    ],
)
def test_networks_that_learn_from_one_image(network: dict[str, Any], size: int, learns: bool) -> None:
    settings = resolve({"input": {"height": size, "width": size}, "network": network})
    before = torch.get_rng_state()
    assert (why_not_one(settings) is None) == learns
    assert torch.equal(torch.get_rng_state(), before)
    require_suitable(make_network(settings), settings)  # two images to train, one to validate


@pytest.mark.parametrize(
    ("batch_size", "photos", "world", "reason"),
    [
        (2, 9, 1, None),
        (1, 9, 1, "train.batch_size=1; use 2, network.norm=group, or a larger input"),
        (8, 1, 1, "fold 3 learns from 1; add photos, network.norm=group"),
        (4, 9, 4, "train.batch_size=4 in 4 processes; use 8, a smaller NPROC, network.norm=group"),
        (8, 9, 4, None),
        (8, 7, 4, "fold 3 learns from 7 in 4 processes; add photos, a smaller NPROC"),
    ],
)
def test_the_share_of_a_process(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, photos: int, world: int, reason: str | None
) -> None:
    monkeypatch.setattr(ranks, "world", lambda: world)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = resolve({"input": {"height": 32, "width": 32}, "network": DEEP, "train": {"batch_size": batch_size}})
    if reason is None:
        require_batch(settings, photos, 3)
        return
    with pytest.raises(Failure, match=rf"one photo of 32 x 32 at a time \(batch .*\), and {reason}"):
        require_batch(settings, photos, 3)


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ("inception_v3", r"cannot take 128 x 128 \(its feature at 1/16 of the size has shape \(768, 6, 6\), not"),
        ("levit_128s", r"cannot take 128 x 128 \(.*broadcast.*\)"),
        ("convmixer_768_32", r"network.encoder=convmixer_768_32 has a feature at 1/7 of the size, but the decoder"),
        ("test_mambaout", None),
        ("test_vit", None),
    ],
)
def test_encoders_are_refused_for_the_true_reason(encoder: str, reason: str | None) -> None:
    settings = resolve({"input": {"height": 128, "width": 128}, "network": TIMM | {"encoder": encoder}})
    if reason is None:
        require_suitable(make_network(settings), settings)
        return
    with pytest.raises(Failure, match=reason):
        require_suitable(make_network(settings), settings)
