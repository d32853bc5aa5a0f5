"""Layers with TensorFlow's padding and initialisers; every module is built from these.

A layer's attribute name is its TensorFlow variable scope (``conv2d``, ``conv2d_1``, ``dense``), so
that ``deepobs.pytorch.tf_weights`` needs no table. Legend: B batch, C, H, W channels and sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from deepobs.pytorch import tf_ops as tf
from deepobs.pytorch.testproblems._initialisers import glorot_uniform_
from trainrig.distributed import of_whole_batch, together
from trainrig.models.batchnorm import BatchNorm2d

Initialiser = Callable[[Tensor], Tensor]
Padding = Literal["SAME", "VALID"]
#: A source of dropout masks: shape (B, ...) → 1 keep / 0 drop, for comparisons with recorded runs.
MaskSource = Callable[[torch.Size], Tensor]


def numbered(kind: str, index: int) -> str:
    """Return TensorFlow's name of the ``index``-th layer of a kind: ``conv2d``, ``conv2d_1``."""
    return f"{kind}_{index}" if index else kind


class Conv2d(nn.Conv2d):
    """Convolution over (B, C, H, W) with TensorFlow's padding."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: Padding = "SAME",
        init: Initialiser = glorot_uniform_,
        bias: float | None = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, bias=bias is not None)
        self.tf_padding = padding
        init(self.weight)
        if self.bias is not None and bias is not None:
            nn.init.constant_(self.bias, bias)

    def reset_parameters(self) -> None:
        """Leave PyTorch's own initialisation out: it would only cost time."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H', W')."""
        return tf.conv2d(x, self.weight, self.bias, self.stride[0], self.tf_padding)


class ConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution to ``stride`` times the size, kernels from the uniform initialiser."""

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel, stride)
        glorot_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def reset_parameters(self) -> None:
        """Leave PyTorch's own initialisation out."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override] # one size: stride times x's
        """Return (B, out_channels, stride H, stride W)."""
        return tf.conv_transpose2d(x, self.weight, self.bias, self.stride[0])


class Dense(nn.Linear):
    """Fully connected layer."""

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        init: Initialiser = glorot_uniform_,
        bias: float = 0.0,
    ) -> None:
        super().__init__(in_features, out_features)
        init(self.weight)
        nn.init.constant_(self.bias, bias)

    def reset_parameters(self) -> None:
        """Leave PyTorch's own initialisation out."""


class Dropout(nn.Module):
    """Inverted dropout with rate ``p``; its masks can be prescribed."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.mask_source: MaskSource | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` in evaluation; in training zero a share ``p`` and rescale the rest."""
        if not self.training:
            return x
        if self.mask_source is not None:
            return x * self.mask_source(x.shape).to(x) / (1 - self.p)
        if together():
            return x * of_whole_batch(self._drop, x)
        return self._drop(x)

    def _drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.p, training=True)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"p={self.p}"


def batch_norm(channels: int, *, momentum: float, eps: float) -> BatchNorm2d:
    """Return batch normalisation with TensorFlow's ``momentum`` (PyTorch's is its complement)."""
    return BatchNorm2d(channels, eps=eps, momentum=1 - momentum)


def flatten_nhwc(x: Tensor) -> Tensor:
    """Flatten (B, C, H, W) to (B, H W C), TensorFlow's order."""
    return x.permute(0, 2, 3, 1).flatten(1)
