"""Frames cut, padded, turned and binned before a scan is checked; probe and positions follow.

The object pixel is wavelength·distance/(N·detector pixel): cutting frames from N to S pixels makes
it N/S as large, binning leaves it and shrinks the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho_torch.scan.npz_format import FRAME_KEYS, check_coordinates
from ptycho_torch.scan.rules import Notes, frames_first

STACKS = ("bad_pixels", "data_dark")


@dataclass(frozen=True)
class Reshape:
    """What to do with every frame, in this order.

    Attributes:
        transpose: exchange rows and columns.
        rotate: quarter turns against the clock.
        centre: row and column of zero frequency; the middle by default.
        side: pixels of the square that is kept around it; what lies outside the frame is masked.
        binning: detector pixels that are summed, per axis.
    """

    transpose: bool = False
    rotate: int = 0
    centre: tuple[int, int] | None = None
    side: int | None = None
    binning: int = 1

    def __call__(
        self, arrays: dict[str, np.ndarray], where: str, notes: Notes
    ) -> dict[str, np.ndarray]:
        """The arrays of a canonical scan, reshaped.

        Raises:
            ValueError: nothing is left, a side that binning does not divide, or amplitudes to bin.
        """
        if self == Reshape():
            return arrays
        arrays = dict(arrays)
        key = next((key for key in FRAME_KEYS if key in arrays), FRAME_KEYS[0])
        count = check_coordinates(arrays, where)
        frames = frames_first(arrays[key], count, where, notes, square=False)
        height, width = frames.shape[1:]
        arrays[key] = self._turned(frames)
        for name in STACKS:
            if name in arrays:
                arrays[name] = self._turned(np.asarray(arrays[name]))
        if self.side is not None or self.centre is not None:
            self._cut(arrays, key, self.side or min(height, width), where)
        if self.binning > 1:
            self._bin(arrays, key, where)
        notes.add(
            "assumed", f"frames of {height}x{width} px became {arrays[key].shape[1:]} (as said)"
        )
        return arrays

    def _turned(self, stack: np.ndarray) -> np.ndarray:
        stack = stack.swapaxes(-1, -2) if self.transpose else stack
        return np.rot90(stack, self.rotate, axes=(-2, -1))

    def _cut(self, arrays: dict[str, Any], key: str, side: int, where: str) -> None:
        frames = arrays[key]
        height, width = frames.shape[-2:]
        row, column = self.centre or (height // 2, width // 2)
        rows, columns = np.arange(side) - side // 2 + row, np.arange(side) - side // 2 + column
        inside_y, inside_x = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        inside = inside_y[:, None] & inside_x
        if side < 2 or not inside.any():
            raise ValueError(f"{where}: --side {side} around ({row}, {column}) leaves no pixel")

        def cut(stack: np.ndarray) -> np.ndarray:
            out = stack[..., rows.clip(0, height - 1), :][..., columns.clip(0, width - 1)].copy()
            out[..., ~inside] = 0
            return out

        arrays[key] = cut(frames)
        for name in STACKS:
            if name in arrays:
                arrays[name] = cut(arrays[name])
        if not inside.all():
            arrays["bad_pixels"] = (
                arrays.get("bad_pixels", np.zeros((side, side), bool)) != 0
            ) | ~inside
        for name in ("xcoords", "ycoords", "xcoords_start", "ycoords_start"):
            if name in arrays:
                arrays[name] = (arrays[name] - width / 2) * side / width + side / 2
        arrays.pop("objectGuess", None)
        probe = arrays.get("probeGuess")
        if probe is not None and probe.shape[-1] == width:
            arrays["probeGuess"] = resampled(probe, side)

    def _bin(self, arrays: dict[str, Any], key: str, where: str) -> None:
        side, b = arrays[key].shape[-1], self.binning
        counts = arrays[key].dtype.kind in "iu" or "count" in str(arrays.get("measurement_domain"))
        if side % b or not counts:
            what = f"frames of {side} px" if side % b else "amplitudes"
            raise ValueError(f"{where}: --bin {b}: {what}; give counts whose side it divides")

        def summed(stack: np.ndarray, dtype: Any) -> np.ndarray:
            return stack.reshape(*stack.shape[:-2], side // b, b, side // b, b).sum(
                (-3, -1), dtype=dtype
            )

        if arrays[key].dtype.kind in "iu":
            full = arrays[key] >= np.iinfo(arrays[key].dtype).max - (arrays[key].dtype.itemsize > 1)
            full |= arrays[key] < 0
            if full.any():
                arrays["bad_pixels"] = (arrays.get("bad_pixels", False) != np.False_) | full.any(0)
                arrays[key] = np.where(full, 0, arrays[key])
        arrays[key] = summed(arrays[key], np.float64)
        if "bad_pixels" in arrays:
            arrays["bad_pixels"] = summed(np.asarray(arrays["bad_pixels"]) != 0, np.int64) > 0
        if "data_dark" in arrays:
            arrays["data_dark"] = summed(arrays["data_dark"], np.float64)
        arrays["measurement_domain"] = np.array("counts")
        start, stop = (side - side // b) // 2, (side + side // b) // 2
        for name in ("xcoords", "ycoords", "xcoords_start", "ycoords_start"):
            if name in arrays:
                arrays[name] = arrays[name] - start
        arrays.pop("objectGuess", None)
        probe = arrays.get("probeGuess")
        if probe is not None and probe.shape[-1] == side:
            arrays["probeGuess"] = probe[..., start:stop, start:stop]


def resampled(probe: np.ndarray, side: int) -> np.ndarray:
    """A probe (..., N, N) on ``side`` pixels of the same window: its far field cut or padded."""
    size = probe.shape[-1]
    field = np.fft.fftshift(np.fft.fft2(probe, norm="ortho"), axes=(-2, -1))
    if side <= size:
        part = slice(size // 2 - side // 2, size // 2 - side // 2 + side)
        field = field[..., part, part]
    else:
        before = side // 2 - size // 2
        width = [(0, 0)] * (probe.ndim - 2) + [(before, side - size - before)] * 2
        field = np.pad(field, width)
    field = np.fft.ifftshift(field, axes=(-2, -1))
    return np.fft.ifft2(field, norm="ortho").astype(np.complex64)
