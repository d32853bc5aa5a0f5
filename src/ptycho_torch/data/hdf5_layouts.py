"""HDF5 files of other programs, told by what they hold: one reader per layout, one set of rules.

Every reader returns a ``Recorded`` scan; units, masks, sentinels and positions are then decided by
``far_field`` and ``scan.rules`` for all alike. Sources: CXI 1.6 (Maia, Nature Methods 9, 854
(2012)) with cdtools' conventions of geometry; NeXus NXcxi_ptycho and NXptycho; PtyPy's ``.ptyd``;
pty-chi's pair ``*dp.hdf5`` and ``*para.hdf5``, in which Ptychodus's product is the second;
PtyLab; fold_slice's pair; PtychoShelves' MATLAB 7.3.

Legend: n frames, N frame side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.data.far_field import (
    HC_EV_M,
    LENGTHS,
    Recorded,
    canonical_arrays,
    energy_ev,
    length_m,
)
from ptycho_torch.scan.rules import Assumptions, Notes
from trainrig.files import reading

#: CXI's bits that say something of a pixel without making it bad: it is in a peak (0x20, 0x2000),
#: an artefact or the background was corrected (0x800, 0x4000), it holds signal (0x1000).
INFORMATIVE = 0x20 | 0x800 | 0x1000 | 0x2000 | 0x4000

Group = Any  # h5py.Group or File
Words = tuple[str, ...]


def read_hdf5(path: Path, notes: Notes, assume: Assumptions) -> dict[str, np.ndarray]:
    """The canonical arrays of a scan in HDF5.

    Raises:
        KeyError, ValueError: what is missing or cannot be; a file of none of the known layouts.
    """
    import h5py

    _allow_filters()
    with reading(path, "HDF5 scan"), h5py.File(path, "r") as file:
        if "patterns" in file:  # Ptychodus's diffraction.h5
            from ptycho_torch.data.product_files import pair_arrays

            return pair_arrays(path.parent, notes)
        for name, owns, read in LAYOUTS:
            if owns(file):
                notes.add("found", f"layout {name}")
                scan = read(file, path, notes, assume)
                return canonical_arrays(scan, str(path), notes, assume)
        raise ValueError(_unknown(path, file))


def _allow_filters() -> None:
    """Let h5py read frames compressed by bitshuffle, LZ4, Zstandard, where they can be read."""
    import importlib.util

    if importlib.util.find_spec("hdf5plugin") is not None:
        importlib.import_module("hdf5plugin")


def _unknown(path: Path, file: Group) -> str:
    import h5py

    found: list[str] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and len(found) < 6:
            found.append(f"{name} {item.shape}")

    file.visititems(look)
    if {"object", "probe"} <= set(file) or "content" in file:
        what = "a reconstruction (object, probe) without frames; give the scan that it was made of"
    else:
        what = f"no known scan; it holds {', '.join(found) or 'nothing'}"
    names = ", ".join(name for name, _, _ in LAYOUTS)
    return f"{path}: HDF5, {what}; known layouts: {names}"


# --- looking things up ---


def _first(file: Group, *names: str) -> Any:
    """The first dataset of these names that is there; None for none."""
    return next(
        (file[name] for name in names if name in file and hasattr(file[name], "shape")), None
    )


def _unit(item: Any) -> str | None:
    for key in ("units", "unit"):
        if key in item.attrs:
            unit = item.attrs[key]
            unit = unit.decode() if isinstance(unit, bytes) else str(np.asarray(unit).ravel()[0])
            return unit.strip() or None
    return None


def _number(item: Any) -> float:
    return float(np.asarray(item[()], np.float64).ravel()[0])


def _length(item: Any, name: str, where: Path) -> float | None:
    return None if item is None else length_m(_number(item), _unit(item), name, str(where))


def _classes(group: Group, kind: str, name: str) -> Iterator[Group]:
    """Subgroups of a NeXus class, or whose name begins with ``name``."""
    for key in group:
        item = group.get(key)
        if item is None or not hasattr(item, "keys"):
            continue
        own = item.attrs.get("NX_class", b"")
        own = own.decode() if isinstance(own, bytes) else str(own)
        if own == kind or (not own and key.startswith(name)) or key == f"{name}_1":
            yield item


def _frames_of(item: Any) -> np.ndarray:
    frames = np.asarray(item[()])
    return frames.reshape(-1, *frames.shape[-2:]) if frames.ndim > 3 else frames


# --- CXI and NeXus ---


def _entry(file: Group) -> Group | None:
    for entry in _classes(file, "NXentry", "entry"):
        for instrument in _classes(entry, "NXinstrument", "instrument"):
            if any(True for _ in _classes(instrument, "NXdetector", "detector")):
                return entry
    return None


def _read_cxi(file: Group, path: Path, notes: Notes, assume: Assumptions) -> Recorded:
    entry = _entry(file)
    assert entry is not None  # the layout is told by it
    instrument = next(_classes(entry, "NXinstrument", "instrument"))
    detectors = list(_classes(instrument, "NXdetector", "detector"))
    detector = next((d for d in detectors if "x_pixel_size" in d or "data" in d), detectors[0])
    held = [*detectors, *_classes(entry, "NXdata", "data"), *_classes(entry, "", "image")]
    stacks = [d["data"] for d in held if "data" in d and d["data"].ndim >= 3]
    if not stacks:
        raise KeyError(f"{path}: missing {detector.name}/data of 3 axes; give a scan's frames")
    frames = _frames_of(min(stacks, key=lambda stack: stack.ndim))
    basis = _basis(detector, path)
    positions = _cxi_positions(entry, detector, basis, path, notes)
    dark = _first(detector, "data_dark")
    mask = _first(detector, "mask", "pixel_mask")
    places = ("instrument_1/source_1", "data_1", "instrument_1/detector_1")
    names = ("illumination", "data_illumination", "probe")
    probe = _first(entry, *(f"{place}/{name}" for place in places for name in names))
    if probe is not None and (probe.dtype.kind != "c" or probe.shape[-1] != frames.shape[-1]):
        probe = None
    if _first(detector, "data_white") is not None:
        notes.add("doubtful", "data_white (a flat field) is not applied")
    distance = _length(_first(detector, "distance"), "distance", path)
    if distance is None and "corner_position" in detector:
        normal = np.cross(basis[0], basis[1])
        corner = np.asarray(detector["corner_position"][()], float)
        distance = abs(float(corner @ normal / np.linalg.norm(normal)))
    return Recorded(
        frames,
        positions,
        energy_ev=_cxi_energy(entry, instrument, path, assume),
        distance_m=distance,
        detector_pixel_m=(float(np.linalg.norm(basis[1])), float(np.linalg.norm(basis[0]))),
        bad=None if mask is None else _cxi_mask(mask[()], notes),
        dark=None if dark is None else dark[()],
        probe=None if probe is None else probe[()],
        domain="counts",
    )


def _cxi_mask(mask: np.ndarray, notes: Notes) -> np.ndarray:
    """Bad pixels of a bit field; a mask of another type is taken as it is."""
    if mask.dtype.kind not in "iu":
        return mask
    informative = np.zeros(mask.shape, bool)
    if mask.dtype.itemsize > 1:
        informative = (mask != 0) & (mask & ~np.array(INFORMATIVE, mask.dtype) == 0)
    if informative.any():
        text = f"{int(informative.sum())} mask values only inform (signal, peak): good pixels"
        notes.add("assumed", text)
    return (mask != 0) & ~informative


def _cxi_energy(entry: Group, instrument: Group, path: Path, assume: Assumptions) -> float | None:
    """The photons' energy: of the beam, else of the source, else from the wavelength.

    In NeXus the source's energy is the machine's, so the beam is asked first.
    """
    beams = [*_classes(instrument, "NXbeam", "beam"), *_classes(entry, "NXbeam", "beam")]
    for sample in _classes(entry, "NXsample", "sample"):
        beams += [*_classes(sample, "NXbeam", "beam")]
    crystals = [*_classes(instrument, "NXmonochromator", "monochromator")]
    sources = [*_classes(instrument, "NXsource", "source")]
    for group in (*beams, *crystals, *sources):
        item = _first(group, "incident_beam_energy", "incident_energy", "energy")
        if item is not None and not (group in sources and beams):
            return energy_ev(_number(item), _unit(item), str(path), assume)
        item = _first(group, "incident_wavelength", "wavelength")
        if item is not None:
            factor = LENGTHS.get((_unit(item) or "m").lower(), 1.0)
            return HC_EV_M / (_number(item) * factor)
    return None


def _basis(detector: Group, path: Path) -> np.ndarray:
    """(2, 3): how far and where a step along the rows' axis and the columns' axis leads, in metres.

    Without ``basis_vectors`` CXI's frame of reference holds: x and y run against the columns and
    rows of an image seen from the source.
    """
    item = _first(detector, "basis_vectors")
    if item is not None:
        basis = np.asarray(item[()], np.float64) * LENGTHS.get((_unit(item) or "m").lower(), 1.0)
        basis = basis.reshape(-1, *basis.shape[-2:])[0]
        if basis.shape == (3, 2):
            basis = basis.T
        if basis.shape != (2, 3) or not (np.linalg.norm(basis, axis=1) > 0).all():
            raise ValueError(
                f"{path}: basis_vectors have shape {item.shape}; give two vectors of 3 metres"
            )
        for row in basis:
            length_m(float(np.linalg.norm(row)), None, "detector pixel size", str(path))
        return basis
    sizes = [
        _length(_first(detector, f"{axis}_pixel_size"), "detector pixel size", path)
        for axis in "yx"
    ]
    y, x = (size or sizes[0] or sizes[1] for size in sizes)
    if x is None or y is None:
        raise KeyError(
            f"{path}: missing {detector.name}/x_pixel_size; give a file with its geometry"
        )
    return np.array([[0.0, -y, 0.0], [-x, 0.0, 0.0]])


def _cxi_positions(
    entry: Group, detector: Group, basis: np.ndarray, path: Path, notes: Notes
) -> np.ndarray:
    """(n, 2) metres along columns and rows.

    ``translation`` is the sample's motion, so the beam moves the other way over it; the detector's
    axes tell which way its columns and rows point.
    """
    item = _first(
        entry,
        "data_1/translation",
        "sample_1/geometry_1/translation",
        "sample/geometry_1/translation",
        "instrument_1/detector_1/translation",
    )
    if item is None:
        item = _first(detector, "translation")
    if item is not None:
        unit = LENGTHS.get((_unit(item) or "m").lower(), 1.0)
        moved = np.asarray(item[()], np.float64) * unit
        moved = moved.T if moved.shape[0] in (2, 3) and moved.shape[-1] not in (2, 3) else moved
        if moved.ndim != 2 or moved.shape[1] not in (2, 3):
            raise ValueError(f"{path}: translation has shape {moved.shape}; give (n, 3) metres")
        moved = np.pad(moved, ((0, 0), (0, 3 - moved.shape[1])))
    else:
        moved = _motors(entry, path)
    axes = basis / np.linalg.norm(basis, axis=1, keepdims=True)
    beam = -moved @ axes.T  # along rows' axis, columns' axis
    notes.add(
        "assumed",
        "positions: the beam moves against the sample's translation, along the detector's axes "
        f"(rows to {_arrow(axes[0])}, columns to {_arrow(axes[1])})",
    )
    return beam[:, ::-1]


def _arrow(axis: np.ndarray) -> str:
    at = int(np.argmax(np.abs(axis)))
    return f"{'-' if axis[at] < 0 else '+'}{'xyz'[at]}"


def _motors(entry: Group, path: Path) -> np.ndarray:
    """(n, 3) metres from NeXus's motors x and y, along their vectors; rasters are flattened."""
    groups = [*_classes(entry, "NXdata", "data")]
    for sample in _classes(entry, "NXsample", "sample"):
        groups += [*_classes(sample, "NXtransformations", "transformations"), sample]
    for group in groups:
        pair = [_first(group, *names) for names in (("x", "x_position"), ("y", "y_position"))]
        if all(item is not None for item in pair):
            values = [
                np.asarray(item[()], float) * LENGTHS.get((_unit(item) or "m").lower(), 1.0)
                for item in pair
            ]
            x, y = values
            if x.ndim == 1 and y.ndim == 1 and "data" in group and group["data"].ndim == 4:
                y, x = np.meshgrid(y, x, indexing="ij")
            return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    raise KeyError(f"{path}: missing sample_1/geometry_1/translation; give the scan's positions")


