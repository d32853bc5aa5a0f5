"""The generator: C diffraction amplitudes in, complex object patches out.

Legend: B batch, C input channels, n output channels (C, or 1 without ``object_big``), N frame
side, f filter scale. Encoder stages end in 2x2 max-pooling, decoder stages in nearest x2
upsampling; every hidden convolution is 3x3, "same", ReLU, Glorot-uniform with zero bias.
Source: PtychoPINN, Sci. Rep. 13, 22789 (2023), and its recorded layer tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own spelling

ENCODER_FILTERS = {64: (32, 64, 128), 128: (16, 32, 64, 128), 256: (8, 16, 32, 64, 128)}
DECODER_FILTERS = {64: (64, 32), 128: (128, 64, 32), 256: (256, 128, 64, 32)}
OUTER_CHANNELS = 4  # channels of the last stage that feed the border branch
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
    "softplus": F.softplus,
    "relu": F.relu,
}
#: Where an activation without an upper bound is 1; at a bias of 0 an object starts (almost) opaque.
BIAS_OF_ONE = {"swish": 1.2784645, "softplus": math.log(math.e - 1), "relu": 1.0}


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 "same" convolution with Glorot-uniform kernel and zero bias."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.xavier_uniform_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def scaled_tanh(x: Tensor) -> Tensor:
    """π·tanh: the phase head."""
    return math.pi * torch.tanh(x)


class Encoder(nn.Module):
    """(B, C, N, N) → (B, 128f, N/2^stages, ...)."""

    def __init__(self, size: int, channels: int, scale: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for filters in ENCODER_FILTERS[size]:
            self.convs += [
                conv3(channels, filters * scale),
                conv3(filters * scale, filters * scale),
            ]
            channels = filters * scale

    def forward(self, x: Tensor) -> Tensor:
        """Two convolutions and a pooling per stage."""
        for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
            x = F.max_pool2d(F.relu(second(F.relu(first(x)))), 2)
        return x


class Decoder(nn.Module):
    """One head (amplitude or phase): bottleneck → (B, n, N, N).

    With ``pad_object`` the activation fills the central N/2 tile, and with ``probe_big`` a border
    branch with swish fills the frame around it. Without ``pad_object`` one branch covers NxN.
    """

    def __init__(
        self,
        size: int,
        outputs: int,
        scale: int,
        activation: Callable[[Tensor], Tensor],
        *,
        pad_object: bool = True,
        probe_big: bool = True,
    ) -> None:
        super().__init__()
        self.size, self.activation = size, activation
        self.pad_object, self.probe_big = pad_object, probe_big
        channels = 128 * scale
        self.convs = nn.ModuleList()
        for filters in DECODER_FILTERS[size]:
            self.convs += [
                conv3(channels, filters * scale),
                conv3(filters * scale, filters * scale),
            ]
            channels = filters * scale
        wide = 2048 // size * scale
        inner = channels - OUTER_CHANNELS if pad_object else channels
        self.border_convs = nn.ModuleList()
        self.border_head = None
        if pad_object:
            self.head = conv3(inner, outputs)
            if probe_big:
                self.border_convs += [conv3(OUTER_CHANNELS, wide), conv3(wide, wide)]
                self.border_head = conv3(wide, outputs)
        else:
            self.border_convs += [conv3(channels, wide), conv3(wide, wide)]
            self.head = conv3(wide, outputs)
        border = torch.ones(size, size)
        border[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 0
        self.border: Tensor
        self.register_buffer("border", border, persistent=False)

    def _widen(self, x: Tensor) -> Tensor:
        for conv in self.border_convs:
            x = F.relu(conv(x))
        return F.interpolate(x, scale_factor=2, mode="nearest")

    def _stages(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
            x = F.interpolate(F.relu(second(F.relu(first(x)))), scale_factor=2, mode="nearest")
        return x

    def centre(self, x: Tensor) -> Tensor:
        """The central (B, n, N/2, N/2) alone: the border branch is zero there and is left out."""
        quarter = self.size // 4
        if not self.pad_object:
            return self(x)[..., quarter:-quarter, quarter:-quarter]
        return self.activation(self.head(self._stages(x)[:, :-OUTER_CHANNELS]))

    def forward(self, x: Tensor) -> Tensor:
        """Decode the bottleneck."""
        x = self._stages(x)
        if not self.pad_object:
            return self.activation(self.head(self._widen(x)))
        inner, outer = x[:, :-OUTER_CHANNELS], x[:, -OUTER_CHANNELS:]
        quarter = self.size // 4
        out = F.pad(self.activation(self.head(inner)), (quarter,) * 4)
        if self.border_head is None:
            return out
        return out + F.silu(self.border_head(self._widen(outer))) * self.border


class Generator(nn.Module):
    """The whole generator; ``forward`` returns complex patches a·exp(iφ), (B, n, N, N).

    Raises:
        ValueError: N is not 64, 128 or 256, or the activation is unknown.
    """

    def __init__(
        self,
        size: int = 64,
        gridsize: int = 1,
        scale: int = 2,
        *,
        amp_activation: str = "sigmoid",
        object_big: bool = True,
        pad_object: bool = True,
        probe_big: bool = True,
    ) -> None:
        super().__init__()
        if size not in ENCODER_FILTERS:
            raise ValueError(f"Generator: N = {size} is not built; choose 64, 128 or 256")
        if amp_activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"Generator: unknown amp_activation {amp_activation!r}; use {known}")
        outputs = gridsize**2 if object_big else 1
        self.encoder = Encoder(size, gridsize**2, scale)
        switches = {"pad_object": pad_object, "probe_big": probe_big}
        act = ACTIVATIONS[amp_activation]
        self.amplitude = Decoder(size, outputs, scale, act, **switches)
        self.phase = Decoder(size, outputs, scale, scaled_tanh, **switches)
        if amp_activation in BIAS_OF_ONE:
            self._start_transparent(BIAS_OF_ONE[amp_activation])

    def _start_transparent(self, bias: float) -> None:
        """Start amplitudes near 1: the likelihood is singular where no photon is expected.

        The reference starts at a bias of 0. Its default, the sigmoid, starts at 1/2 then
        and is left so.
        """
        heads = ((self.amplitude.head, bias), (self.amplitude.border_head, BIAS_OF_ONE["swish"]))
        for head, value in heads:
            if head is not None and head.bias is not None:
                nn.init.constant_(head.bias, value)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised amplitudes (B, C, N, N) → complex patches (B, n, N, N)."""
        features = self.encoder(x)
        return _complex(self.amplitude(features), self.phase(features))

    def centre(self, x: Tensor) -> Tensor:
        """The central (B, n, N/2, N/2) of ``forward``'s patches, without the border branches."""
        features = self.encoder(x)
        return _complex(self.amplitude.centre(features), self.phase.centre(features))


def _complex(amplitude: Tensor, phase: Tensor) -> Tensor:
    return torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))
