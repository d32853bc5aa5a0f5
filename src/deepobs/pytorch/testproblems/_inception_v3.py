"""Inception v3 (Szegedy et al., arXiv:1512.00567), the variant of the older slim reference.

Names in brackets are the blocks' TensorFlow scopes. ``1x7`` means kernel height 1, width 7.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from deepobs.pytorch.testproblems._layers import (
    Conv2d,
    Dense,
    Dropout,
    Padding,
    batch_norm,
    numbered,
)
from deepobs.pytorch.tf_ops import avg_pool2d, max_pool2d, resize_bilinear

EPSILON, MOMENTUM = 1e-3, 0.9997
#: (filters, kernel, stride, padding)
Spec = tuple[int, int | tuple[int, int], int, Padding]


def _s(
    filters: int, kernel: int | tuple[int, int], stride: int = 1, padding: Padding = "SAME"
) -> Spec:
    return filters, kernel, stride, padding


class Branch(nn.Module):
    """A chain of convolution, batch normalisation, ReLU; the last ``fork`` layers are parallel.

    Args:
        n_in: channels that come in.
        specs: one (filters, kernel, stride, padding) per layer.
        pool: ``"avg"`` puts an average pool of 3 in front.
        fork: 2 makes the last two layers read the same input and concatenates their outputs.
    """

    def __init__(self, n_in: int, *specs: Spec, pool: str | None = None, fork: int = 1) -> None:
        super().__init__()
        self.pool, self.length, self.fork = pool, len(specs), fork
        for i, (filters, kernel, stride, padding) in enumerate(specs):
            conv = Conv2d(n_in, filters, kernel, stride=stride, padding=padding, bias=None)
            norm = batch_norm(filters, momentum=MOMENTUM, eps=EPSILON)
            self.add_module(numbered("conv2d", i), conv)
            self.add_module(numbered("batch_normalization", i), norm)
            if i < len(specs) - fork:
                n_in = filters
        self.n_out = sum(spec[0] for spec in specs[-fork:])

    def layer(self, i: int, x: Tensor) -> Tensor:
        """Apply the ``i``-th convolution, normalisation and ReLU."""
        h = self.get_submodule(numbered("conv2d", i))(x)
        return relu(self.get_submodule(numbered("batch_normalization", i))(h))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_out, H', W')."""
        if self.pool == "avg":
            x = avg_pool2d(x, 3, 1)
        for i in range(self.length - self.fork):
            x = self.layer(i, x)
        ends = [self.layer(i, x) for i in range(self.length - self.fork, self.length)]
        return torch.cat(ends, 1) if len(ends) > 1 else ends[0]


