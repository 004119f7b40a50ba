"""The losses, against numbers worked out by hand and the plain formulas."""

import math

import pytest
import torch
from torch import Tensor

from competition.settings import Loss
from folds.losses import bce, dice_loss, segmentation_loss


def column(*values: float) -> Tensor:
    """One image of a few pixels, (1, 1, n, 1)."""
    return torch.tensor(values).view(1, 1, -1, 1)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_bce_by_hand() -> None:
    logits = column(logit(0.8), logit(0.3), 0.0)
    target = column(1.0, 0.0, 0.25)
    expected = (-math.log(0.8) - math.log(0.7) + math.log(2)) / 3
    assert bce(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_dice_by_hand() -> None:
    """p = (0.5, 0.25), t = (1, 0.5): 1 - (2 * 0.625 + 1) / (0.3125 + 1.25 + 1)."""
    loss = dice_loss(column(0.0, logit(0.25)), column(1.0, 0.5))
    assert loss.item() == pytest.approx(1 - 2.25 / 2.5625, rel=1e-6)


def test_dice_is_of_each_image_and_not_of_the_batch() -> None:
    """A whole and an empty answer to a whole car: the mean of nearly 0 and nearly 1, and not Dice of the pool."""
    logits = torch.cat([torch.full((1, 1, 8, 8), 50.0), torch.full((1, 1, 8, 8), -50.0)])
    target = torch.ones(2, 1, 8, 8)
    alone = [dice_loss(logits[[image]], target[[image]]).item() for image in range(2)]
    assert alone == pytest.approx([0.0, 1 - 1 / 65], abs=1e-6)
    assert dice_loss(logits, target).item() == pytest.approx(sum(alone) / 2, rel=1e-6)


def test_two_empty_masks_lose_nothing() -> None:
    assert dice_loss(torch.full((1, 1, 4, 4), -80.0), torch.zeros(1, 1, 4, 4)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("term", [bce, dice_loss])
def test_a_soft_target_is_best_answered_by_itself(term: object) -> None:
    assert callable(term)
    torch.manual_seed(0)
    target = torch.rand(2, 1, 6, 6).clamp(0.05, 0.95)
    best = term(target.logit(), target)
    for change in (-0.5, -0.1, 0.1, 0.5):
        assert best < term(target.logit() + change, target)


def test_against_the_plain_formulas() -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(3, 1, 5, 7).double(), torch.rand(3, 1, 5, 7).double()
    p = 1 / (1 + torch.exp(-logits))
    plain_bce = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    plain_dice = sum(
        1 - (2 * (p[n] * target[n]).sum() + 1) / ((p[n] ** 2).sum() + (target[n] ** 2).sum() + 1) for n in range(3)
    )
    assert bce(logits, target).item() == pytest.approx(plain_bce.item(), rel=1e-9)
    assert dice_loss(logits, target).item() == pytest.approx(plain_dice.item() / 3, rel=1e-9)
    both = segmentation_loss(Loss(bce=0.7, dice=0.2), logits, target)
    assert both.item() == pytest.approx((0.7 * plain_bce + 0.2 * plain_dice / 3).item(), rel=1e-6)


def test_a_term_of_weight_0_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Tensor) -> Tensor:
        raise AssertionError("computed")

    monkeypatch.setattr("folds.losses.dice_loss", refuse)
    logits, target = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert segmentation_loss(Loss(bce=2, dice=0), logits, target).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_whatever_the_network_computed_in(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    logits, target = torch.randn(2, 1, 64, 64).mul(5).to(dtype), torch.rand(2, 1, 64, 64)
    expected = segmentation_loss(Loss(bce=1, dice=1), logits.float(), target)
    with torch.autocast("cpu", dtype):
        loss = segmentation_loss(Loss(bce=1, dice=1), logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()


@pytest.mark.parametrize("settings", [Loss(bce=1, dice=0), Loss(bce=0, dice=1), Loss(bce=1, dice=1)])
def test_the_gradient_is_finite_for_extreme_logits(settings: Loss) -> None:
    logits = column(100.0, -100.0, 100.0, -100.0).requires_grad_()
    loss = segmentation_loss(settings, logits, column(0.0, 1.0, 1.0, 0.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if settings.bce:
        assert logits.grad.flatten()[:2].tolist() == pytest.approx([0.25, -0.25], abs=0.01)