# --- PtyPy ---


def _read_ptyd(file: Group, path: Path, notes: Notes, assume: Assumptions) -> Recorded:
    """``chunks/k`` with data, positions (row, column) in metres, weights; energy in keV."""
    chunks = [file["chunks"][key] for key in sorted(file["chunks"], key=_as_number)]
    frames = np.concatenate([np.asarray(chunk["data"][()]) for chunk in chunks])
    positions = np.concatenate(
        [np.asarray(chunk["positions"][()], float).reshape(-1, 2) for chunk in chunks]
    )
    meta = [group for key in ("meta", "info", "common") if (group := file.get(key)) is not None]

    def of(name: str) -> np.ndarray | None:
        for group in meta:
            item = _first(group, name)
            if item is not None and item.dtype.kind in "iuf" and item.size:
                return np.asarray(item[()], float).ravel()
        return None

    energy, distance, pixel = of("energy"), of("distance"), of("psize")
    weights = [np.asarray(chunk["weights"][()]) for chunk in chunks if "weights" in chunk]
    common = [item for group in meta if (item := _first(group, "weight2d")) is not None]
    bad = None
    if sum(part.size for part in weights) == frames.size:
        bad = np.concatenate([part.reshape(-1, *frames.shape[1:]) for part in weights]) <= 0
    elif common and common[0].shape == frames.shape[1:]:
        bad = np.asarray(common[0][()]) <= 0
    unit = assume.energy_unit or "keV"
    where = str(path)
    return Recorded(
        frames,
        positions[:, ::-1],
        energy_ev=None if energy is None else energy_ev(float(energy[0]), unit, where, assume),
        distance_m=None if distance is None else length_m(distance[0], None, "distance", where),
        detector_pixel_m=None
        if pixel is None
        else (
            length_m(pixel[-1], None, "detector pixel size", where),
            length_m(pixel[0], None, "detector pixel size", where),
        ),
        bad=bad,
        domain="counts",
    )


