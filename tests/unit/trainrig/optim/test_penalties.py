"""The two L2 penalties that enter the loss: values, gradients, zero norms."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from trainrig.optim.penalties import l2_penalty


@pytest.fixture
def arrays():
    values = (torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 2.0], [2.0, 0.0]]), torch.zeros(5))
    return [torch.nn.Parameter(v) for v in values]


def test_sum_squares_has_no_half(arrays):
    penalty = l2_penalty(arrays, "sum_squares", 0.1)
    assert penalty.item() == pytest.approx(0.1 * (25 + 9))
    penalty.backward()
    assert_close(arrays[0].grad, 2 * 0.1 * arrays[0].detach())


def test_sum_norms_takes_one_norm_per_array(arrays):
    penalty = l2_penalty(arrays, "sum_norms", 0.1)
    assert penalty.item() == pytest.approx(0.1 * (5 + 3))
    penalty.backward()
    assert_close(arrays[0].grad, 0.1 * arrays[0].detach() / 5)
    assert_close(arrays[2].grad, torch.zeros(5))  # safe where the norm is zero


def test_decoupled_and_zero_add_nothing(arrays):
    assert l2_penalty(arrays, "decoupled", 0.1).item() == 0.0
    assert l2_penalty(arrays, "sum_norms", 0.0).item() == 0.0


def test_bad_values(arrays):
    with pytest.raises(ValueError, match="unknown value 'sum_square'; did you mean 'sum_squares'"):
        l2_penalty(arrays, "sum_square", 0.1)
    for bad in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="weight_decay"):
            l2_penalty(arrays, "sum_norms", bad)
