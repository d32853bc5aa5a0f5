"""Score a reconstruction against a scan's true object, or against that of the other half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.physics import metrics
from ptycho_torch.physics.canvas import Grid

TAPER = 0.125  # share of the side that fades at each edge before a ring correlation


def common_support(
    truth: np.ndarray, obj: np.ndarray, grid: Grid, coords: np.ndarray, margin_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """Truth and reconstruction on the same pixels: positions' bounding box less a margin.

    Args:
        truth: (H, W), pixel [0, 0] at coordinate (0, 0).
        obj: reconstruction on ``grid``.
        grid: its place.
        coords: (n, 2) scan positions.
        margin_px: kept beyond the outermost positions; negative values shrink the area.
    """
    low = np.floor(coords.min(0) - margin_px).astype(int)
    high = np.ceil(coords.max(0) + margin_px).astype(int)
    low = np.maximum(low, [int(np.ceil(max(grid.x0, 0))), int(np.ceil(max(grid.y0, 0)))])
    ends = [min(truth.shape[1], grid.x0 + grid.shape[1] - 1)]
    ends.append(min(truth.shape[0], grid.y0 + grid.shape[0] - 1))
    high = np.minimum(high, np.floor(ends).astype(int))
    width, height = (high - low).tolist()
    if width < 32 or height < 32:
        raise ValueError(
            f"evaluate: the common area is {height}x{width} px; at least 32x32 are needed"
        )
    start = np.array([low[1] - grid.y0, low[0] - grid.x0])
    whole = np.floor(start).astype(int)
    # a Fourier shift, since bilinear sampling would blur the image that is to be scored
    moved = metrics.fourier_shift(obj.astype(np.complex128), whole - start)
    cut = moved[whole[0] : whole[0] + height, whole[1] : whole[1] + width]
    return truth[low[1] : high[1], low[0] : high[0]].astype(np.complex128), cut


def evaluate(
    truth: np.ndarray,
    obj: np.ndarray,
    grid: Grid,
    coords: np.ndarray,
    *,
    centre_px: int | None = None,
    margin_px: float = 0.0,
    by: str = "amplitude",
    covered: np.ndarray | None = None,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Scores, and the pair that was scored.

    Pixels that no frame reached say nothing of the reconstruction: they take the truth, and the
    means over all pixels (errors, and the SSIMs' distances from 1) become means over the covered
    ones. Ring correlations keep them as filled.

    Args:
        truth: (H, W) complex.
        obj: reconstruction.
        grid: its place.
        coords: scan positions.
        centre_px: score the central square of this side only.
        margin_px: see ``common_support``.
        by: what the registration correlates.
        covered: (H, W) bool on ``grid``, all by default.
    """
    if covered is not None and not covered.all():
        obj = np.where(covered, obj, obj[covered].mean() if covered.any() else 1)
    true, cut = common_support(truth, obj, grid, coords, margin_px)
    reached = np.ones(true.shape)
    if covered is not None:
        reached = common_support(truth, covered.astype(float), grid, coords, margin_px)[1].real
    if centre_px is not None:
        side = min(centre_px + 2 * metrics.BORDER_PX, *true.shape)
        true = metrics.centre_crop(true, (side, side))
        cut = metrics.centre_crop(cut, (side, side))
        reached = metrics.centre_crop(reached, (side, side))
    shift = metrics.register(np.abs(true), np.abs(cut))
    aligned = metrics.align(true, cut, by=by)
    border = metrics.BORDER_PX
    inner = true[border:-border, border:-border]
    known = reached[border:-border, border:-border] > 0.5
    if not known.any():
        raise ValueError("evaluate: no frame reached the area that is scored")
    image = metrics.remove_ambiguity(inner, aligned)
    gain = np.abs(image[known]).mean() / np.abs(inner[known]).mean()
    scores = metrics.score(inner, np.where(known, image, inner * gain))
    share = float(known.mean())
    if share < 1:
        scores |= _over_covered(scores, share)
    scores["covered_share"] = share
    scores["shift_y_px"], scores["shift_x_px"] = float(shift[0]), float(shift[1])
    return scores, inner, aligned


def _over_covered(scores: dict[str, Any], share: float) -> dict[str, float]:
    """Means over all pixels, of which ``1 - share`` agree exactly, as means over the others."""
    found = {}
    for part in ("amp", "phase"):
        for kind in ("mae", "mse"):
            found[f"{kind}_{part}"] = scores[f"{kind}_{part}"] / share
        found[f"ssim_{part}"] = 1 - (1 - scores[f"ssim_{part}"]) / share
    return found


def taper(side: int) -> np.ndarray:
    """(side, side) window with cosine edges, so that the image's borders add no frequencies."""
    width = max(1, round(TAPER * side))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)
    line = np.concatenate([ramp, np.ones(side - 2 * width), ramp[::-1]])
    return np.outer(line, line)


def half_data(
    first: tuple[np.ndarray, Grid],
    second: tuple[np.ndarray, Grid],
    coords: np.ndarray,
    *,
    centre_px: int | None = None,
    margin_px: float = 0.0,
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Ring correlation of two reconstructions from independent halves of the frames.

    The second is registered to the first and its phase ramp removed; what is compared is the
    complex field in the largest central square. The resolution is where the curve falls below the
    1/2-bit threshold (van Heel & Schatz 2005): ``half_period_px`` is side/(2·ring).

    Args:
        first: object and grid of the first half.
        second: of the second half.
        coords: (n, 2) scan positions; their bounding box is compared.
        centre_px: compare a smaller central square.
        margin_px: see ``common_support``.

    Returns:
        Scores with the curve ``frc``, and the compared pair.
    """
    origin = np.array([first[1].x0, first[1].y0])
    moved = Grid(second[1].shape, second[1].x0 - origin[0], second[1].y0 - origin[1])
    one, two = common_support(first[0], second[0], moved, coords - origin, margin_px)
    border = metrics.BORDER_PX
    side = min(*one.shape, (centre_px or max(one.shape)) + 2 * border)
    one, two = (metrics.centre_crop(image, (side, side)) for image in (one, two))
    two = metrics.align(one, two, by="phasor")
    one = one[border:-border, border:-border]
    two = metrics.remove_ambiguity(one, two)
    window = taper(len(one))
    rings = len(one) // 2
    faded = [(image - image.mean()) * window for image in (one, two)]
    curve = metrics.frc(*faded)[:rings]
    ring = metrics.crossing(curve, metrics.half_bit(rings))
    scores = {
        "side_px": float(len(one)),
        "frc_half_bit_ring": ring,
        "half_period_px": len(one) / (2 * ring) if ring > 0 else float("inf"),
        "frc": curve,
    }
    return scores, one, two


def read_reconstruction(path: Path) -> tuple[np.ndarray, Grid]:
    """An object and its grid from ``reconstruction.npz`` or from a product of Ptychodus."""
    from ptycho_torch.data.product_files import read_object
    from ptycho_torch.scan.npz_format import file_kind, read_arrays

    if file_kind(path) == "HDF5":
        return read_object(path)
    arrays = read_arrays(path)
    for key in ("object", "origin_xy"):
        if key not in arrays:
            raise KeyError(f"{path}: missing {key}; give a reconstruction.npz or a product.h5")
    obj = arrays["object"]
    x0, y0 = (float(v) for v in arrays["origin_xy"])
    return obj, Grid(obj.shape, x0, y0)
