"""CXI files (HDF5): frames, mask, geometry and positions of a far-field scan.

A far-field model needs frames that hold the beam: the beam must be wider than the scan step, or
neighbouring frames share nothing, and narrower than wavelength·z/(2·detector pixel), or its
diffraction is undersampled. Their quotient, the Fresnel number of one step seen through one
detector pixel, F = step·pixel/(wavelength·z), must therefore stay below 1/2; near-field
recordings exceed it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.raw_data import RawDataTorch
from trainrig.files import reading

PLANCK_J_S, LIGHT_M_S = 6.62607015e-34, 2.99792458e8
LIMIT = 0.5


def fresnel_number(step_m: float, pixel_m: float, wavelength_m: float, distance_m: float) -> float:
    """step·pixel/(wavelength·z)."""
    return step_m * pixel_m / (wavelength_m * distance_m)


def typical_step(positions: np.ndarray) -> float:
    """Median distance of (n, 2) positions to their nearest neighbour."""
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(positions).query(positions, k=2)[0][:, 1]))


def _scalar(file: Any, names: tuple[str, ...], where: str) -> float:
    for name in names:
        if name in file:
            return float(np.asarray(file[name][()]).ravel()[0])
    raise KeyError(f"{where}: missing {names[0]}; give a CXI file with its geometry")


def read_cxi(path: str | Path, probe: np.ndarray | None = None) -> RawDataTorch:
    """A far-field CXI scan; positions become object pixels, the smallest at N/2.

    Args:
        path: the file.
        probe: (N, N) or (m, N, N) start probe in photon units; by default the inverse transform
            of the mean frame's amplitude with flat phase.

    Raises:
        ValueError: the geometry is near field, with its Fresnel number.
        KeyError: frames, positions or geometry are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a CXI file")
    with reading(path, "CXI file"):
        return _read_cxi(path, probe)


def _read_cxi(path: Path, probe: np.ndarray | None) -> RawDataTorch:
    import h5py

    with h5py.File(path, "r") as file:
        entry = "entry_1"
        detector = f"{entry}/instrument_1/detector_1"
        source = f"{entry}/instrument_1/source_1"
        for name in (f"{detector}/data", f"{entry}/sample_1/geometry_1/translation"):
            if name not in file:
                raise KeyError(f"{path}: missing {name}; give a CXI ptychography file")
        distance = _scalar(file, (f"{detector}/distance",), str(path))
        pixel = _scalar(file, (f"{detector}/x_pixel_size",), str(path))
        energy = _scalar(file, (f"{source}/energy",), str(path))
        move = np.asarray(file[f"{entry}/sample_1/geometry_1/translation"][()], float)[:, :2]
        wavelength = PLANCK_J_S * LIGHT_M_S / energy
        number = fresnel_number(typical_step(move), pixel, wavelength, distance)
        if number > LIMIT:
            raise ValueError(
                f"{path}: near field, Fresnel number step·pixel/(wavelength·z) = {number:.2f}; the "
                f"far-field model accepts at most {LIMIT}: use a near-field program"
            )
        frames = np.asarray(file[f"{detector}/data"][()])
        bad = None
        if f"{detector}/mask" in file:
            bad = np.asarray(file[f"{detector}/mask"][()]) != 0
    object_pixel = wavelength * distance / (frames.shape[-1] * pixel)
    return _scan(frames, bad, -move / object_pixel, probe, path)


def _scan(
    frames: np.ndarray,
    bad: np.ndarray | None,
    pixels: np.ndarray,
    probe: np.ndarray | None,
    path: Path,
) -> RawDataTorch:
    size = frames.shape[-1]
    frames = np.clip(frames, 0, None)
    if bad is not None:
        frames = np.where(bad, 0, frames)
    if probe is None:
        amplitude = np.sqrt(frames.mean(0, dtype=np.float64))
        probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(amplitude), norm="ortho"))
    pixels = pixels - pixels.min(0) + size / 2
    arrays = {
        "xcoords": pixels[:, 0],
        "ycoords": pixels[:, 1],
        "diff3d": frames,
        "probeGuess": np.asarray(probe, np.complex64),
        "measurement_domain": np.array("counts"),
    }
    if bad is not None:
        arrays["bad_pixels"] = bad
    return RawDataTorch.from_arrays(arrays, str(path))
