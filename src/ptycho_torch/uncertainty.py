"""How far to trust each pixel: the spread of repeated reconstructions.

Each repetition draws other neighbours (groups of several frames) and resamples the counts of
every frame, k* ~ Poisson(k): a parametric bootstrap of the measurement. The map is the standard
deviation of the complex object over the repetitions, per pixel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ptycho_torch.inference import Reconstruction, reconstruct
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.raw_data import RawDataTorch


def resampled(scan: RawDataTorch, seed: int) -> RawDataTorch:
    """The scan with every count drawn again from a Poisson law around it."""
    rng = np.random.default_rng([seed, 17])
    counts = np.square(np.asarray(scan.diff3d, dtype=np.float64))
    return replace(scan, diff3d=np.sqrt(rng.poisson(counts)).astype(np.float32))


def reconstruct_with_spread(
    model: PtychoPINN_Lightning,
    scan: RawDataTorch,
    repetitions: int,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Reconstruction:
    """The plain reconstruction with ``spread``, the standard deviation over repetitions.

    Raises:
        ValueError: fewer than two repetitions.
    """
    if repetitions < 2:
        raise ValueError(f"--uncertainty: {repetitions} repetitions; give 2 or more")
    found = reconstruct(model, scan, seed=seed, device=device)
    total = np.zeros(found.object.shape, np.complex128)
    square = np.zeros(found.object.shape)
    for k in range(repetitions):
        drawn = reconstruct(
            model, resampled(scan, seed + k), grid=found.grid, seed=seed + k, device=device
        )
        total += drawn.object
        square += np.abs(drawn.object) ** 2
    mean = total / repetitions
    variance = np.maximum(square / repetitions - np.abs(mean) ** 2, 0)
    variance = variance * repetitions / (repetitions - 1)
    found.spread = np.sqrt(variance).astype(np.float32)
    return found
