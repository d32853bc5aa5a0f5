"""Probes of several modes: extended to more modes, and turned into orthogonal ones.

Shapes: m modes of N x N pixels.
"""

from __future__ import annotations

import numpy as np


def orthogonal_modes(probe: np.ndarray, modes: int, power: float = 0.05) -> np.ndarray:
    """Extend a probe to ``modes`` modes: tilted copies, orthogonalised, ``power`` of the first.

    The summed power stays that of the given probe.
    """
    have = list(probe.reshape(-1, *probe.shape[-2:]))
    size = probe.shape[-1]
    axis = (np.arange(size) - size / 2) / size
    tilts = [axis[None, :], axis[:, None], axis[None, :] * axis[:, None]]
    while len(have) < modes:
        order = len(have) - 1
        mode = have[0] * tilts[order % 3] ** (1 + order // 3)
        for other in have:
            mode = mode - other * (np.vdot(other, mode) / np.vdot(other, other))
        energy = np.sqrt(power * (np.abs(have[0]) ** 2).sum() / (np.abs(mode) ** 2).sum())
        have.append(mode * energy)
    out = np.stack(have[:modes])
    scale = np.sqrt((np.abs(probe) ** 2).sum() / (np.abs(out) ** 2).sum())
    return (out * scale).astype(np.complex64)


def orthogonalised(probe: np.ndarray) -> np.ndarray:
    """The same incoherent probe (m, N, N) in orthogonal modes, the strongest first.

    The summed intensity at every detector pixel is invariant under a unitary mix of the modes, so
    the singular vectors describe the same illumination.
    """
    flat = probe.reshape(len(probe), -1)
    _, values, modes = np.linalg.svd(flat, full_matrices=False)
    turned = values[:, None] * modes
    phase = np.exp(-1j * np.angle(np.vdot(flat[0], turned[0])))  # keeps the first mode's phase
    return (turned * phase).reshape(probe.shape).astype(np.complex64)


def mean_frame_probe(intensity: np.ndarray, bad: np.ndarray | None = None) -> np.ndarray:
    """The narrowest probe with this far-field intensity (N, N): flat phase, (N, N) complex64.

    Pixels that are bad, an (N, N) bool, take the intensity of the nearest good one: a dark gap
    would spread over the whole probe.
    """
    if bad is not None and bad.any():
        from scipy.ndimage import distance_transform_edt

        nearest = distance_transform_edt(bad, return_distances=False, return_indices=True)
        intensity = intensity[tuple(nearest)]
    field = np.fft.ifft2(np.fft.ifftshift(np.sqrt(intensity)), norm="ortho")
    return np.fft.fftshift(field).astype(np.complex64)
