"""The small convolutional encoder: shapes, what it reads, initial values."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch.testing import assert_close

from trainrig.models.convnet import ConvEncoder


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 105, 105), (1, 20, 31)])
def test_any_size_becomes_one_token(shape):
    encoder = ConvEncoder(24, shape)
    assert encoder(torch.rand(5, *shape)).shape == (5, 24)


def test_it_is_two_convolutions_of_the_ink_and_a_dense_layer():
    encoder = ConvEncoder(8, (1, 28, 28))
    images = torch.rand(3, 1, 28, 28)
    first, second = encoder.convs
    x = F.relu(F.conv2d(1 - images, first.weight, first.bias, stride=4, padding=3))
    assert x.shape == (3, 16, 7, 7)
    x = F.relu(F.conv2d(x, second.weight, second.bias, stride=2, padding=1))
    assert x.shape == (3, 32, 4, 4)
    assert_close(encoder(images), F.linear(x.flatten(1), encoder.dense.weight, encoder.dense.bias))


def test_a_blank_page_is_zero_at_first():
    assert_close(ConvEncoder(8, (1, 28, 28))(torch.ones(1, 1, 28, 28)), torch.zeros(1, 8))


def test_initial_values_have_he_s_variance():
    torch.manual_seed(0)
    encoder = ConvEncoder(256, (1, 28, 28))
    weights = [*(conv.weight for conv in encoder.convs), encoder.dense.weight]
    for weight, fan_in in zip(weights, (49, 144, 512), strict=True):
        n = weight.numel()
        # the standard error of a normal sample's deviation is sd / sqrt(2 n)
        assert float(weight.detach().std()) == pytest.approx(
            math.sqrt(2 / fan_in), rel=4 / math.sqrt(2 * n)
        )
