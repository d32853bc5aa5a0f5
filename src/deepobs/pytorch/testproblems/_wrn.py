"""Wide residual networks (Zagoruyko, Komodakis, arXiv:1605.07146), pre-activation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from deepobs.pytorch.testproblems._layers import Conv2d, Dense, batch_norm

EPSILON, MOMENTUM = 1e-5, 0.9


def _norm(channels: int) -> nn.BatchNorm2d:
    return batch_norm(channels, momentum=MOMENTUM, eps=EPSILON)


class FirstUnit(nn.Module):
    """First unit of a group: the shortcut is a 1x1 convolution taken after normalisation."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.batch_normalization = _norm(n_in)
        self.conv2d = Conv2d(n_in, n_out, 1, stride=stride, bias=None)
        self.conv2d_1 = Conv2d(n_in, n_out, 3, stride=stride, bias=None)
        self.batch_normalization_1 = _norm(n_out)
        self.conv2d_2 = Conv2d(n_out, n_out, 3, bias=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_out, H / stride, W / stride)."""
        h = relu(self.batch_normalization(x))
        residual = relu(self.batch_normalization_1(self.conv2d_1(h)))
        return self.conv2d(h) + self.conv2d_2(residual)


class Unit(nn.Module):
    """Further unit of a group: the shortcut is the input itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.batch_normalization = _norm(width)
        self.conv2d = Conv2d(width, width, 3, bias=None)
        self.batch_normalization_1 = _norm(width)
        self.conv2d_1 = Conv2d(width, width, 3, bias=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        h = self.conv2d(relu(self.batch_normalization(x)))
        return x + self.conv2d_1(relu(self.batch_normalization_1(h)))


class _LastUnit(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.batch_normalization = _norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.batch_normalization(x)).mean((2, 3))  # (B, C, H, W) → (B, C)


class _Head(nn.Module):
    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.dense = Dense(width, num_outputs)

    def forward(self, h: Tensor) -> Tensor:
        return self.dense(h)


class WRN(nn.Module):
    """Three groups of ``num_residual_units`` units with widths 16k, 32k, 64k and strides 1, 2, 2.

    Args:
        num_residual_units: 2 for WRN-16, 6 for WRN-40.
        widening_factor: k, at least 2 (every group's first unit changes the width).
        num_outputs: classes.
    """

    def __init__(self, num_residual_units: int, widening_factor: int, num_outputs: int) -> None:
        super().__init__()
        self.conv2d = Conv2d(3, 16, 3, bias=None)
        width_in, self.units = 16, []
        for group, stride in enumerate((1, 2, 2), start=1):
            width = 16 * widening_factor * 2 ** (group - 1)
            for i in range(num_residual_units):
                unit = Unit(width) if i else FirstUnit(width_in, width, stride)
                self.units.append(f"unit_{group}_{i}")
                self.add_module(self.units[-1], unit)
            width_in = width
        self.unit_last = _LastUnit(width_in)
        self.fully_connected = _Head(width_in, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs) of images (B, 3, 32, 32)."""
        h = self.conv2d(x)
        for name in self.units:
            h = self.get_submodule(name)(h)
        return self.fully_connected(self.unit_last(h))
