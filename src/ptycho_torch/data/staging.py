"""Frames on disk for sets larger than the memory: one map, built once, opened read-only.

A staged set is a folder ``<cache>/<key>`` with ``frames.npy``, ``scan.npz`` and ``complete``. The
key hashes the sources' paths, sizes and modification times and the settings, so a change builds
a new set. Building happens in a private folder that is renamed at the end: a second process, or
another rank, either finds the finished set or builds its own and gives it up; a killed build
leaves no set. Uncompressed canonical files need no staging (``from_file(mapped=True)``).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.npz_format import FRAME_KEYS, file_kind, is_mappable, write_scan
from ptycho_torch.scan.rules import Assumptions
from trainrig.files import scratch_folder

logger = logging.getLogger(__name__)

MARKER = "complete"
OFFSET_PX = 64.0  # empty pixels between scans that are joined into one set


def staging_key(sources: Sequence[Path], settings: Mapping[str, Any] | None = None) -> str:
    """Hash of the sources' identity and the settings, 16 hexadecimal digits."""
    facts = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources
    ]
    text = json.dumps([facts, dict(settings or {})], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _build(sources: Sequence[Path], folder: Path, assume: Assumptions | None) -> None:
    """Copy the sources' frames one file at a time and join their positions side by side.

    A single source keeps its positions, object and labels.

    Raises:
        ValueError: the sources' probes or frame sizes differ; one set has one of each.
    """
    scans = [RawDataTorch.from_file(path, mapped=True, assume=assume) for path in sources]
    first, counts = scans[0], [len(scan) for scan in scans]
    for path, scan in zip(sources, scans, strict=True):
        same = scan.probeGuess.shape == first.probeGuess.shape and np.allclose(
            scan.probeGuess, first.probeGuess, rtol=1e-3, atol=1e-3 * np.abs(first.probeGuess).max()
        )
        if not same:
            raise ValueError(
                f"{path}: its probe differs from that of {sources[0]}; scans of one set share it"
            )
    shape = (sum(counts), first.N, first.N)
    target = np.lib.format.open_memmap(
        folder / "frames.npy", mode="w+", dtype=np.float32, shape=shape
    )
    tables, filled, shift = [], 0, 0.0
    for scan, count in zip(scans, counts, strict=True):
        for start in range(0, count, 256):
            stop = min(start + 256, count)
            target[filled + start : filled + stop] = scan.diff3d[start:stop]
        filled += count
        tables.append((scan.xcoords - scan.xcoords.min() + shift, scan.ycoords))
        shift = float(tables[-1][0].max()) + scan.N + OFFSET_PX
    target.flush()
    if len(sources) == 1:
        arrays = first.stored_arrays()
        del arrays[FRAME_KEYS[0]]
    else:
        arrays = {
            "xcoords": np.concatenate([t[0] for t in tables]),
            "ycoords": np.concatenate([t[1] for t in tables]),
            "probeGuess": first.probeGuess,
        }
        if any(scan.bad_pixels is not None for scan in scans):
            arrays["bad_pixels"] = _joined_masks(scans)
    write_scan(folder / "scan.npz", arrays)
    (folder / MARKER).write_text("\n".join(map(str, sources)) + "\n")


def _joined_masks(scans: Sequence[RawDataTorch]) -> np.ndarray:
    masks = [
        np.zeros(scan.diff3d.shape, bool)
        if (bad := scan.bad_of(np.arange(len(scan)))) is None
        else bad
        for scan in scans
    ]
    joined = np.concatenate(masks)
    return joined[0] if (joined == joined[0]).all() else joined


def stage(
    sources: Sequence[str | Path],
    cache: str | Path,
    settings: Mapping[str, Any] | None = None,
    assume: Assumptions | None = None,
) -> Path:
    """The folder of the staged set, built if it is not there.

    Raises:
        FileNotFoundError: a source is missing.
        ValueError: there is no source.
    """
    paths = [Path(path) for path in sources]
    if not paths:
        raise ValueError("sources: none given; give at least one canonical NPZ scan")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; give canonical NPZ scans")
    said = {key: value for key, value in asdict(assume or Assumptions()).items() if value}
    folder = Path(cache) / staging_key(paths, {**(settings or {}), **said})
    if (folder / MARKER).is_file():
        return folder
    with scratch_folder(folder.parent, folder.name) as private:
        _build(paths, private, assume)
        try:
            private.rename(folder)
        except OSError:
            if not (folder / MARKER).is_file():
                raise
            logger.info("%s: built by another process meanwhile", folder)
    return folder


def open_mapped(
    path: str | Path, cache: str | Path, assume: Assumptions | None = None
) -> RawDataTorch:
    """A scan with its frames on disk: mapped where they lie uncompressed, else staged first.

    Staging reads a compressed file as a whole, once.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a canonical NPZ scan")
    if (kind := file_kind(path)) != "NPZ":
        raise ValueError(f"{path}: {kind} cannot be mapped; convert it first (convert_ptycho.py)")
    if is_mappable(path):
        return RawDataTorch.from_file(path, mapped=True, assume=assume)
    folder = stage([path], cache, assume=assume)
    logger.info("%s: compressed frames, unpacked into %s", path, folder)
    return open_staged(folder)


def open_staged(folder: str | Path) -> RawDataTorch:
    """A staged set, its frames mapped read-only.

    Raises:
        ValueError: the folder holds no finished set.
    """
    folder = Path(folder)
    if not (folder / MARKER).is_file():
        raise ValueError(f"{folder}: not a finished staged set; stage it again")
    with np.load(folder / "scan.npz", allow_pickle=False) as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    arrays[FRAME_KEYS[0]] = np.load(folder / "frames.npy", mmap_mode="r")
    arrays["measurement_domain"] = np.array("amplitude")
    return RawDataTorch.from_arrays(arrays, str(folder))
