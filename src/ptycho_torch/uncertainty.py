"""How far to trust each pixel: the spread of repeated reconstructions.

Each repetition draws other neighbours (groups of several frames), another order of the frames
(iterations) and resamples the counts, k* ~ Poisson(k): a parametric bootstrap of the measurement.
The map is the standard deviation of the complex object over the repetitions, per pixel, after the
global phase of each is brought to that of the plain reconstruction. It knows the noise, and not
what no repetition can see: details beyond the probe's resolution, a wrong probe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ptycho_torch.canvas import Grid
from ptycho_torch.inference import Reconstruction
from ptycho_torch.raw_data import RawDataTorch

Reconstruct = Callable[[RawDataTorch, int, Grid], Reconstruction]


def resampled(scan: RawDataTorch, seed: int) -> RawDataTorch:
    """The scan with every count drawn again from a Poisson law around it."""
    rng = np.random.default_rng([seed, 17])
    counts = np.square(np.asarray(scan.diff3d, dtype=np.float64))
    return replace(scan, diff3d=np.sqrt(rng.poisson(counts)).astype(np.float32))


def spread(
    method: Reconstruct,
    scan: RawDataTorch,
    found: Reconstruction,
    repetitions: int,
    *,
    seed: int = 0,
) -> np.ndarray:
    """(H, W) float32 standard deviation of the object over repetitions of a method.

    Args:
        method: called with a scan, a seed and a grid.
        scan: the measurement.
        found: its plain reconstruction, whose grid and phase the repetitions take.
        repetitions: how many.
        seed: of the first repetition.

    Raises:
        ValueError: fewer than two repetitions.
    """
    if repetitions < 2:
        raise ValueError(f"--uncertainty: {repetitions} repetitions; give 2 or more")
    total = np.zeros(found.object.shape, np.complex128)
    square = np.zeros(found.object.shape)
    for k in range(seed, seed + repetitions):
        drawn = method(resampled(scan, k), k, found.grid).object
        turn = np.vdot(drawn[found.covered], found.object[found.covered])
        drawn = drawn * np.exp(1j * np.angle(turn))
        total += drawn
        square += np.abs(drawn) ** 2
    mean = total / repetitions
    variance = np.maximum(square / repetitions - np.abs(mean) ** 2, 0)
    return np.sqrt(variance * repetitions / (repetitions - 1)).astype(np.float32)
