"""Ptychodus's own pair of files: ``diffraction.h5`` and ``product.h5``, read and written.

Only h5py is needed. Positions are metres in the files and object pixels here:
x_px = (x_m - center_x_m)/pixel_width_m + (W - 1)/2, and the same for y.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.data.far_field import FarField
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.rules import Notes
from trainrig.files import reading, replacing

DIFFRACTION, PRODUCT = "diffraction.h5", "product.h5"


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give Ptychodus's batch input folder")
    with reading(path, "file of Ptychodus"), h5py.File(path, "r") as file:
        yield file


@contextlib.contextmanager
def _create(path: Path) -> Iterator[Any]:
    """A new HDF5 file that appears under its name only when it is whole."""
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        yield file


def pair_arrays(folder: Path, notes: Notes) -> dict[str, np.ndarray]:
    """The canonical arrays of ``folder/diffraction.h5`` and ``product.h5``, matched by index.

    A position index that occurs several times gets the mean position, as in Ptychodus.

    Raises:
        FileNotFoundError: one of the two is missing.
        ValueError: no position has a frame, two frames share an index, or a file is damaged.
    """
    with reading(folder, f"pair of {DIFFRACTION} and {PRODUCT}"):
        return _pair_arrays(folder, notes)


def _pair_arrays(folder: Path, notes: Notes) -> dict[str, np.ndarray]:
    with _open(folder / DIFFRACTION) as file:
        patterns = file["patterns"][...]
        if "indexes" in file:
            frame_index = file["indexes"][...].astype(int)
        else:
            frame_index = np.arange(len(patterns))
        bad = file["bad_pixels"][...] if "bad_pixels" in file else None
    with _open(folder / PRODUCT) as file:
        index = file["probe_position_indexes"][...].astype(int)
        x_m, y_m = file["probe_position_x_m"][...], file["probe_position_y_m"][...]
        probe = file["probe"][...]
        probe = probe.reshape(-1, *probe.shape[-3:])
        obj = file["object"]
        shape = obj.shape[-2:]
        at = obj.attrs
        x = (x_m - at["center_x_m"]) / at["pixel_width_m"]
        y = (y_m - at["center_y_m"]) / at["pixel_height_m"]
        layers = obj[...].reshape(-1, *shape).astype(np.complex64)
    layer, coords = layers[0], np.stack([x + (shape[1] - 1) / 2, y + (shape[0] - 1) / 2], 1)
    if len(probe) > 1:
        text = f"the probe varies over the scan ({len(probe)} OPR modes); only the first is used"
        notes.add("doubtful", text)
    if len(layers) > 1:
        notes.add("doubtful", f"the object has {len(layers)} layers; only the first is used")
    indices, places, times = np.unique(index, return_inverse=True, return_counts=True)
    if (times > 1).any():
        total = np.zeros((len(indices), 2))
        np.add.at(total, places, coords)
        coords, index = total / times[:, None], indices
        notes.add(
            "assumed", f"{int((times > 1).sum())} position indexes occur several times: averaged"
        )
    own, times = np.unique(frame_index, return_counts=True)
    if (times > 1).any():
        raise ValueError(
            f"{folder / DIFFRACTION}: index {own[times > 1][0]} belongs to {times.max()} frames; "
            "give every frame its own"
        )
    rows = {int(k): row for row, k in enumerate(frame_index)}
    kept = np.array([i for i, k in enumerate(index) if int(k) in rows], dtype=int)
    if not len(kept):
        raise ValueError(f"{folder}: no position has a frame; the indexes of both files differ")
    lost = len(patterns) - len(kept)
    if lost or len(index) > len(kept):
        alone = len(index) - len(kept)
        text = f"{lost} frames without a position, {alone} positions without a frame: left out"
        notes.add("assumed", text)
    frames = np.array([rows[int(index[i])] for i in kept])
    x, y = coords.T
    inside = (x >= 0).all() and (y >= 0).all() and (x <= shape[1]).all() and (y <= shape[0]).all()
    arrays: dict[str, np.ndarray] = {
        "xcoords": x[kept],
        "ycoords": y[kept],
        "diff3d": patterns[frames],
        "probeGuess": probe[0],
        "scan_index": np.zeros(len(kept), dtype=np.int64),
    }
    if inside and np.ptp(np.abs(layer)) + np.ptp(np.angle(layer)) > 0:
        arrays["objectGuess"] = layer
    if bad is not None:
        arrays["bad_pixels"] = bad
    return arrays


def write_pair(
    folder: Path,
    scan: RawDataTorch,
    *,
    name: str = "scan",
    geometry: FarField | None = None,
    obj: np.ndarray | None = None,
    origin_xy: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Write a scan as Ptychodus's batch input; counts are the rounded squared amplitudes.

    Metres are the scan's coordinates times the object pixel, so that a product's object finds its
    place again (``read_object``). The default object is centred on the positions, as one that
    Ptychodus builds: a network's result, which it centres on its input object, is then in place.

    Args:
        folder: created if needed.
        scan: frames, positions, probe.
        name: of the product.
        geometry: energy, distance, detector pixel.
        obj: object (H, W), a start or the labels of supervised training; by default ones around
            the positions, so that no truth leaks into a reconstruction.
        origin_xy: coordinate of its pixel [0, 0].

    Raises:
        ValueError: a position lies outside ``obj``.
    """
    geometry = geometry or FarField()
    pixel = geometry.object_pixel_m(scan.N)
    if obj is None:
        grid = Grid.around(scan.coords, scan.N)
        obj = np.ones(grid.shape, np.complex64)
    else:
        grid = Grid((obj.shape[0], obj.shape[1]), *origin_xy)
        Grid.of(grid.pixels(scan.coords), scan.N, grid.shape)  # refuses positions outside
    folder.mkdir(parents=True, exist_ok=True)
    counts = np.rint(np.square(np.asarray(scan.diff3d, np.float64)))
    kind = np.uint16 if counts.max() < 2**16 else np.uint32
    index = np.arange(len(scan), dtype=np.int64)
    bad = np.zeros((scan.N, scan.N), bool)
    if scan.bad_pixels is not None:  # the format knows one mask
        bad = np.asarray(scan.bad_pixels.reshape(-1, scan.N, scan.N).any(axis=0))
    with _create(folder / DIFFRACTION) as file:
        data = file.create_dataset("patterns", data=counts.astype(kind), compression="gzip")
        data.attrs["detector_pixel_width_m"] = geometry.detector_pixel_m
        data.attrs["detector_pixel_height_m"] = geometry.detector_pixel_m
        file.create_dataset("indexes", data=index)
        file.create_dataset("bad_pixels", data=bad)
    with _create(folder / PRODUCT) as file:
        file.attrs["name"] = name
        file.attrs["comments"] = ""
        numbers = {
            "detector_object_distance_m": geometry.distance_m,
            "focus_object_distance_m": 0.0,
            "photon_energy_eV": geometry.energy_ev,
            "probe_photon_count": float(counts.sum((1, 2)).mean()),
            "exposure_time_s": 0.0,
            "mass_attenuation_m2_per_kg": 0.0,
            "tomography_angle_deg": 0.0,
            "tilt_angle_deg": 0.0,
        }
        for key, value in numbers.items():
            file.attrs[key] = value
        file.attrs["far_field"] = True
        file.create_dataset("probe_position_indexes", data=index)
        file.create_dataset("probe_position_x_m", data=scan.xcoords * pixel)
        file.create_dataset("probe_position_y_m", data=scan.ycoords * pixel)
        probe = file.create_dataset("probe", data=scan.probe_modes[None])
        target = file.create_dataset("object", data=np.asarray(obj, np.complex64)[None])
        for item in (probe, target):
            item.attrs["pixel_width_m"] = pixel
            item.attrs["pixel_height_m"] = pixel
        target.attrs["center_x_m"] = (grid.x0 + (grid.shape[1] - 1) / 2) * pixel
        target.attrs["center_y_m"] = (grid.y0 + (grid.shape[0] - 1) / 2) * pixel
        file.create_dataset("object_layer_spacing_m", data=np.zeros(0))
        file.create_dataset("loss_epochs", data=np.zeros(0, dtype=np.int64))
        file.create_dataset("loss_values", data=np.zeros(0))


def read_object(path: Path) -> tuple[np.ndarray, Grid]:
    """First layer (H, W) of a product and its place, in pixels from the origin of its metres."""
    with _open(path) as file:
        obj = file["object"]
        at, (height, width) = obj.attrs, obj.shape[-2:]
        x0 = float(at["center_x_m"]) / float(at["pixel_width_m"]) - (width - 1) / 2
        y0 = float(at["center_y_m"]) / float(at["pixel_height_m"]) - (height - 1) / 2
        return obj[...].reshape(-1, height, width)[0], Grid((height, width), x0, y0)
