"""What ``convert_ptycho.py`` writes besides the scan: a known object for Ptychodus."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho_torch.scan.npz_format import file_kind, read_arrays
from ptycho_torch.study.evaluate import read_reconstruction


def read_known_object(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """An object (H, W) and the coordinate (x, y) of its pixel [0, 0].

    Args:
        path: a reconstruction (NPZ or Ptychodus's product), or a scan whose ``objectGuess`` is
            known.

    Raises:
        KeyError: the file holds no object.
    """
    arrays = {} if file_kind(path) == "HDF5" else read_arrays(path)
    if "objectGuess" in arrays:
        obj = arrays["objectGuess"]
        return obj.reshape(-1, *obj.shape[-2:])[0].astype(np.complex64), (0.0, 0.0)
    obj, grid = read_reconstruction(path)
    return obj, (grid.x0, grid.y0)
