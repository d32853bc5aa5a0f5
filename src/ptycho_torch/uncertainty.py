"""How far to trust each pixel: reconstructions of simulated measurements of the reconstruction.

A parametric bootstrap: the reconstruction is taken for the object, its measurement is simulated
with the same probe, positions and dose, and reconstructed by the same method. How far the results
lie from what was simulated, root mean square per pixel, estimates how far the reconstruction lies
from the true object. It sees noise, unfinished convergence and details that the probe does not
resolve; not a wrong probe, wrong positions, or what the reconstruction itself does not show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ptycho_torch.canvas import Grid
from ptycho_torch.inference import Reconstruction
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.simulate import simulate_frames

Reconstruct = Callable[[RawDataTorch, int, Grid], Reconstruction]


def replica(scan: RawDataTorch, found: Reconstruction, seed: int) -> RawDataTorch:
    """The scan with counts drawn from the reconstruction instead of the true object."""
    place = found.grid.pixels(scan.coords)
    rate = simulate_frames(found.object, scan.probe_modes, place, seed=None)
    counts = np.random.default_rng([seed, 17]).poisson(rate)  # no stream of a simulated scan
    return replace(scan, diff3d=np.sqrt(counts).astype(np.float32))


def expected_error(
    method: Reconstruct,
    scan: RawDataTorch,
    found: Reconstruction,
    repetitions: int,
    *,
    seed: int = 0,
) -> np.ndarray:
    """(H, W) float32 root mean square error of a method on replicas of its reconstruction.

    Args:
        method: called with a scan, a seed and a grid.
        scan: the measurement, with the probe and positions that the reconstruction goes with.
        found: its reconstruction, whose grid and global phase the repetitions take.
        repetitions: how many.
        seed: of the first repetition.

    Raises:
        ValueError: fewer than two repetitions.
    """
    if repetitions < 2:
        raise ValueError(f"--uncertainty: {repetitions} repetitions; give 2 or more")
    square = np.zeros(found.object.shape)
    for k in range(seed, seed + repetitions):
        drawn = method(replica(scan, found, k), k, found.grid).object
        turn = np.vdot(drawn[found.covered], found.object[found.covered])
        square += np.abs(drawn * np.exp(1j * np.angle(turn)) - found.object) ** 2
    return np.sqrt(square / repetitions).astype(np.float32)
