"""The losses, against numbers computed by hand and the plain formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from competition.settings.schema import Loss
from folds.losses import TERMS, batch_loss, bce, boundary_weights, dice, segmentation_loss

PLAIN = Loss()


def column(*values: float) -> Tensor:
    """One image of a few pixels, (1, 1, n, 1)."""
    return torch.tensor(values).view(1, 1, -1, 1)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_each_term_has_a_function_a_formula_and_a_description() -> None:
    assert list(TERMS) == list(Loss.formulas())
    for name, formula in Loss.formulas().items():
        assert formula
        assert Loss.model_fields[name].description
    assert Loss(bce=0, dice=0.5).weights() == {"dice": 0.5}


def test_dice_of_two_empty_masks_is_0() -> None:
    loss = dice(torch.full((1, 1, 4, 4), -80.0), torch.zeros(1, 1, 4, 4), PLAIN)
    assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_a_soft_target_is_its_own_best_prediction(name: str) -> None:
    torch.manual_seed(0)
    target = torch.rand(2, 1, 6, 6).clamp(0.05, 0.95)
    best = TERMS[name](target.logit(), target, PLAIN)
    for change in (-0.5, -0.1, 0.1, 0.5):
        assert best < TERMS[name](target.logit() + change, target, PLAIN)


def test_against_the_plain_formulas() -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(3, 1, 5, 7).double(), torch.rand(3, 1, 5, 7).double()
    p = 1 / (1 + torch.exp(-logits))
    plain_bce = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    plain_dice = sum(
        1 - (2 * (p[n] * target[n]).sum() + 1) / ((p[n] ** 2).sum() + (target[n] ** 2).sum() + 1) for n in range(3)
    )
    assert bce(logits, target, PLAIN).item() == pytest.approx(plain_bce.item(), rel=1e-9)
    assert dice(logits, target, PLAIN).item() == pytest.approx(plain_dice.item() / 3, rel=1e-9)
    both = segmentation_loss(Loss(bce=0.7, dice=0.2), logits, target)
    assert both.item() == pytest.approx((0.7 * plain_bce + 0.2 * plain_dice / 3).item(), rel=1e-6)


def test_a_soft_pixel_is_outline_and_the_border_of_the_image_is_not() -> None:
    """One pixel is 1/3 car: all 3 x 3 windows that contain it have two different values."""
    target = torch.zeros(1, 1, 4, 5)
    target[0, 0, 1, 3] = 1 / 3
    near, far = [1, 1, 2, 2, 2], [1, 1, 1, 1, 1]
    assert boundary_weights(target, 2.0, 3).squeeze().tolist() == [near, near, near, far]
    assert boundary_weights(torch.ones(1, 1, 4, 5), 2.0, 3).unique().tolist() == [1]


@pytest.mark.parametrize("width", [3, 5, 9, 41])
def test_boundary_weights_against_the_definition(width: int) -> None:
    torch.manual_seed(4)
    image = (torch.rand(13, 21) > 0.98).float() * torch.rand(13, 21)
    weights = boundary_weights(image[None, None], 3.0, width)[0, 0]
    radius = width // 2
    for row in range(13):
        for place in range(21):
            window = image[max(0, row - radius) : row + radius + 1, max(0, place - radius) : place + radius + 1]
            assert weights[row, place] == (3 if window.max() > window.min() else 1)


def test_weighted_bce_by_hand() -> None:
    """Two images. In the first, pixels 2 to 4 are within 1 of the outline and weigh 3; the second has no outline."""
    probabilities = [0.1, 0.2, 0.7, 0.9, 0.6]
    logits = torch.cat([column(*map(logit, probabilities)), torch.zeros(1, 1, 5, 1)])
    target = torch.cat([column(0, 0, 0, 1, 1), torch.zeros(1, 1, 5, 1)])
    losses = [-math.log(p) for p in (0.9, 0.8, 0.3, 0.9, 0.6)]
    weighted = (losses[0] + losses[1] + 3 * losses[2] + 3 * losses[3] + losses[4]) / 9
    loss = segmentation_loss(Loss(boundary=3, boundary_width=3), logits, target)
    assert loss.item() == pytest.approx((weighted + math.log(2)) / 2, rel=1e-6)


def test_a_term_with_weight_0_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TERMS, "dice", lambda *_: pytest.fail("computed"))
    logits, target = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert segmentation_loss(Loss(bce=2, dice=0), logits, target).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("terms", [{"bce": 1, "dice": 1}, {"bce": 1, "boundary": 3, "boundary_width": 3}])
def test_hard_targets_are_rounded_for_every_term(terms: dict[str, float]) -> None:
    """A target of one half becomes 1; level 127 of 255 becomes 0."""
    logits = column(0.3, -1.0, 2.0, 0.7, -0.2)
    soft, hard = column(1.0, 128 / 255, 0.5, 127 / 255, 0.0), column(1.0, 1.0, 1.0, 0.0, 0.0)
    expected = segmentation_loss(Loss(**terms), logits, hard).item()
    assert segmentation_loss(Loss(**terms, targets="hard"), logits, soft).item() == expected
    assert segmentation_loss(Loss(**terms), logits, soft).item() != pytest.approx(expected, rel=1e-3)


class Half(nn.Module):
    """Predicts 0.5 everywhere, so the gradient of its bias is the mean of 0.5 - target."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(1, keepdim=True, dtype=torch.float) * 0 + self.bias


@pytest.mark.parametrize(
    ("targets", "expected"), [("soft", [1, 200 / 255, 128 / 255, 127 / 255]), ("hard", [1, 1, 1, 0])]
)
def test_a_batch_of_bytes_becomes_targets_from_0_to_1(targets: str, expected: list[float]) -> None:
    network, target = Half(), torch.tensor([[[255, 200, 128, 127]]], dtype=torch.uint8)
    image = torch.full((1, 1, 4, 3), 255, dtype=torch.uint8)
    batch_loss(network, image, target, Loss.model_validate({"targets": targets}), "fp32").backward()
    assert network.bias.grad is not None
    assert network.bias.grad.item() == pytest.approx(0.5 - sum(expected) / 4, abs=1e-6)


@pytest.mark.parametrize("boundary", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_is_float32(dtype: torch.dtype, boundary: float) -> None:
    torch.manual_seed(2)
    logits, target = torch.randn(2, 1, 64, 64).mul(5).to(dtype), torch.rand(2, 1, 64, 64)
    target[..., 9:] = 0
    settings = Loss(bce=1, dice=1, boundary=boundary, boundary_width=5)
    expected = segmentation_loss(settings, logits.float(), target)
    with torch.autocast("cpu", dtype):
        loss = segmentation_loss(settings, logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()


@pytest.mark.parametrize("settings", [Loss(bce=0, dice=1), Loss(bce=1, dice=1), Loss(bce=1, boundary=3)])
def test_the_gradient_is_finite_for_extreme_logits(settings: Loss) -> None:
    logits = column(100.0, -100.0, 100.0, -100.0).requires_grad_()
    loss = segmentation_loss(settings, logits, column(0.0, 1.0, 1.0, 0.0))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if settings.bce:
        assert logits.grad.flatten()[:2].tolist() == pytest.approx([0.25, -0.25], abs=0.01)
