"""The pre-LN causal transformer block of the reference.

Legend: B batch, T tokens, D width, H heads, E = D/H.

Query, key and value are three separate layers, as in the reference (a penalty on one norm per
array, or an optimizer for matrices, must see three), multiplied as one: the weights are
concatenated on the way in, which costs the same as storing them fused.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor, nn

from trainrig.models.init import dense

LAYER_NORM_EPS = 1e-5
MLP_RATIO = 4


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention with biases and no dropout on the attention weights.

    Args:
        width: D, a multiple of ``n_heads``.
        n_heads: H; heads are contiguous slices of the width.

    Raises:
        ValueError: ``width`` is not a multiple of ``n_heads``.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        if n_heads < 1 or width % n_heads:
            raise ValueError(
                f"CausalSelfAttention: width {width} does not split into {n_heads} heads; "
                "choose a number of heads that divides it"
            )
        self.n_heads = n_heads
        self.query = dense(width, width, corrected=True)
        self.key = dense(width, width, corrected=True)
        self.value = dense(width, width, corrected=True)
        self.out = dense(width, width, corrected=True)

    def _project(self, x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
        """Apply several layers in one matrix product and split the heads."""
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        merged = F.linear(x, weight, bias)  # (B, T, n·D)
        split = merged.view(*x.shape[:2], len(layers), self.n_heads, -1)
        return split.permute(2, 0, 3, 1, 4).unbind(0)  # n of (B, H, T, E)

    def forward(self, x: Tensor, *, query_only: bool = False) -> Tensor:
        """Attend; (B, T, D) to (B, T, D), or to (B, 1, D) for the last token alone."""
        if query_only:
            (q,) = self._project(x[:, -1:], self.query)  # (B, H, 1, E)
            k, v = self._project(x, self.key, self.value)  # (B, H, T, E)
        else:
            q, k, v = self._project(x, self.query, self.key, self.value)
        # The last token may look at all of them, so a lone query needs no mask.
        mixed = attend(q, k, v, causal=not query_only)  # (B, H, T, E)
        return self.out(mixed.transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Return softmax(q·k / sqrt(E))·v for (B, H, T, E) inputs.

    On CPU, at the few tokens of these sequences, batched products are faster than torch's
    attention kernel; elsewhere that kernel is one launch instead of five.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    n_tokens, size = q.shape[-2:]
    queries, keys, values = (t.reshape(-1, t.shape[-2], size) for t in (q, k, v))
    # A compiler warns of a cache, and needs none: the mask is a constant of its program.
    mask_of = _mask if torch.compiler.is_compiling() else _kept_mask
    mask = mask_of(n_tokens, causal).to(q.dtype)  # (1, T, T) or (1, 1, 1)
    scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=size**-0.5)  # (B·H, T, T)
    return torch.bmm(scores.softmax(dim=-1), values).view_as(q)


def _mask(n_tokens: int, causal: bool) -> Tensor:
    """Return what is added to the scores: -inf above the diagonal, or nothing."""
    if not causal:
        return torch.zeros(1, 1, 1)
    return torch.full((1, n_tokens, n_tokens), float("-inf")).triu(1)


@functools.lru_cache(maxsize=16)
def _kept_mask(n_tokens: int, causal: bool) -> Tensor:
    with torch.inference_mode(False):  # training may use it next
        return _mask(n_tokens, causal)


class Block(nn.Module):
    """``x += attention(LN(x)); x += MLP(LN(x))`` with a tanh-gelu MLP four times as wide.

    Args:
        width: D.
        n_heads: H.
        dropout_prob: dropout on both residual branches, in training only.
    """

    def __init__(self, width: int, n_heads: int, dropout_prob: float = 0.0) -> None:
        super().__init__()
        self.dropout_prob = dropout_prob
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = CausalSelfAttention(width, n_heads)
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp_in = dense(width, MLP_RATIO * width, corrected=True)
        self.mlp_out = dense(MLP_RATIO * width, width, corrected=True)

    def _dropped(self, branch: Tensor) -> Tensor:
        if self.dropout_prob and self.training:
            return F.dropout(branch, self.dropout_prob)
        return branch

    def forward(self, x: Tensor, *, query_only: bool = False) -> Tensor:
        """Map (B, T, D) to (B, T, D), or to (B, 1, D) at the last token alone."""
        attended = self.attention(self.attention_norm(x), query_only=query_only)
        x = (x[:, -1:] if query_only else x) + self._dropped(attended)
        hidden = F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh")  # (B, T, 4D)
        return x + self._dropped(self.mlp_out(hidden))
