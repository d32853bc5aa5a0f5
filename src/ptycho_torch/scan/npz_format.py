"""The canonical NPZ scan: reading every tolerated layout, writing one.

Legend: n frames, N frame side, m probe modes. Written by us: ``diff3d`` (n, N, N) float32
amplitude = sqrt(counts) with zero frequency at [N/2, N/2]; ``xcoords``, ``ycoords`` (n,) float64
object pixels; ``probeGuess`` (N, N) or (m, N, N) complex64; ``measurement_domain``. Nothing is
ever unpickled. Docs: docs/ptychography.md.
"""

from __future__ import annotations

import bz2
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
DOMAINS = ("amplitude", "counts")
SAMPLE_FRAMES = 64  # frames looked at when deciding between counts and amplitudes


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


def is_mappable(path: Path) -> bool:
    """Whether the frames lie uncompressed in the file, so that they can be mapped."""
    with reading(path, "NPZ; see docs/ptychography.md"), zipfile.ZipFile(path) as archive:
        kinds = {Path(info.filename).stem: info.compress_type for info in archive.infolist()}
    return all(kinds.get(key, zipfile.ZIP_STORED) == zipfile.ZIP_STORED for key in FRAME_KEYS)


def read_arrays(path: Path, *, mapped: bool = False) -> dict[str, np.ndarray]:
    """All arrays of an NPZ; ``_metadata`` and other object arrays are skipped.

    Args:
        path: the file; one that ends in ``.bz2`` is decompressed first.
        mapped: map the frames from disk where the file holds them uncompressed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an NPZ, or a damaged one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a canonical NPZ scan")
    with reading(path, "NPZ; see docs/ptychography.md"):
        packed = path.suffix == ".bz2"
        source = io.BytesIO(bz2.decompress(path.read_bytes())) if packed else path
        archive = np.load(source, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{path}: a single array, not an NPZ with named arrays")
        with archive:
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


def frames_first(frames: np.ndarray, count: int, where: str) -> np.ndarray:
    """Bring frames to (n, N, N); the axis is chosen by the coordinates' length, not by shape.

    Raises:
        ValueError: no axis has that length, or frames are not square.
    """
    if frames.ndim == 4 and frames.shape[-1] == 1:
        frames = frames[..., 0]
    if frames.ndim != 3:
        raise ValueError(f"{where}: frames have shape {frames.shape}; give (n, N, N)")
    if frames.shape[0] != count:
        if frames.shape[-1] != count:
            raise ValueError(
                f"{where}: {count} coordinates for frames of shape {frames.shape}; "
                "give as many coordinates as frames"
            )
        frames = np.moveaxis(frames, -1, 0)
    if frames.shape[1] != frames.shape[2]:
        raise ValueError(f"{where}: frames of {frames.shape[1:]} pixels; they must be square")
    return frames


def measurement_domain(frames: np.ndarray, declared: str | None, where: str) -> str:
    """``counts`` or ``amplitude``, and why, in the log.

    A declared domain wins. Otherwise integer types are counts, and so are floats that are all
    whole and exceed 1: square roots of counts are not.

    Raises:
        ValueError: the declared domain is unknown.
    """
    if declared is not None:
        if declared not in DOMAINS:
            raise ValueError(f"{where}: measurement_domain {declared!r}; use amplitude or counts")
        domain, why = declared, "declared in the file"
    elif frames.dtype.kind in "iub":
        domain, why = "counts", f"integer type {frames.dtype}"
    else:
        rows = np.linspace(0, len(frames) - 1, min(len(frames), SAMPLE_FRAMES)).astype(int)
        sample = np.asarray(frames[rows])
        whole = bool(np.all(sample == np.rint(sample))) and float(sample.max(initial=0)) > 1
        domain = "counts" if whole else "amplitude"
        why = "all values whole" if whole else "fractional values"
    logger.info("%s: frames are %s (%s)", where, domain, why)
    return domain


def check_frames(frames: np.ndarray, where: str) -> None:
    """Refuse non-finite or negative frames and a dead detector; warn about empty frames."""
    bad: list[int] = []
    empty, chunk = 0, max(1, 2**22 // (frames.shape[1] * frames.shape[2]))
    for start in range(0, len(frames), chunk):
        block = np.asarray(frames[start : start + chunk])
        if block.dtype.kind == "f":
            finite = np.isfinite(block).all((1, 2))
            bad += [start + int(i) for i in np.nonzero(~finite)[0]]
        if block.dtype.kind != "u" and bool((block < 0).any()):
            raise ValueError(f"{where}: frames hold negative values; mask the detector first")
        empty += int((block.reshape(len(block), -1).max(1) == 0).sum())
    if bad:
        shown = ", ".join(map(str, bad[:8]))
        raise ValueError(
            f"{where}: {len(bad)} frames hold NaN or infinity (rows {shown}); drop them"
        )
    if empty == len(frames):
        raise ValueError(f"{where}: every frame is zero (dead detector); nothing to reconstruct")
    if empty:
        logger.warning("%s: %d of %d frames are empty", where, empty, len(frames))


def check_coordinates(arrays: dict[str, np.ndarray], where: str) -> int:
    """Required keys and lengths; returns the number of positions.

    Raises:
        KeyError: a key is missing.
        ValueError: lengths differ or a coordinate is not finite.
    """
    missing = [key for key in REQUIRED if key not in arrays]
    if not any(key in arrays for key in FRAME_KEYS):
        missing.append("diff3d")
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise KeyError(f"{where}: missing {', '.join(missing)}; the file holds {found}")
    count = len(arrays["xcoords"])
    for key in ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "scan_index"):
        if key in arrays and arrays[key].shape != (count,):
            shape = arrays[key].shape
            raise ValueError(f"{where}: {key} has shape {shape}, xcoords {count} entries")
    for key in ("xcoords", "ycoords"):
        if not np.isfinite(arrays[key]).all():
            raise ValueError(f"{where}: {key} holds NaN or infinity; give object pixels")
    return count


def declared_domain(arrays: dict[str, Any]) -> str | None:
    """The file's own ``measurement_domain``, if it states one."""
    value = arrays.get("measurement_domain")
    return None if value is None else str(np.asarray(value).item())


class CountFrames:
    """Counts seen as amplitudes: rows are converted as they are read, nothing is copied."""

    dtype = np.dtype(np.float32)
    ndim = 3

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts
        self.shape = counts.shape

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.sqrt(np.asarray(self.counts[rows], dtype=np.float32))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self[:]
        return array if dtype is None else array.astype(dtype)


def as_amplitude(frames: np.ndarray, domain: str) -> Any:
    """Return frames (n, N, N) as amplitudes, lazily where they are mapped."""
    mapped = isinstance(frames, np.memmap) or isinstance(frames.base, np.memmap)
    if domain == "counts":
        lazy = CountFrames(frames)
        return lazy if mapped else lazy[:]
    return frames if mapped or frames.dtype == np.float32 else frames.astype(np.float32)


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