def _as_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (2**62, name)


# --- pty-chi and fold_slice: frames in one file, the rest beside it ---


def _read_pair(file: Group, path: Path, notes: Notes, assume: Assumptions) -> Recorded:
    """``dp`` (n, N, N); positions, probe and object pixel in ``*para*`` beside it, or in it."""
    import h5py

    if "probe_position_x_m" in file or "ppX" in file:
        return _parameters(file, file["dp"], path, notes)
    names = [path.name.replace("_dp", "_para"), path.name.replace("dp", "para")]
    beside = [path.with_name(name) for name in names if name != path.name]
    found = next((p for p in beside if p.is_file()), None)
    if found is None:
        raise ValueError(
            f"{path}: frames alone; positions belong into {beside[0] if beside else '*_para.hdf5'}"
        )
    with h5py.File(found, "r") as para:
        notes.add("found", f"positions from {found.name}")
        return _parameters(para, file["dp"], found, notes)


def _parameters(para: Group, dp: Any, path: Path, notes: Notes) -> Recorded:
    frames = _frames_of(dp)
    probe = _first(para, "probe")
    array = None if probe is None else _one_probe(np.asarray(probe[()]), notes)
    if "ppX" in para:  # fold_slice: MATLAB's frames are transposed in HDF5; lengths in angstrom
        pixel = _first(para, "dx_spec", "dx")
        if pixel is None:
            raise KeyError(
                f"{path}: missing dx_spec, the object pixel; give PtychoShelves' parameters"
            )
        x, y = (np.asarray(para[key][()], float).ravel() for key in ("ppX", "ppY"))
        both = (_number(pixel), _number(pixel))
        return Recorded(frames.swapaxes(-1, -2), np.stack([x, y], 1), pixel_m=both, probe=array)
    holders = [para[key].attrs for key in ("object", "probe") if key in para]
    at = next((attrs for attrs in holders if "pixel_height_m" in attrs), None)
    if at is None:
        raise KeyError(f"{path}: missing pixel_height_m of object or probe, the object pixel")
    x, y = (np.asarray(para[f"probe_position_{axis}_m"][()], float).ravel() for axis in "xy")
    height = float(at["pixel_height_m"])
    width = float(at.get("pixel_width_m", height))
    return Recorded(frames, np.stack([x, y], 1), pixel_m=(width, height), probe=array)


