"""The scales of the method, kept apart: input normalisation, photon scale, probe norm.

Let X' be stored amplitudes and E the mean over frames of Σ X'². ``input_factor`` brings the
energy of an average frame to (N/2)², that of a unit object filling the central window;
``intensity_scale`` turns normalised amplitudes into photon amplitudes; ``probe_norm`` brings the
probe to the network's units. ``nphotons`` is never applied to stored data.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.physics.forward import hard_mask, soft_mask


def mean_frame_energy(frames: np.ndarray) -> float:
    """Mean over (n, N, N) stored amplitudes of Σ X'², in float64, 32 MiB at a time."""
    total, chunk = 0.0, max(1, 2**22 // (frames.shape[1] * frames.shape[2]))
    for start in range(0, len(frames), chunk):
        block = np.asarray(frames[start : start + chunk], dtype=np.float64)
        total += float(np.square(block).sum())
    return total / max(len(frames), 1)


def input_factor(energy: float, size: int) -> float:
    """sqrt((N/2)²/E): multiplies stored amplitudes.

    Raises:
        ValueError: the energy is zero, so nothing reached the detector.
    """
    if not energy > 0:
        raise ValueError(f"input_factor: mean frame energy is {energy}; frames must hold photons")
    return math.sqrt((size / 2) ** 2 / energy)


def intensity_scale(nphotons: float, size: int) -> float:
    """sqrt(nphotons)/(N/2): photon amplitude per unit of normalised amplitude."""
    return math.sqrt(nphotons) / (size / 2)


def mask_for(size: int, kind: str, sigma: float = 1.0, diameter: float | None = None) -> Tensor:
    """The probe mask of that kind (``hard``, ``soft`` or ``none``): (N, N) float64."""
    if kind == "none":
        return torch.ones(size, size, dtype=torch.float64)
    return hard_mask(size).double() if kind == "hard" else soft_mask(size, sigma, diameter)


def probe_norm(probe: Tensor, probe_scale: float = 4.0, kind: str = "hard") -> float:
    """probe_scale·mean(|mask·P|) over all N² pixels of the modes' summed magnitude.

    The hard disk is used by default even when the exit wave is not masked, as the reference does;
    with several modes |P| is the square root of the summed intensities.
    """
    modes = probe.reshape(-1, *probe.shape[-2:]).to(torch.complex128)
    magnitude = modes.abs().square().sum(0).sqrt()
    mask = mask_for(probe.shape[-1], kind).to(magnitude.device)
    norm = probe_scale * float((mask * magnitude).mean())
    if not norm > 0:
        raise ValueError("probe_norm: the probe is zero inside the mask; give a probe with power")
    return norm
