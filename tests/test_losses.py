"""The losses, against numbers worked out by hand and the plain formulas."""

import math

import pytest
import torch
from torch import Tensor

from competition.settings.schema import Loss
from folds.losses import bce, boundary_weights, dice_loss, segmentation_loss


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


def test_boundary_weights_by_hand() -> None:
    """Car from the fifth column on: the outline lies between columns 3 and 4, and a window of 5 reaches 2 pixels."""
    target = torch.zeros(1, 1, 3, 9)
    target[..., 4:] = 1
    assert boundary_weights(target, 3.0, 5).squeeze().tolist() == [[1, 1, 3, 3, 3, 3, 1, 1, 1]] * 3


def test_a_soft_pixel_is_outline_and_the_border_of_the_image_is_not() -> None:
    """A single pixel that is a third car, in the second row: 3 x 3 windows around its neighbours see both."""
    target = torch.zeros(1, 1, 4, 5)
    target[0, 0, 1, 3] = 1 / 3
    near, far = [1, 1, 2, 2, 2], [1, 1, 1, 1, 1]
    assert boundary_weights(target, 2.0, 3).squeeze().tolist() == [near, near, near, far]
    assert boundary_weights(torch.ones(1, 1, 4, 5), 2.0, 3).unique().tolist() == [1]


@pytest.mark.parametrize("width", [3, 5, 9, 41])
def test_boundary_weights_against_the_plain_definition(width: int) -> None:
    torch.manual_seed(4)
    target = (torch.rand(2, 1, 23, 31) > 0.995).float() * torch.rand(2, 1, 23, 31)
    radius = width // 2
    for image, weights in zip(target[:, 0], boundary_weights(target, 3.0, width)[:, 0], strict=True):
        for row in range(23):
            for column_ in range(31):
                window = image[
                    max(0, row - radius) : row + radius + 1, max(0, column_ - radius) : column_ + radius + 1
                ]
                assert weights[row, column_] == (3 if window.max() > window.min() else 1)


def test_weighted_bce_by_hand() -> None:
    """Two images. Of the first, pixels 2 to 4 lie within 1 of the outline and weigh 3; the second has no outline."""
    probabilities = [0.1, 0.2, 0.7, 0.9, 0.6]
    first = column(*map(logit, probabilities))
    logits = torch.cat([first, torch.zeros(1, 1, 5, 1)])
    target = torch.cat([column(0, 0, 0, 1, 1), torch.zeros(1, 1, 5, 1)])
    losses = [-math.log(p) for p in (0.9, 0.8, 0.3, 0.9, 0.6)]
    weighted = (losses[0] + losses[1] + 3 * losses[2] + 3 * losses[3] + losses[4]) / 9
    loss = segmentation_loss(Loss(boundary=3, boundary_width=3), logits, target)
    assert loss.item() == pytest.approx((weighted + math.log(2)) / 2, rel=1e-6)


def test_all_pixels_alike_are_plain_bce() -> None:
    """The loss keeps its scale: where all weights are the same, their value does not matter."""
    logits, target = column(0.3, -1.0, 2.0), column(0.0, 0.5, 1.0)
    heavy = segmentation_loss(Loss(boundary=7, boundary_width=5), logits, target)
    assert heavy.item() == pytest.approx(bce(logits, target).item(), rel=1e-6)


def test_a_term_of_weight_0_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Tensor) -> Tensor:
        raise AssertionError("computed")

    monkeypatch.setattr("folds.losses.dice_loss", refuse)
    logits, target = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert segmentation_loss(Loss(bce=2, dice=0), logits, target).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("terms", [{"bce": 1}, {"bce": 1, "dice": 1}, {"bce": 1, "boundary": 3, "boundary_width": 3}])
def test_hard_targets_are_rounded_for_every_term(terms: dict[str, float]) -> None:
    """A pixel of which half is car is car; a level of 127 in 255 is less than half."""
    logits = column(0.3, -1.0, 2.0, 0.7, -0.2)
    soft, hard = column(1.0, 128 / 255, 0.5, 127 / 255, 0.0), column(1.0, 1.0, 1.0, 0.0, 0.0)
    expected = segmentation_loss(Loss(**terms), logits, hard).item()
    assert segmentation_loss(Loss(**terms, targets="hard"), logits, soft).item() == expected
    assert segmentation_loss(Loss(**terms), logits, soft).item() != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("boundary", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_whatever_the_network_computed_in(dtype: torch.dtype, boundary: float) -> None:
    torch.manual_seed(2)
    logits, target = torch.randn(2, 1, 64, 64).mul(5).to(dtype), torch.rand(2, 1, 64, 64)
    target[..., 9:] = 0
    settings = Loss(bce=1, dice=1, boundary=boundary, boundary_width=5)
    expected = segmentation_loss(settings, logits.float(), target)
    with torch.autocast("cpu", dtype):
        loss = segmentation_loss(settings, logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()


@pytest.mark.parametrize("settings", [Loss(bce=1), Loss(bce=0, dice=1), Loss(bce=1, dice=1), Loss(bce=1, boundary=3)])
def test_the_gradient_is_finite_for_extreme_logits(settings: Loss) -> None:
    logits = column(100.0, -100.0, 100.0, -100.0).requires_grad_()
    loss = segmentation_loss(settings, logits, column(0.0, 1.0, 1.0, 0.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if settings.bce:
        assert logits.grad.flatten()[:2].tolist() == pytest.approx([0.25, -0.25], abs=0.01)
