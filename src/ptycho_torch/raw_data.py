"""``RawDataTorch``: one scan's frames, positions, probe and, if known, object.

Legend: n frames, N frame side, B groups, C = gridsize² frames per group; coordinates are (x, y)
in object pixels. Frames are held as amplitudes, or as a memory map whose conversion happens
when rows are read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ptycho_torch.physics.forward import extract_patches
from ptycho_torch.physics.probe import mean_frame_probe
from ptycho_torch.physics.scaling import input_factor, mean_frame_energy
from ptycho_torch.scan import npz_format, rules
from ptycho_torch.scan.grouping import Groups, group_frames
from ptycho_torch.scan.rules import Assumptions, Note, Notes

if TYPE_CHECKING:
    from ptycho_torch.data.reshape import Reshape

logger = logging.getLogger(__name__)


@dataclass
class RawDataTorch:
    """A scan in memory or mapped from disk; see ``from_file`` for what is accepted."""

    xcoords: np.ndarray  # (n,) float64
    ycoords: np.ndarray  # (n,) float64
    diff3d: Any  # (n, N, N) amplitudes
    probeGuess: np.ndarray  # noqa: N815 - the format's key; (N, N) or (m, N, N) complex64
    scan_index: np.ndarray  # (n,) int64
    objectGuess: np.ndarray | None = None  # noqa: N815 - the format's key; (H, W) complex64
    xcoords_start: np.ndarray | None = None
    ycoords_start: np.ndarray | None = None
    Y: np.ndarray | None = None  # (n, N, N) complex64 label patches
    label_amp: np.ndarray | None = None
    label_phase: np.ndarray | None = None
    bad_pixels: np.ndarray | None = None  # (N, N) bool, or (n, N, N) where frames differ
    sample_indices: np.ndarray | None = None
    source: str = "memory"
    probe_source: str = "file"  # or mean-frame, where the file gives none
    notes: tuple[Note, ...] = ()  # what was found and decided while it was read

    @property
    def N(self) -> int:  # noqa: N802 - the field's name
        """Frame side in pixels."""
        return int(self.diff3d.shape[1])

    def __len__(self) -> int:
        return len(self.xcoords)

    @property
    def coords(self) -> np.ndarray:
        """(n, 2) refined positions, x then y."""
        return np.stack([self.xcoords, self.ycoords], axis=1)

    @property
    def probe_modes(self) -> np.ndarray:
        """(m, N, N) complex64 probe."""
        return np.ascontiguousarray(self.probeGuess.reshape(-1, *self.probeGuess.shape[-2:]))

    def bad_of(self, rows: np.ndarray) -> np.ndarray | None:
        """(b, N, N) bool of the frames in ``rows``, True for a bad pixel; None without a mask."""
        if self.bad_pixels is None or self.bad_pixels.ndim == 3:
            return None if self.bad_pixels is None else self.bad_pixels[rows]
        return np.broadcast_to(self.bad_pixels, (len(rows), *self.bad_pixels.shape))

    @classmethod
    def from_coords_without_pc(
        cls,
        xcoords: np.ndarray,
        ycoords: np.ndarray,
        diff3d: np.ndarray,
        probeGuess: np.ndarray,  # noqa: N803 - the format's key
        scan_index: np.ndarray,
        objectGuess: np.ndarray | None = None,  # noqa: N803 - the format's key
    ) -> RawDataTorch:
        """Build from arrays; nominal positions are taken as the refined ones."""
        arrays = {
            "xcoords": np.asarray(xcoords),
            "ycoords": np.asarray(ycoords),
            "diff3d": diff3d,
            "probeGuess": np.asarray(probeGuess),
            "scan_index": np.asarray(scan_index),
        }
        if objectGuess is not None:
            arrays["objectGuess"] = np.asarray(objectGuess)
        return cls.from_arrays(arrays, "from_coords_without_pc")

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        mapped: bool = False,
        assume: Assumptions | None = None,
        view: int | None = None,
        reshape: Reshape | None = None,
    ) -> RawDataTorch:
        """Read a scan of any known format, told by its content; see ``data.formats``.

        Args:
            path: a file, or Ptychodus's folder.
            mapped: map uncompressed frames of a canonical NPZ from disk instead of reading them.
            assume: what the user says of the file.
            view: which scan of a file that holds several.
            reshape: cuts, turns and bins every frame first.

        Raises:
            FileNotFoundError, KeyError, ValueError: see ``data.formats`` and ``scan.rules``.
        """
        from ptycho_torch.data.formats import read_scan

        notes = Notes(str(path))
        assume = assume or Assumptions()
        arrays = read_scan(Path(path), notes, assume, mapped=mapped, view=view)
        if reshape is not None:
            arrays = reshape(arrays, str(path), notes)
        return cls.from_arrays(arrays, str(path), assume=assume, notes=notes)

    @classmethod
    def from_files(cls, train: str | Path, test: str | Path) -> tuple[RawDataTorch, RawDataTorch]:
        """Read a training and a test scan."""
        return cls.from_file(train), cls.from_file(test)

    @classmethod
    def from_arrays(
        cls,
        arrays: dict[str, np.ndarray],
        where: str,
        *,
        assume: Assumptions | None = None,
        notes: Notes | None = None,
    ) -> RawDataTorch:
        """Check, orient and convert the arrays of one scan by the rules of all formats.

        Besides the canonical keys, ``data_dark`` is subtracted from counts.

        Raises:
            KeyError, ValueError: see ``scan.rules``.
        """
        assume, notes = assume or Assumptions(), Notes(where) if notes is None else notes
        count = npz_format.check_coordinates(arrays, where)
        key = next(key for key in npz_format.FRAME_KEYS if key in arrays)
        axis = assume.frames_axis
        frames = rules.frames_first(arrays[key], count, where, notes, axis)
        unit = str(np.asarray(arrays.get("probe_unit", "photons")))
        given = assume.probe != "mean-frame" and unit != "none"
        probe = _probe(arrays["probeGuess"], frames.shape[-1], where) if given else None
        declared = assume.domain or npz_format.declared_domain(arrays)
        scaled = probe if unit == "photons" else None
        domain = rules.measurement_domain(frames, declared, scaled, where, notes)
        bad = arrays.get("bad_pixels")
        if bad is not None:
            bad = rules.static_or_per_frame(bad, frames.shape, where, notes)
            bad = ~bad if assume.mask == "good" else bad
            if assume.mask is None:
                rules.check_mask_sense(bad, frames, where)
        survey = rules.survey_frames(frames, domain, bad, where, notes)
        dark = arrays.get("data_dark")
        if dark is not None:
            dark = rules.mean_dark(dark, frames.shape[1:], domain, where, notes)
        mean = survey.mean if dark is None else (survey.mean - dark).clip(0)
        intensity = mean if domain == "counts" else mean**2
        bad = rules.with_hot_pixels(survey.bad, intensity, count, assume, notes)
        if assume.zero_frequency == "corner":
            frames = np.fft.fftshift(frames, axes=(-2, -1))
            bad, dark = (
                None if part is None else np.fft.fftshift(part, axes=(-2, -1))
                for part in (bad, dark)
            )
            intensity = np.fft.fftshift(intensity)
            notes.add("assumed", "zero frequency is at [0, 0] (as said): frames shifted")
        elif assume.zero_frequency is None:
            rules.check_zero_frequency(intensity, where)
        source = "mean-frame" if probe is None else "file"
        if probe is None:
            hidden = None if bad is None else np.asarray(bad.reshape(-1, *bad.shape[-2:]).all(0))
            probe = mean_frame_probe(intensity, hidden)
            notes.add("found", "no start probe given: made of the mean frame")
        elif unit == "relative":
            photons = float(np.percentile(survey.photons, 99))
            probe = probe * np.sqrt(photons / float((np.abs(probe) ** 2).sum()))
            notes.add("assumed", f"the probe is scaled to a bright frame's {photons:.4g} photons")
        labels = arrays.get("Y")
        if labels is not None and labels.dtype != np.complex64:
            raise ValueError(f"{where}: Y is {labels.dtype}; labels must be complex64")
        coords = {k: np.asarray(arrays[k], dtype=np.float64) for k in ("xcoords", "ycoords")}
        coords = rules.turned(coords, assume)
        rules.check_positions(np.stack(list(coords.values()), 1), frames.shape[-1], where, notes)
        starts = {
            f"{k}_start": np.asarray(arrays.get(f"{k}_start", coords[k]), dtype=np.float64)
            for k in coords
        }
        obj = arrays.get("objectGuess")
        return cls(
            **coords,
            **starts,
            diff3d=rules.as_amplitude(frames, domain, bad, dark),
            probeGuess=probe.astype(np.complex64),
            scan_index=np.asarray(arrays.get("scan_index", np.zeros(count, dtype=np.int64))),
            objectGuess=None
            if obj is None
            else np.asarray(obj[0] if obj.ndim == 3 else obj, np.complex64),
            Y=labels,
            label_amp=arrays.get("label_amp"),
            label_phase=arrays.get("label_phase"),
            bad_pixels=bad,
            source=where,
            probe_source=source,
            notes=tuple(notes),
        )

    @classmethod
    def from_simulation(
        cls,
        xcoords: np.ndarray,
        ycoords: np.ndarray,
        probe: np.ndarray,
        obj: np.ndarray,
        *,
        seed: int | None = 0,
    ) -> RawDataTorch:
        """Simulate ungrouped frames at given positions; ``seed`` None leaves the noise out."""
        from ptycho_torch.physics.simulate import simulate_frames

        counts = simulate_frames(obj, probe, np.stack([xcoords, ycoords], 1), seed=seed)
        index = np.zeros(len(xcoords), dtype=np.int64)
        frames = np.sqrt(counts).astype(np.float32)
        return cls.from_coords_without_pc(xcoords, ycoords, frames, probe, index, obj)

    def to_file(self, path: str | Path, *, compressed: bool = False) -> None:
        """Write the canonical NPZ, amplitudes with an explicit ``measurement_domain``."""
        arrays = self.stored_arrays()
        arrays["diff3d"] = np.asarray(arrays["diff3d"], dtype=np.float32)
        npz_format.write_scan(Path(path), arrays, compressed=compressed)

    def stored_arrays(self) -> dict[str, Any]:
        """The arrays of the canonical NPZ; the frames as they are held, perhaps mapped."""
        arrays = {
            "xcoords": self.xcoords,
            "ycoords": self.ycoords,
            "xcoords_start": self.xcoords if self.xcoords_start is None else self.xcoords_start,
            "ycoords_start": self.ycoords if self.ycoords_start is None else self.ycoords_start,
            "diff3d": self.diff3d,
            "probeGuess": self.probeGuess.astype(np.complex64),
            "objectGuess": self.objectGuess,
            "scan_index": self.scan_index,
            "Y": self.Y,
            "label_amp": self.label_amp,
            "label_phase": self.label_phase,
            "bad_pixels": self.bad_pixels,
            "measurement_domain": np.array("amplitude"),
        }
        return {key: value for key, value in arrays.items() if value is not None}

    def select(self, rows: np.ndarray) -> RawDataTorch:
        """The scan restricted to these rows, in this order."""

        def part(values: Any) -> Any:
            return None if values is None else values[rows]

        bad = self.bad_pixels
        return replace(
            self,
            xcoords=self.xcoords[rows],
            ycoords=self.ycoords[rows],
            xcoords_start=part(self.xcoords_start),
            ycoords_start=part(self.ycoords_start),
            diff3d=self.diff3d[rows],
            scan_index=self.scan_index[rows],
            Y=part(self.Y),
            label_amp=part(self.label_amp),
            label_phase=part(self.label_phase),
            bad_pixels=self.bad_pixels if bad is None or bad.ndim == 2 else bad[rows],
            sample_indices=np.asarray(rows),
        )

    def subsample(self, count: int, seed: int | None = None) -> RawDataTorch:
        """Keep a sorted random choice of frames, drawn from NumPy's legacy stream.

        Raises:
            ValueError: ``count`` below 1.
        """
        if count < 1:
            raise ValueError(f"n_subsample is {count}; at least 1 is expected")
        if count >= len(self):
            return self
        stream: Any = np.random if seed is None else np.random.RandomState(seed)
        return self.select(np.sort(stream.choice(len(self), size=count, replace=False)))

    def group(self, gridsize: int, nsamples: int, **settings: Any) -> Groups:
        """The index table of ``group_frames`` for this scan's refined positions."""
        return group_frames(
            self.xcoords, self.ycoords, gridsize=gridsize, nsamples=nsamples, **settings
        )

    def generate_grouped_data(  # noqa: PLR0913 - the reference's signature
        self,
        N: int,  # noqa: N803 - the field's name
        K: int = 4,  # noqa: N803 - the field's name
        nsamples: int = 1,
        dataset_path: str | None = None,  # accepted as in the reference, which ignores it too
        seed: int | None = None,
        sequential_sampling: bool = False,
        gridsize: int | None = None,
        enable_oversampling: bool = False,
        neighbor_pool_size: int | None = None,
    ) -> dict[str, Any]:
        """Group the scan and copy the frames: channels last, as the reference returns them.

        Returns:
            ``diffraction`` and normalised ``X_full`` (B, N, N, C) float32, ``Y`` (B, N, N, C)
            complex64 or None, ``coords_*`` float64, ``nn_indices`` (B, C), ``objectGuess``,
            ``sample_indices``.
        """
        if self.N != N:
            raise ValueError(f"generate_grouped_data: N = {N}, frames have {self.N} pixels")
        from ptycho_torch.config import params

        groups = self.group(
            int(params.get("gridsize")) if gridsize is None else gridsize,
            nsamples,
            K=K,
            seed=seed,
            sequential=sequential_sampling,
            enable_oversampling=enable_oversampling,
            neighbor_pool_size=neighbor_pool_size,
        )
        frames = np.asarray(self.diff3d[groups.nn_indices.reshape(-1)], dtype=np.float32)
        factor = input_factor(mean_frame_energy(frames), N)
        frames = frames.reshape(*groups.nn_indices.shape, N, N).transpose(0, 2, 3, 1)
        return {
            "diffraction": frames,
            "X_full": (frames * factor).astype(np.float32),
            "Y": self.labels(groups),
            "coords_offsets": groups.coords_offsets,
            "coords_relative": groups.coords_relative,
            "coords_start_offsets": groups.coords_offsets,
            "coords_start_relative": groups.coords_relative,
            "coords_nn": groups.coords_nn,
            "coords_start_nn": groups.coords_nn,
            "nn_indices": groups.nn_indices,
            "objectGuess": self.objectGuess,
            "sample_indices": groups.sample_indices,
        }

    def labels(self, groups: Groups, *, legacy_mirrored: bool = False) -> np.ndarray | None:
        """Label patches (B, N, N, C): stored ones, or cut from the object at each frame.

        ``legacy_mirrored`` cuts at 2·centre - position, where the reference cuts them.
        """
        index = groups.nn_indices
        if self.Y is not None:
            return np.moveaxis(np.asarray(self.Y[index]), 1, -1)
        if self.objectGuess is None:
            return None
        coords = groups.coords_nn
        if legacy_mirrored:
            coords = groups.coords_offsets + groups.coords_relative
        flat = torch.from_numpy(coords[:, 0].transpose(0, 2, 1).reshape(-1, 2))
        patches = extract_patches(torch.from_numpy(self.objectGuess), flat, self.N)
        return np.moveaxis(patches.view(*index.shape, self.N, self.N).numpy(), 1, -1)


