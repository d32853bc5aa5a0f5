"""Shapes, padding and parameter count of the image encoder."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.testing import assert_close

from trainrig.models.resnet import ResNetEncoder, SameConv, same_max_pool, same_padding


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [
        (105, 7, 2, (3, 3)),
        (53, 3, 2, (1, 1)),
        (14, 3, 2, (0, 1)),
        (28, 7, 2, (2, 3)),
        (2, 1, 2, (0, 0)),
    ],
)
def test_same_padding(size, kernel, stride, pads):
    assert same_padding(size, kernel, stride) == pads


@pytest.mark.parametrize("size", [27, 28, 14, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_conv_gives_ceil_of_size_over_stride(size, stride):
    conv, x = SameConv(2, 3, 3, stride), torch.randn(1, 2, size, size)
    before, after = same_padding(size, 3, stride)
    expected = F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, stride=stride)
    assert expected.shape[-1] == -(-size // stride)
    assert_close(conv(x), expected)


def test_max_pool_pads_with_minus_infinity():
    assert_close(same_max_pool(torch.full((1, 1, 14, 14), -5.0)), torch.full((1, 1, 7, 7), -5.0))


@pytest.mark.parametrize(("size", "channels"), [(105, 1), (28, 1), (28, 3), (20, 1)])
def test_any_size_and_channels_give_tokens(size, channels):
    encoder = ResNetEncoder(64, channels)
    assert encoder(torch.rand(3, channels, size, size)).shape == (3, 64)


def test_parameter_count_is_the_reference_one():
    assert sum(p.numel() for p in ResNetEncoder(64).parameters()) == 22_176


def test_superpixels_need_a_four_by_four_map():
    encoder = ResNetEncoder(64, flatten_superpixels=True)
    assert encoder(torch.rand(2, 1, 105, 105)).shape == (2, 64)
    with pytest.raises(ValueError, match="1x1, not 4x4"):
        encoder(torch.rand(2, 1, 28, 28))


@pytest.mark.parametrize(("width", "flat"), [(30, False), (32, True)])
def test_width_must_fit_the_bottlenecks(width, flat):
    with pytest.raises(ValueError, match=f"width {width} is no multiple of"):
        ResNetEncoder(width, flatten_superpixels=flat)


def test_last_norm_of_every_block_starts_at_zero():
    for group in ResNetEncoder(64).groups:
        for block in group:
            assert not block.norm_2.weight.any()
            assert block.norm_0.weight.all()


@pytest.mark.parametrize("size", [28, 105])
def test_the_memory_format_changes_nothing_but_rounding(size):
    encoder, images = ResNetEncoder(16).double(), torch.rand(6, 1, size, size).double()
    gradients = []
    for channels_last in (False, True):
        encoder.channels_last = channels_last
        encoder.zero_grad()
        out = encoder(images)
        out.square().sum().backward()
        gradients.append([out.detach(), *(p.grad for p in encoder.parameters())])
    for first, second in zip(*gradients, strict=True):
        assert_close(second, first, rtol=1e-9, atol=1e-9)
