"""The optimizer, and the learning rates computed by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from competition.settings.schema import Train
from folds.optimizer import learning_rate, make_optimizer


def test_biases_and_norms_have_no_weight_decay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    decayed, others = make_optimizer(network, Train(weight_decay=0.3)).param_groups
    assert [parameter.ndim for parameter in decayed["params"]] == [4]
    assert [parameter.ndim for parameter in others["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert isinstance(make_optimizer(network, Train(optimizer="sgd")), torch.optim.SGD)


def test_onecycle_by_hand() -> None:
    settings = Train(lr=1.0, schedule="onecycle", warmup=0.1)
    rates = [learning_rate(settings, update, 100) for update in range(100)]
    assert rates[0] == pytest.approx(0.04 + 0.96 * (1 - math.cos(math.pi / 11)) / 2)
    assert rates[10] == max(rates) == 1.0
    assert rates[55] == pytest.approx(0.5), "halfway down the cosine"
    assert rates[99] == pytest.approx((1 + math.cos(math.pi * 89 / 90)) / 2)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_cosine_and_constant_by_hand() -> None:
    cosine = Train(lr=0.2, schedule="cosine", warmup=0.2)
    assert [learning_rate(cosine, update, 10) for update in (0, 1, 2, 6)] == pytest.approx(
        [0.2 / 3, 0.4 / 3, 0.2, 0.1]
    )
    constant = Train(lr=0.2, schedule="constant", warmup=0)
    assert {learning_rate(constant, update, 10) for update in range(10)} == {0.2}


def test_step_by_hand() -> None:
    """Ten updates: 2 of warm-up, then a tenth from the middle and a hundredth from three quarters on."""
    step = Train(lr=0.3, schedule="step", warmup=0.2, milestones=[0.5, 0.75], gamma=0.1)
    assert [learning_rate(step, update, 10) for update in range(10)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.3, 0.3, 0.03, 0.03, 0.03, 0.003, 0.003]
    )
    halved = Train(lr=0.4, schedule="step", warmup=0, milestones=[0.75, 0.25, 0.5], gamma=0.5)
    assert [learning_rate(halved, update, 4) for update in range(4)] == pytest.approx([0.4, 0.2, 0.1, 0.05])


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step", "constant"])
@pytest.mark.parametrize(("warmup", "updates"), [(0, 1), (0.9, 1), (0.5, 2), (0.99, 7)])
def test_short_trainings_have_a_positive_rate(schedule: Any, warmup: float, updates: int) -> None:
    settings = Train(lr=0.3, schedule=schedule, warmup=warmup)
    for update in range(updates):
        assert 0 < learning_rate(settings, update, updates) <= 0.3
