"""Other layouts into the canonical NPZ: tike's test files, CXI, Ptychodus's pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.npz_format import read_arrays
from ptycho_torch.study.evaluate import read_reconstruction

MARGIN_PX = 8


def from_tike(arrays: dict[str, np.ndarray], where: str) -> RawDataTorch:
    """``data`` (1, n, N, N) counts with zero frequency at [0, 0], ``scan`` rows and columns.

    ``scan`` holds the corner of each window (row, column) in object pixels, possibly negative;
    canonical positions are the windows' pixel N/2, shifted to start near N/2 + 8. The probe is
    scaled so that its power is the brightest frame's photon count.

    Raises:
        KeyError: a key is missing.
    """
    missing = [key for key in ("data", "scan", "probe") if key not in arrays]
    if missing:
        raise KeyError(f"{where}: missing {', '.join(missing)}; this layout has data, scan, probe")
    frames = np.asarray(arrays["data"])
    frames = np.fft.fftshift(frames.reshape(-1, *frames.shape[-2:]), axes=(-2, -1))
    corners = np.asarray(arrays["scan"], np.float64).reshape(-1, 2)
    size = frames.shape[-1]
    probe = np.asarray(arrays["probe"]).reshape(-1, size, size)
    corners = corners - corners.min(0) + MARGIN_PX
    power = float((np.abs(probe) ** 2).sum())
    photons = float(np.percentile(frames.sum((1, 2)), 99))
    return RawDataTorch.from_arrays(
        {
            "xcoords": corners[:, 1] + size / 2,
            "ycoords": corners[:, 0] + size / 2,
            "diff3d": frames,
            "probeGuess": (probe * np.sqrt(photons / power)).astype(np.complex64),
            "measurement_domain": np.array("counts"),
        },
        where,
    )


def read_known_object(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """An object (H, W) and the coordinate (x, y) of its pixel [0, 0].

    Args:
        path: a reconstruction (NPZ or Ptychodus's product), or a scan whose ``objectGuess`` is
            known.

    Raises:
        KeyError: the file holds no object.
    """
    arrays = {} if path.suffix == ".h5" else read_arrays(path)
    if "objectGuess" in arrays:
        obj = arrays["objectGuess"]
        return obj.reshape(-1, *obj.shape[-2:])[0].astype(np.complex64), (0.0, 0.0)
    obj, grid = read_reconstruction(path)
    return obj, (grid.x0, grid.y0)


def convert(source: Path) -> RawDataTorch:
    """Recognise a layout by what the source is and holds."""
    if source.is_dir():
        from ptycho_torch.data.product_files import read_pair

        return read_pair(source)
    if source.suffix in (".cxi", ".h5"):
        from ptycho_torch.data.cxi import read_cxi

        return read_cxi(source)
    arrays = read_arrays(source)
    if "diff3d" in arrays or "diffraction" in arrays:
        return RawDataTorch.from_arrays(arrays, str(source))
    return from_tike(arrays, str(source))