def _one_probe(probe: np.ndarray, notes: Notes) -> np.ndarray:
    """(m, N, N) of a probe that may vary over the scan: its mean part, which is stored first."""
    if probe.dtype.names and {"real", "imag"} <= set(probe.dtype.names):
        probe = probe["real"] + 1j * probe["imag"]
    if probe.ndim == 4:
        if len(probe) > 1:
            text = (
                f"the probe varies over the scan ({len(probe)} OPR modes); only the first is used"
            )
            notes.add("doubtful", text)
        probe = probe[0]
    return probe


# --- PtyLab ---


def _read_ptylab(file: Group, path: Path, notes: Notes, assume: Assumptions) -> Recorded:
    """``ptychogram`` (n, N, N), ``encoder`` (n, 2) rows and columns; all lengths in metres."""
    if "zled" in file:
        raise ValueError(f"{path}: Fourier ptychography (zled); the model is of a scanned probe")
    values = {key: _first(file, key) for key in ("wavelength", "zo", "dxd")}
    numbers = (None if item is None else _number(item) for item in values.values())
    wavelength, distance, pixel = numbers
    dark = _first(file, "background", "empty_beam_dark")
    probe = _first(file, "probe")
    return Recorded(
        _frames_of(file["ptychogram"]),
        np.asarray(file["encoder"][()], float).reshape(-1, 2)[:, ::-1],
        energy_ev=None if wavelength is None else HC_EV_M / wavelength,
        distance_m=None if distance is None else length_m(distance, None, "distance", str(path)),
        detector_pixel_m=None if pixel is None else (pixel, pixel),
        dark=None if dark is None or dark.ndim < 2 else dark[()],
        probe=None if probe is None or probe.dtype.kind != "c" else probe[()],
    )


LAYOUTS: tuple[tuple[str, Callable[[Group], bool], Callable[..., Recorded]], ...] = (
    ("CXI or NeXus ptychography", lambda file: _entry(file) is not None, _read_cxi),
    ("PtyPy .ptyd", lambda file: "chunks" in file, _read_ptyd),
    ("pty-chi or fold_slice dp and para", lambda file: "dp" in file, _read_pair),
    ("PtyLab", lambda file: {"ptychogram", "encoder"} <= set(file), _read_ptylab),
)
