"""The physics-informed model: generator, merge, illumination, diffraction, and its loss.

Legend: B batch, C = gridsize² frames per group, N frame side, m probe modes. Inputs are
normalised amplitudes X (mean frame energy (N/2)²). The network sees s·X/e^w and predicts
amplitudes times e^w, with one registered parameter w for both directions, initialised log s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ptycho_torch.config.canonical import ModelConfig
from ptycho_torch.network.assembly import extract_group, fitting_canvas, merge_group
from ptycho_torch.network.generator import Generator
from ptycho_torch.physics import forward as physics
from ptycho_torch.physics.scaling import mask_for

DARK = 1e-6  # an amplitude whose square still has a float32 reciprocal


class PtychoPINN(nn.Module):
    """Diffraction amplitudes to object patches, and back to diffraction amplitudes.

    Args:
        config: network and physics switches; validated here.
        probe: (m, N, N) complex64 in the network's units (see ``scaling.probe_norm``).
        intensity_scale: s, photon amplitude per unit of normalised amplitude.
        train_scale: whether w is trained.
        train_probe: whether the probe is trained.
    """

    def __init__(
        self,
        config: ModelConfig,
        probe: Tensor,
        intensity_scale: float,
        *,
        train_scale: bool = False,
        train_probe: bool = False,
    ) -> None:
        super().__init__()
        config.validate()
        if probe.dim() != 3 or probe.shape[-2:] != (config.N, config.N):
            raise ValueError(
                f"PtychoPINN: probe of shape {tuple(probe.shape)}; give (modes, {config.N}, "
                f"{config.N})"
            )
        self.config = config
        self.generator = Generator(
            config.N,
            config.gridsize,
            config.n_filters_scale,
            amp_activation=config.amp_activation,
            object_big=config.object_big,
            pad_object=config.pad_object,
            probe_big=config.probe_big,
        )
        self.generator.to(memory_format=torch.channels_last)  # twice as fast on a CPU
        scale = torch.tensor(math.log(intensity_scale), dtype=torch.float32)
        self.log_scale = nn.Parameter(scale, requires_grad=train_scale)
        parts = torch.view_as_real(probe.to(torch.complex64).resolve_conj()).clone()
        self.probe_parts = nn.Parameter(parts, requires_grad=train_probe)
        kind = "soft" if config.probe_mask else "none"
        mask = mask_for(config.N, kind, config.probe_mask_sigma, config.probe_mask_diameter)
        self.mask: Tensor
        self.register_buffer("mask", mask.float(), persistent=False)

    @property
    def probe(self) -> Tensor:
        """(m, N, N) complex64."""
        return torch.view_as_complex(self.probe_parts)

    def patches(self, x: Tensor) -> Tensor:
        """Scaled amplitudes s·X (B, C, N, N) → raw object patches (B, n, N, N).

        With gridsize 1 there may be any number of frames per group; each passes alone.
        """
        return self._generate(self.generator, x)

    def centres(self, x: Tensor) -> Tensor:
        """The central (B, n, N/2, N/2) of ``patches``, all that a stitching of them reads."""
        return self._generate(self.generator.centre, x)

    def _generate(self, generator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x * torch.exp(-self.log_scale)
        groups = x.shape[:2]
        if self.config.gridsize == 1:
            x = x.flatten(0, 1)[:, None]
        patches = generator(x.contiguous(memory_format=torch.channels_last))
        return patches.unflatten(0, groups)[:, :, 0] if self.config.gridsize == 1 else patches

    def consistent(self, patches: Tensor, relative: Tensor) -> Tensor:
        """Patches (B, C, N, N) that agree where they overlap: merged and cut again.

        A single frame per group is returned as it is; without ``object_big`` one patch serves
        the whole group. Frames that passed the network alone (gridsize 1) are merged with the
        illumination as weight, as the stitching of the whole scan does.
        """
        count = relative.shape[1]
        if not self.config.object_big:
            return patches.expand(-1, count, -1, -1)
        if count == 1:
            return patches
        weight = None
        if self.config.gridsize == 1:
            weight = self.probe.detach().abs().square().sum(0)
            weight = weight / weight.max()
        canvas = merge_group(
            patches, relative, fitting_canvas(self.config.N, relative), weight=weight
        )
        return extract_group(canvas, relative, self.config.N)

    def diffract(self, patches: Tensor) -> Tensor:
        """Object patches (B, C, N, N) → photon amplitudes e^w·A (B, C, N, N)."""
        mask = self.mask if self.config.probe_mask else None
        sigma = self.config.gaussian_smoothing_sigma
        waves = physics.illuminate(patches, self.probe, sigma=sigma, mask=mask)
        return physics.diffract(waves) * torch.exp(self.log_scale)

    def forward(self, x: Tensor, relative: Tensor) -> Tensor:
        """Predicted photon amplitudes.

        Args:
            x: (B, C, N, N) photon amplitudes s·X.
            relative: (B, C, 2) coordinates relative to the group's centre, sign as in
                ``grouping``.

        Returns:
            (B, C, N, N)
        """
        return self.diffract(self.consistent(self.patches(x), relative))

    def forward_predict(
        self, x: Tensor, positions: Tensor, probe: Any = None, input_scale: Tensor | float = 1.0
    ) -> Tensor:
        """Object patches for inference, without the physics.

        Args:
            x: (B, C, N, N) stored amplitudes.
            positions: (B, C, 1, 2); unused by the generator, kept for callers.
            probe: unused, kept for callers.
            input_scale: factor from stored amplitudes to s·X.

        Returns:
            (B, C, N, N) complex64
        """
        patches = self.patches(x * input_scale)
        return patches.expand(-1, x.shape[1], -1, -1)


def pinn_loss(predicted: Tensor, measured: Tensor, mode: str, bad: Tensor | None = None) -> Tensor:
    """Mean Poisson likelihood of squared amplitudes, or mean absolute or squared amplitude error.

    The square root of a count has the same variance at any rate, so the squared amplitude error
    ``mse`` is the likelihood's Gaussian form, without its steep gradients at faint pixels.

    Args:
        predicted: (B, C, N, N) photon amplitudes.
        measured: the same, of the frames.
        mode: ``poisson``, ``mae`` or ``mse``.
        bad: (B, C, N, N) bool, pixels that the mean leaves out.
    """
    if mode == "mae":
        terms = physics.amplitude_mae(predicted, measured)
    elif mode == "mse":
        terms = (predicted - measured).square()
    else:
        terms = physics.poisson_nll(predicted.square(), measured.square())
    if bad is None:
        return terms.mean()
    return terms.masked_fill(bad, 0.0).sum() / (~bad).sum().clamp_min(1)


def supervised_loss(patches: Tensor, labels: Tensor) -> Tensor:
    """2·amplitude + 4·phase mean absolute errors, weighted as the torch reference weighs them.

    Where a patch or its label is dark it has no phase, and the slope of its angle is not finite.
    """
    amplitude = (patches.abs() - labels.abs()).abs().mean()
    turned = patches * labels.conj()
    lit = turned.detach().abs() > DARK
    phase = torch.angle(torch.where(lit, turned, torch.ones_like(turned))).abs().mean()
    return 2 * amplitude + 4 * phase