class Block(nn.Module):
    """Parallel branches, concatenated in order; ``pooled`` puts a max pool 3/2 VALID first."""

    def __init__(self, *branches: Branch, pooled: int = 0) -> None:
        super().__init__()
        self.pooled = bool(pooled)
        self.names = [f"branch{i + self.pooled}" for i in range(len(branches))]
        for name, branch in zip(self.names, branches, strict=True):
            self.add_module(name, branch)
        self.n_out = pooled + sum(branch.n_out for branch in branches)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_out, H', W')."""
        parts = [max_pool2d(x, 3, 2, "VALID")] if self.pooled else []
        return torch.cat([*parts, *(self.get_submodule(name)(x) for name in self.names)], 1)


def _block5(n: int, p: int) -> Block:
    return Block(
        Branch(n, _s(64, 1)),
        Branch(n, _s(p, 1), pool="avg"),
        Branch(n, _s(48, 1), _s(64, 5)),
        Branch(n, _s(64, 1), _s(96, 3), _s(96, 3)),
    )


def _block10(n: int) -> Block:
    return Block(
        Branch(n, _s(384, 3, 2, "VALID")),
        Branch(n, _s(64, 1), _s(96, 3), _s(96, 3, 2, "VALID")),
        pooled=n,
    )


def _block6(n: int, c: int) -> Block:
    wide, tall = (1, 7), (7, 1)
    return Block(
        Branch(n, _s(192, 1)),
        Branch(n, _s(192, 1), pool="avg"),
        Branch(n, _s(c, 1), _s(c, wide), _s(192, tall)),
        Branch(n, _s(c, 1), _s(c, tall), _s(c, wide), _s(c, tall), _s(192, wide)),
    )


def _block_d(n: int) -> Block:
    return Block(
        Branch(n, _s(192, 1), _s(192, (1, 7)), _s(192, (7, 1)), _s(192, 3, 2, "VALID")),
        Branch(n, _s(192, 1), _s(320, 3, 2, "VALID")),
        pooled=n,
    )


def _block7(n: int) -> Block:
    wide, tall = (1, 3), (3, 1)
    return Block(
        Branch(n, _s(320, 1)),
        Branch(n, _s(384, 1), _s(384, wide), _s(384, tall), fork=2),
        Branch(n, _s(448, 1), _s(384, 3), _s(384, wide), _s(384, tall), fork=2),
        Branch(n, _s(192, 1), pool="avg"),
    )


class Stem(Branch):
    """299x299 colour images → 35x35 with 192 channels."""

    def __init__(self) -> None:
        super().__init__(
            3,
            _s(32, 3, 2, "VALID"),
            _s(32, 3, 1, "VALID"),
            _s(64, 3),
            _s(80, 1, 1, "VALID"),
            _s(192, 3, 1, "VALID"),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 192, 35, 35)."""
        x = self.layer(2, self.layer(1, self.layer(0, x)))
        x = self.layer(4, self.layer(3, max_pool2d(x, 3, 2, "VALID")))
        return max_pool2d(x, 3, 2, "VALID")


class AuxHead(Branch):
    """The auxiliary classifier on the 17x17 maps."""

    def __init__(self, n_in: int, num_outputs: int) -> None:
        super().__init__(n_in, _s(128, 1), _s(768, 5, 1, "VALID"))
        self.dense = Dense(768, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs)."""
        h = super().forward(avg_pool2d(x, 5, 3, "VALID"))  # (B, 768, 1, 1)
        return self.dense(h.flatten(1))


class _Output(nn.Module):
    def __init__(self, n_in: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout) if dropout else None
        self.dense = Dense(n_in, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = avg_pool2d(x, 8, 1, "VALID").flatten(1)
        return self.dense(h if self.dropout is None else self.dropout(h))


class InceptionV3(nn.Module):
    """Inception v3 with its auxiliary head.

    Args:
        num_outputs: classes, 1001 for ImageNet with background.
        dropout: share dropped before the last layer. The reference never applies its 0.8, since it
            passes the phase at the wrong place; 0 reproduces that.
    """

    def __init__(self, num_outputs: int = 1001, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = Stem()
        blocks = {
            "inception_block5a": _block5(192, 32),
            "inception_block5b_0": _block5(256, 64),
            "inception_block5b_1": _block5(288, 64),
            "inception_block10": _block10(288),
            "inception_block6a": _block6(768, 128),
            "inception_block6b_0": _block6(768, 160),
            "inception_block6b_1": _block6(768, 160),
            "inception_block6c": _block6(768, 192),
        }
        for name, block in blocks.items():
            self.add_module(name, block)
        self.aux_head = AuxHead(768, num_outputs)
        self.inception_blockD = _block_d(768)
        self.inception_block7_0 = _block7(1280)
        self.inception_block7_1 = _block7(2048)
        self.output = _Output(2048, num_outputs, dropout)
        self._trunk = list(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logits, auxiliary logits), (B, num_outputs) each, of images (B, 3, H, W)."""
        h = self.stem(resize_bilinear(x, 299, 299))
        for name in self._trunk:
            h = self.get_submodule(name)(h)
        aux = self.aux_head(h)
        h = self.inception_block7_0(self.inception_blockD(h))
        return self.output(self.inception_block7_1(h)), aux
