"""A YAML file that describes raw stacks: where frames, positions and mask lie, and the geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.data.far_field import (
    LENGTHS,
    Recorded,
    canonical_arrays,
    energy_ev,
    length_m,
)
from ptycho_torch.scan.npz_format import file_kind
from ptycho_torch.scan.rules import Assumptions, Notes
from trainrig.config import read_yaml
from trainrig.errors import nearest, one_of
from trainrig.files import reading

KEYS = (
    *("frames", "positions", "position_unit", "position_columns", "mask", "dark", "probe"),
    *("domain", "energy_eV", "distance_m", "detector_pixel_m", "object_pixel_m"),
)


def read_stacks(path: Path, notes: Notes, assume: Assumptions) -> dict[str, np.ndarray]:
    """The canonical arrays of the stacks that a YAML file names.

    ``frames`` and ``positions`` are needed; an array is ``file.npy``, ``file.csv``, ``file.tif`` or
    ``file.h5:/path``, relative to the YAML file. Positions are the beam's, one row a frame, along
    columns and rows of the frames (``position_columns: xy``; ``yx`` swaps them).

    Raises:
        KeyError, ValueError: a key that is missing or unknown, an array that cannot be read.
    """
    said = read_yaml(path)
    for key in said:
        if key not in KEYS:
            raise ValueError(
                f"{path}: unknown key {key!r}{nearest(key, KEYS)}; known: {', '.join(KEYS)}"
            )
    missing = [key for key in ("frames", "positions") if key not in said]
    if missing:
        raise KeyError(f"{path}: missing {', '.join(missing)}; known: {', '.join(KEYS)}")
    arrays = {
        key: _array(str(said[key]), path)
        for key in ("frames", "positions", "mask", "dark", "probe")
        if said.get(key) is not None
    }
    notes.add("found", f"raw stacks: {', '.join(f'{k} {v.shape}' for k, v in arrays.items())}")
    positions = arrays["positions"].astype(np.float64)
    if positions.ndim != 2 or 2 not in positions.shape:
        raise ValueError(f"{path}: positions have shape {positions.shape}; give (n, 2)")
    positions = positions if positions.shape[1] == 2 else positions.T
    columns = said.get("position_columns", "xy")
    one_of(f"{path}: position_columns", columns, ("xy", "yx"))
    positions = positions if columns == "xy" else positions[:, ::-1]
    unit = str(said.get("position_unit", "m"))
    one_of(f"{path}: position_unit", unit, ("px", *LENGTHS))
    where = str(path)

    def length(key: str, name: str) -> float | None:
        return None if key not in said else length_m(float(said[key]), None, name, where)

    pixel = length("detector_pixel_m", "detector pixel size")
    own = said.get("object_pixel_m")
    if unit == "px":
        own, unit = 1.0, "m"
    energy = said.get("energy_eV")
    return canonical_arrays(
        Recorded(
            arrays["frames"],
            positions * LENGTHS[unit],
            pixel_m=None if own is None else (float(own), float(own)),
            energy_ev=None if energy is None else energy_ev(float(energy), "eV", where, assume),
            distance_m=length("distance_m", "distance"),
            detector_pixel_m=None if pixel is None else (pixel, pixel),
            bad=arrays.get("mask"),
            dark=arrays.get("dark"),
            probe=arrays.get("probe"),
            domain=said.get("domain"),
        ),
        where,
        notes,
        assume,
    )


def _array(word: str, beside: Path) -> np.ndarray:
    """The array that a word names, relative to the YAML file."""
    name, _, inside = word.partition(":")
    path = beside.parent / name
    kind = file_kind(path)
    with reading(path, "array"):
        if kind == "NPY":
            return np.asarray(np.load(path, allow_pickle=False))
        if kind == "HDF5":
            return _from_hdf5(path, inside)
        if kind == "TIFF":
            from PIL import Image, ImageSequence

            with Image.open(path) as image:
                return np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)])
        if kind == "text":
            return np.loadtxt(path, delimiter="," if "," in path.read_text()[:4096] else None)
        raise ValueError(f"{path}: {kind}; give .npy, .csv, .tif, or .h5:/path")


def _from_hdf5(path: Path, inside: str) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        if inside not in file:
            raise ValueError(f"{path}: no dataset {inside!r}; give file.h5:/path")
        return file[inside][()]
