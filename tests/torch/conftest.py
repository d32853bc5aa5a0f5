"""Small scans that the ptychography tests share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def toy_arrays():
    """A 7x7 raster over a smooth object, N = 64, as canonical arrays (amplitudes)."""
    rng = np.random.RandomState(3)
    side, step, size = 7, 6.0, 64
    span = np.arange(side) * step + 40
    x, y = (a.ravel() + rng.uniform(-1, 1, side * side) for a in np.meshgrid(span, span))
    grid = np.mgrid[:120, :120] / 120.0
    phase = 0.6 * np.sin(9 * grid[0]) * np.cos(7 * grid[1])
    obj = (0.8 + 0.15 * np.cos(14 * grid[1])) * np.exp(1j * phase)
    axis = np.arange(size) - size / 2
    probe = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 5.0**2)).astype(complex)
    probe *= np.sqrt(1e4 / (np.abs(probe) ** 2).sum())
    frames = []
    for xc, yc in zip(x, y, strict=True):
        i, j = round(yc) - 32, round(xc) - 32
        field = np.fft.fftshift(np.fft.fft2(probe * obj[i : i + 64, j : j + 64])) / size
        frames.append(np.sqrt(rng.poisson(np.abs(field) ** 2)))
    return {
        "xcoords": np.round(x),
        "ycoords": np.round(y),
        "diff3d": np.asarray(frames, dtype=np.float32),
        "probeGuess": probe.astype(np.complex64),
        "objectGuess": obj.astype(np.complex64),
        "scan_index": np.zeros(side * side, dtype=np.int64),
    }


@pytest.fixture
def toy_scan(toy_arrays, tmp_path):
    """The toy scan as a file."""
    path = tmp_path / "toy.npz"
    np.savez(path, **toy_arrays)
    return path
