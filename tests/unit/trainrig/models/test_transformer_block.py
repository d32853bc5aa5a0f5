"""The causal block against a slow one written position by position."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from trainrig.models.transformer import Block, CausalSelfAttention


def slow_attention(layer, x):
    """Attention from its formula, one head and one position at a time."""
    n_heads, width = layer.n_heads, x.shape[-1]
    size = width // n_heads
    q, k, v = layer.query(x), layer.key(x), layer.value(x)
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for h in range(n_heads):
            part = slice(h * size, (h + 1) * size)
            for t in range(x.shape[1]):
                scores = k[b, : t + 1, part] @ q[b, t, part] / math.sqrt(size)
                out[b, t, part] = scores.softmax(0) @ v[b, : t + 1, part]
    return layer.out(out)


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_attention_matches_its_slow_twin(n_heads):
    layer, x = CausalSelfAttention(8, n_heads).double(), torch.randn(2, 5, 8).double()
    assert_close(layer(x), slow_attention(layer, x), rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_query_only_is_the_last_token_of_the_full_path():
    block, x = Block(16, 4).double(), torch.randn(3, 7, 16).double()
    assert_close(block(x, query_only=True), block(x)[:, -1:], rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_no_token_sees_a_later_one():
    block, x = Block(16, 4).double(), torch.randn(1, 6, 16).double()
    changed = x.clone()
    changed[:, 4:] += 1.0
    assert_close(block(x)[:, :4], block(changed)[:, :4], rtol=0, atol=0)
    assert not torch.equal(block(x)[:, 4:], block(changed)[:, 4:])


def test_key_bias_gradient_is_rounding_noise():
    block, x = Block(16, 4), torch.randn(2, 5, 16)
    block(x).square().sum().backward()
    assert block.attention.key.bias.grad.norm() < 1e-5 * block.attention.query.bias.grad.norm()


def test_dropout_acts_in_training_only():
    block, x = Block(16, 4, dropout_prob=0.5), torch.randn(2, 5, 16)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 8 does not split into 3 heads"):
        CausalSelfAttention(8, 3)


def test_training_after_inference_mode():
    block, x = Block(16, 4), torch.randn(2, 11, 16)
    with torch.inference_mode():
        block(x)
    block(x).sum().backward()
    assert block.mlp_in.weight.grad is not None
