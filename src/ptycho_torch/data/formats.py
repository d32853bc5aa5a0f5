"""A scan in any known format, told by its content, as the canonical arrays.

What a format means is said here and in ``hdf5_layouts`` and ``product_files``; what every scan must
satisfy, in ``scan.rules``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho_torch.scan.npz_format import FRAME_KEYS, file_kind, read_arrays
from ptycho_torch.scan.rules import Assumptions, Notes, light_shares
from trainrig.files import reading

MARGIN_PX = 8


def read_scan(
    path: Path,
    notes: Notes,
    assume: Assumptions | None = None,
    *,
    mapped: bool = False,
    view: int | None = None,
) -> dict[str, np.ndarray]:
    """The canonical arrays of a file, or of Ptychodus's folder.

    Args:
        path: NPZ of ours or of tike, also packed; HDF5; a folder with Ptychodus's pair.
        notes: receives what was found and decided.
        assume: what the user says of the file.
        mapped: map the frames of an uncompressed NPZ.
        view: which scan of a file that holds several.

    Raises:
        FileNotFoundError, KeyError, ValueError: no such file, another kind, what is missing.
    """
    assume = assume or Assumptions()
    if path.is_dir():
        from ptycho_torch.data.product_files import pair_arrays

        return pair_arrays(path, notes)
    kind = file_kind(path)
    if kind == "HDF5":
        from ptycho_torch.data.hdf5_layouts import read_hdf5

        return read_hdf5(path, notes, assume)
    if kind == "text" and path.suffix in (".yaml", ".yml"):
        from ptycho_torch.data.raw_stacks import read_stacks

        return read_stacks(path, notes, assume)
    if assume.position_unit not in (None, "px"):
        raise ValueError(
            f"{path}: --assume position_unit={assume.position_unit}: the file gives no object "
            "pixel; divide the positions by wavelength·distance/(N·detector pixel)"
        )
    arrays = _matlab_arrays(path) if kind == "MAT 5" else read_arrays(path, mapped=mapped)
    if "data" in arrays and "scan" in arrays and not any(key in arrays for key in FRAME_KEYS):
        return tike_arrays(arrays, str(path), notes, view)
    if "eigen_probe" in arrays:
        notes.add("doubtful", "the probe varies over the scan (eigen_probe); the mean one is used")
    if view is not None:
        raise ValueError(f"{path}: --view {view}: the file holds one scan")
    if assume.probe == "mean-frame":
        arrays["probe_unit"] = np.array("none")
    return arrays


def _matlab_arrays(path: Path) -> dict[str, np.ndarray]:
    """The variables of a MATLAB 5 file, which keeps vectors as matrices of one row or column."""
    from scipy.io import loadmat

    with reading(path, "MATLAB 5 file"):
        found = loadmat(path)
    arrays = {key: value for key, value in found.items() if not key.startswith("__")}
    for key in ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "scan_index"):
        if key in arrays:
            arrays[key] = arrays[key].ravel()
    return arrays


def tike_arrays(
    arrays: dict[str, np.ndarray], where: str, notes: Notes, view: int | None = None
) -> dict[str, np.ndarray]:
    """``data`` (views, n, N, N) counts, zero frequency mostly at [0, 0], ``scan`` rows and columns.

    ``scan`` holds the corner of each window (row, column) in object pixels, possibly negative;
    canonical positions are the windows' pixel N/2, shifted to start near N/2 + 8.

    Raises:
        KeyError: a key is missing.
        ValueError: several views and none chosen.
    """
    missing = [key for key in ("data", "scan", "probe") if key not in arrays]
    if missing:
        raise KeyError(f"{where}: missing {', '.join(missing)}; this layout has data, scan, probe")
    notes.add("found", "layout of tike: data, scan, probe")
    frames, corners = np.asarray(arrays["data"]), np.asarray(arrays["scan"], np.float64)
    probe = np.asarray(arrays["probe"])
    size = frames.shape[-1]
    views = len(frames) if frames.ndim == 4 else 1
    if view is None and views > 1:
        raise ValueError(
            f"{where}: {views} views, each a scan of its own; choose one by --view 0..{views - 1}"
        )
    if not 0 <= (view or 0) < views:
        raise ValueError(f"{where}: --view {view}: the file holds {views}, numbered from 0")
    if views > 1:
        frames, corners = frames[view or 0], corners[view or 0]
        probe = probe[view or 0] if len(probe) == views else probe[0]
    frames = frames.reshape(-1, *frames.shape[-2:])
    corners = corners.reshape(-1, 2)
    if len(corners) != len(frames):
        raise ValueError(f"{where}: {len(corners)} positions for {len(frames)} frames")
    corners = corners - corners.min(0) + MARGIN_PX
    centre, outside = light_shares(frames.mean(0, dtype=np.float64))
    if outside >= centre:
        frames = np.fft.fftshift(frames, axes=(-2, -1))
    else:
        notes.add("assumed", "zero frequency is in the frames' middle, not at [0, 0] as in tike")
    return {
        "xcoords": corners[:, 1] + size / 2,
        "ycoords": corners[:, 0] + size / 2,
        "diff3d": frames,
        "probeGuess": probe.reshape(-1, size, size).astype(np.complex64),
        "probe_unit": np.array("relative"),
        "measurement_domain": np.array("counts"),
    }
