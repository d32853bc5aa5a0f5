"""The canonical NPZ scan: reading every tolerated layout, writing one.

Legend: n frames, N frame side, m probe modes. Written by us: ``diff3d`` (n, N, N) float32
amplitude = sqrt(counts) with zero frequency at [N/2, N/2]; ``xcoords``, ``ycoords`` (n,) float64
object pixels; ``probeGuess`` (N, N) or (m, N, N) complex64; ``measurement_domain``. Nothing is
ever unpickled. Docs: docs/ptychography.md.
"""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainrig.files import reading, replacing

logger = logging.getLogger(__name__)

REQUIRED = ("xcoords", "ycoords", "probeGuess")
FRAME_KEYS = ("diff3d", "diffraction")


def map_member(path: Path, name: str) -> np.ndarray | None:
    """A read-only memory map of an uncompressed NPZ member; None if it is compressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with path.open("rb") as raw:
            raw.seek(info.header_offset + 26)
            lengths = np.frombuffer(raw.read(4), "<u2")
            raw.seek(info.header_offset + 30 + int(lengths.sum()))
            major, _ = np.lib.format.read_magic(raw)
            header = np.lib.format
            read = header.read_array_header_1_0 if major == 1 else header.read_array_header_2_0
            shape, fortran, dtype = read(raw)
            start = raw.tell()
    if dtype.hasobject:
        raise ValueError(f"{path}: {name} holds Python objects; they are never unpickled")
    order: Literal["F", "C"] = "F" if fortran else "C"
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)


#: First bytes → what a file is.
MAGIC = (
    (b"PK\x03\x04", "NPZ"),
    (b"PK\x05\x06", "empty zip"),
    (b"BZh", "bzip2"),
    (b"\x1f\x8b", "gzip"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x93NUMPY", "NPY"),
    (b"MATLAB 7.3", "HDF5"),
    (b"MATLAB 5.0", "MAT 5"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"\x80\x04", "pickle"),
    (b"\x80\x05", "pickle"),
    (b"%PDF", "PDF"),
    (b"\x89PNG", "PNG"),
)
KNOWN = "known are NPZ (also .bz2, .gz), CXI and other HDF5, MATLAB, and Ptychodus's folder"


def file_kind(path: Path) -> str:
    """What a file is by its first bytes: a name of ``MAGIC``, ``text`` or ``unknown``.

    Raises:
        FileNotFoundError: no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a scan")
    with path.open("rb") as file:
        head = file.read(4096)
    for magic, name in MAGIC:
        if head.startswith(magic):
            return name
    if head[512:520] == b"\x89HDF\r\n\x1a\n":  # HDF5 allows a user block
        return "HDF5"
    try:
        head.decode("ascii")
    except UnicodeDecodeError:
        return "unknown"
    return "text" if head else "empty"


def unpacked(path: Path) -> Path | io.BytesIO:
    """The file, or the content of a packed one.

    Raises:
        ValueError: no NPZ, with what it is instead.
    """
    kind = file_kind(path)
    packer = {"bzip2": bz2.decompress, "gzip": gzip.decompress}.get(kind)
    if packer is not None:
        content = packer(path.read_bytes())
        if not content.startswith(b"PK"):
            raise ValueError(f"{path}: not a readable NPZ: {kind} of another file; unpack it first")
        return io.BytesIO(content)
    if kind != "NPZ":
        raise ValueError(f"{path}: not a readable NPZ but {_article(kind)}; {KNOWN}")
    return path


def _article(kind: str) -> str:
    if kind in ("text", "empty", "unknown"):
        return {"text": "text", "empty": "an empty file", "unknown": "a file of unknown kind"}[kind]
    return f"{'an' if kind[0] in 'HNM' else 'a'} {kind} file"


def is_mappable(path: Path) -> bool:
    """Whether the frames lie uncompressed in the file, so that they can be mapped."""
    if file_kind(path) != "NPZ":
        return False
    with reading(path, "NPZ; see docs/ptychography.md"), zipfile.ZipFile(path) as archive:
        kinds = {Path(info.filename).stem: info.compress_type for info in archive.infolist()}
    return all(kinds.get(key, zipfile.ZIP_STORED) == zipfile.ZIP_STORED for key in FRAME_KEYS)


def read_arrays(path: Path, *, mapped: bool = False) -> dict[str, np.ndarray]:
    """All arrays of an NPZ; ``_metadata`` and other object arrays are skipped.

    Args:
        path: the file; one packed by bzip2 or gzip is decompressed first.
        mapped: map the frames from disk where the file holds them uncompressed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an NPZ, or a damaged one.
    """
    readable = reading(path, "NPZ; see docs/ptychography.md")
    with readable, np.load(unpacked(path), allow_pickle=False) as archive:
        return _members(path, archive, mapped)


def _members(path: Path, archive: Any, mapped: bool) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for name in archive.files:
        if mapped and name in FRAME_KEYS:
            frames = map_member(path, name)
            if frames is not None:
                arrays[name] = frames
                continue
            logger.warning("%s: %s is compressed and cannot be mapped; read whole", path, name)
        try:
            arrays[name] = archive[name]
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            logger.warning("%s: %s holds Python objects, skipped", path, name)
    return arrays


def check_coordinates(arrays: dict[str, np.ndarray], where: str) -> int:
    """Required keys and lengths; returns the number of positions.

    Raises:
        KeyError: a key is missing.
        ValueError: lengths differ or a coordinate is not finite.
    """
    optional = ("probeGuess",) if str(arrays.get("probe_unit")) == "none" else ()
    missing = [key for key in REQUIRED if key not in (*arrays, *optional)]
    if not any(key in arrays for key in FRAME_KEYS):
        missing.append("diff3d")
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        text = f"{where}: missing {', '.join(missing)}; the file holds {found}"
        if missing == ["diff3d"] and "objectGuess" in arrays:
            text += ": no frames, though an object to simulate them of (simulate_ptycho.py)"
        raise KeyError(text)
    count = len(np.atleast_1d(arrays["xcoords"]))
    for key in ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "scan_index"):
        if key in arrays and arrays[key].shape != (count,):
            shape = arrays[key].shape
            raise ValueError(f"{where}: {key} has shape {shape}, xcoords {count} entries")
    for key in ("xcoords", "ycoords"):
        if arrays[key].dtype.kind not in "iuf" or not np.isfinite(arrays[key]).all():
            raise ValueError(f"{where}: {key} holds NaN or infinity; give object pixels")
    return count


def declared_domain(arrays: dict[str, Any]) -> str | None:
    """The file's own ``measurement_domain``, if it states one."""
    value = arrays.get("measurement_domain")
    return None if value is None else str(np.asarray(value).item())


def write_scan(path: Path, arrays: dict[str, np.ndarray], *, compressed: bool = False) -> None:
    """Write a canonical NPZ whose bytes depend on nothing but the arrays.

    Uncompressed by default, so that large sets can be mapped.
    """
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", kind, allowZip64=True) as archive,
    ):
        for name, value in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = kind
            with archive.open(info, "w", force_zip64=True) as member:
                array = np.asanyarray(value)
                array = array if array.ndim == 0 else np.ascontiguousarray(array)
                np.lib.format.write_array(member, array, allow_pickle=False)
