"""How far to trust each pixel: reconstructions of simulated measurements of the reconstruction.

A parametric bootstrap: the reconstruction is taken for the object, its measurement is simulated
with the same probe, positions and dose, and reconstructed by the same method. How far the results
lie from what was simulated, root mean square per pixel, estimates how far the reconstruction lies
from the true object. It sees noise, unfinished convergence and details that the probe does not
resolve; not a wrong probe, wrong positions, or what the reconstruction itself does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ptycho_torch.physics.simulate import simulate_frames
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.inference import Reconstruction


def replica(scan: RawDataTorch, found: Reconstruction, seed: int) -> RawDataTorch:
    """The scan with counts drawn from the reconstruction instead of the true object."""
    place = found.grid.pixels(scan.coords)
    rate = simulate_frames(found.object, scan.probe_modes, place, seed=None)
    counts = np.random.default_rng([seed, 17]).poisson(rate)  # no stream of a simulated scan
    bad = scan.bad_of(np.arange(len(scan)))
    if bad is not None:
        counts[bad] = 0  # as the measurement's own bad pixels
    return replace(scan, diff3d=np.sqrt(counts).astype(np.float32))


def expected_error(drawn: Sequence[np.ndarray], found: Reconstruction) -> np.ndarray:
    """(H, W) float32 root mean square error of a method on replicas of its reconstruction.

    Args:
        drawn: its objects on the replicas, (H, W) complex each.
        found: the reconstruction, whose grid they have.
    """
    turned = [with_phase_of(one, found.object, found.covered) for one in drawn]
    square = sum(np.abs(one - found.object) ** 2 for one in turned)
    return np.sqrt(square / len(drawn)).astype(np.float32)


def mean_and_spread(
    objects: Sequence[np.ndarray], covered: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (H, W) complex64 and standard deviation (H, W) float32 of two or more objects.

    The global phase, which no frame knows, is that of the first.
    """
    turned = np.stack([with_phase_of(one, objects[0], covered) for one in objects])
    mean = turned.mean(0)
    square = (np.abs(turned - mean) ** 2).sum(0) / (len(turned) - 1)
    return mean.astype(np.complex64), np.sqrt(square).astype(np.float32)


def with_phase_of(obj: np.ndarray, other: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """An object turned to another's global phase, as the covered pixels tell it."""
    return obj * np.exp(1j * np.angle(np.vdot(obj[covered], other[covered])))
