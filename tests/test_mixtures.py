"""The Dice of mixtures, compared with mixing whole images."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ensemble import CPU, FRAME, Constant

from competition import metrics, rle
from folds.frame import Frame
from inference.cv.mixtures import (
    MOST,
    Mixture,
    component_weights,
    dice_of_mixtures,
    equal,
    grid,
    measured_mixtures,
    one_hot,
)
from inference.engine.ensemble import Ensemble

# Around 0.5, where a pixel changes sides, and at the ends.
LEVEL = st.sampled_from([0, 1, 64, 126, 127, 128, 129, 191, 254, 255])


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], np.ndarray]:
    """Components, mixtures as whole numbers, and the true mask of an image."""
    count, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    pixels = height * width
    levels = draw(st.lists(LEVEL, min_size=count * pixels, max_size=count * pixels))
    parts = st.lists(st.integers(0, 4), min_size=count, max_size=count).filter(any)
    truth = draw(st.lists(st.booleans(), min_size=pixels, max_size=pixels))
    components = np.array(levels, dtype=np.uint8).reshape(count, height, width)
    return components, draw(st.lists(parts, min_size=1, max_size=5)), np.array(truth).reshape(height, width)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(cases())
def test_the_dice_of_a_mixture_is_that_of_the_mixed_image(
    case: tuple[np.ndarray, list[list[int]], np.ndarray],
) -> None:
    """In fractions, because a mean of exactly 127.5 is rounded to 128, which is car."""
    components, parts, truth = case
    weights = np.array([[each / sum(row) for each in row] for row in parts])
    found = dice_of_mixtures(components, weights, rle.from_mask(truth))
    for dice, row in zip(found, parts, strict=True):
        mixed = sum(
            Fraction(part, sum(row)) * levels.astype(object) for part, levels in zip(row, components, strict=True)
        )
        assert dice == metrics.dice(mixed >= Fraction(255, 2), truth)


def test_a_mean_of_half_a_level_is_car_in_spite_of_rounding_errors() -> None:
    components = np.array([127, 127, 127, 128, 128, 128], dtype=np.uint8).reshape(6, 1, 1)
    weights = np.full((1, 6), 1 / 6)
    assert dice_of_mixtures(components, weights, rle.from_mask(np.ones((1, 1)))) == [1.0]


@pytest.mark.parametrize(
    ("members", "count"), [(1, 1), (2, 5), (3, 16), (4, 35), (5, 71), (6, 57), (8, 37), (14, 15)]
)
def test_the_member_weights_to_try(members: int, count: int) -> None:
    tried = grid(members)
    assert len(set(tried)) == len(tried) == count <= MOST + 1
    assert tried[0] == equal(members)
    assert all(sum(weights) == pytest.approx(1) for weights in tried)
    assert {one_hot(member, members) for member in range(members)} <= set(tried)
    distance = [sum((weight - 1 / members) ** 2 for weight in weights) for weights in tried]
    assert distance == pytest.approx(sorted(distance))
    assert set(grid(2)) == {(0.5, 0.5), (0.25, 0.75), (0.75, 0.25), (0.0, 1.0), (1.0, 0.0)}


def test_measured_mixtures() -> None:
    assert measured_mixtures((1.0,), 1, grid(1)) == [], "one member with one TTA has one component"
    tta = [mixture.tta for mixture in measured_mixtures((1.0,), 3, grid(1))]
    assert set(tta) == {(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 0), equal(3)}
    both = measured_mixtures((0.5, 0.5), 2, grid(2))
    assert len(both) == len(set(both)) == len(grid(2)) + 2
    assert Mixture(equal(2), one_hot(1, 2)) in both


def test_weights_follow_the_components_of_ensembles() -> None:
    """The second member has another frame, so its components come after those of the others."""
    first = Ensemble([Constant(0.0)] * 2, FRAME, ["identity", "hflip"], device=CPU, precision="fp32", indices=[0, 2])
    other = Frame(64, 64, "pad")
    second = Ensemble([Constant(0.0)], other, ["identity", "hflip"], device=CPU, precision="fp32", indices=[1])
    rows = component_weights([Mixture((0.5, 0.2, 0.3), (0.25, 0.75))], [first, second])
    assert rows == pytest.approx(np.array([[0.125, 0.075, 0.375, 0.225, 0.05, 0.15]]))


def test_the_mean_is_the_weighted_mean_of_the_components() -> None:
    logits = [-3.0, 0.5, 2.0]
    together = Ensemble(
        [Constant(logit) for logit in logits],
        FRAME,
        ["identity", "hflip"],
        device=CPU,
        precision="fp32",
        member_weights=[1.0, 0.5, 0.25],
    )
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    mean, components, _ = together.predict(images, components=True)
    assert components is not None
    assert components.shape == (2, 6, 32, 32)
    chances = torch.tensor(logits).sigmoid()
    assert components[0, :, 0, 0].tolist() == [*(chances * 255).round().int().tolist()] * 2
    assert torch.allclose(mean, ((chances * torch.tensor([1, 0.5, 0.25])).sum() / 1.75).expand_as(mean))
    assert torch.equal(together.probabilities(images), mean)