def _probe(probe: np.ndarray, size: int, where: str) -> np.ndarray:
    while probe.ndim > 3 and probe.shape[0] == 1:
        probe = probe[0]
    if probe.ndim not in (2, 3) or probe.shape[-2:] != (size, size):
        raise ValueError(
            f"{where}: probeGuess has shape {probe.shape}; give ({size}, {size}) or "
            f"(modes, {size}, {size})"
        )
    if not np.isfinite(probe).all() or not np.abs(probe).max() > 0:
        raise ValueError(f"{where}: probeGuess is empty or not finite; give a start probe")
    return np.asarray(probe, dtype=np.complex64)


def load_data(  # noqa: PLR0913 - the reference's signature and what a user says of the file
    path: str | Path,
    n_images: int | None = None,
    n_subsample: int | None = None,
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    swap_xy: bool = False,
    coord_scale: float = 1.0,
    subsample_seed: int | None = None,
    assume: Assumptions | None = None,
) -> RawDataTorch:
    """Read a scan, adjust its coordinates, keep a sorted random part of its frames.

    ``n_subsample`` wins over ``n_images``; the chosen rows stay in ``sample_indices``.
    """
    raw = RawDataTorch.from_file(path, assume=assume)
    x, y = raw.xcoords, raw.ycoords
    x, y = (y, x) if swap_xy else (x, y)
    x, y = (-x if flip_x else x) * coord_scale, (-y if flip_y else y) * coord_scale
    raw = replace(raw, xcoords=x, ycoords=y)
    count = n_subsample if n_subsample is not None else n_images
    return raw if count is None else raw.subsample(count, subsample_seed)
