"""Haiku's truncated normals: width, truncation, and the correction that only some layers get."""

from __future__ import annotations

import math

import pytest
import torch

from trainrig.models.init import TRUNCATION_STD, dense, fan_in_normal_, table, truncated_normal_


def test_truncated_normal_ends_at_two_scales_and_is_not_rescaled():
    x = truncated_normal_(torch.empty(200_000), 0.5)
    assert x.abs().max() <= 1.0
    assert x.abs().max() > 0.999
    assert x.std().item() == pytest.approx(0.5 * TRUNCATION_STD, rel=0.01)
    assert abs(x.mean().item()) < 0.005


@pytest.mark.parametrize(("corrected", "factor"), [(True, 1.0), (False, TRUNCATION_STD)])
def test_fan_in_correction(corrected, factor):
    x = fan_in_normal_(torch.empty(300, 700), 64, corrected=corrected)
    assert x.std().item() == pytest.approx(factor / math.sqrt(64), rel=0.01)


def test_dense_has_zero_bias_and_its_own_fan_in():
    layer = dense(400, 300, corrected=True)
    assert layer.weight.shape == (300, 400)
    assert layer.weight.std().item() == pytest.approx(1 / 20, rel=0.02)
    assert not layer.bias.any()
    assert dense(4, 3, corrected=False, bias=False).bias is None


def test_table_is_a_parameter_of_the_given_scale():
    rows = table(500, 64, 0.02)
    assert rows.requires_grad
    assert rows.abs().max() <= 0.04


def test_same_seed_same_values():
    torch.manual_seed(5)
    first = dense(8, 8, corrected=True).weight
    torch.manual_seed(5)
    assert torch.equal(first, dense(8, 8, corrected=True).weight)
