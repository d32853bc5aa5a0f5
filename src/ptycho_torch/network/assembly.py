"""From patches to objects: the merge inside a group, and the stitching of a whole scan.

Legend: B groups, C patches per group, N patch side, M canvas side; coords_relative is (B, C, 2)
here, (x, y) pairs equal to **minus** the displacement of a patch from its group's centre.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ptycho_torch.physics.forward import accumulate, add_windows, sample_windows, spread

MERGE_EPSILON = 1e-3
STITCH_EPSILON = 1e-9


def canvas_size(size: int, gridsize: int, *, offset: int = 4, jitter: int = 10) -> int:
    """The reference's canvas side: N + (gridsize - 1)·offset + jitter."""
    return size + (gridsize - 1) * offset + jitter


def fitting_canvas(size: int, coords_relative: Tensor) -> int:
    """The smallest even canvas that holds every patch whole: N + 2·⌈max|relative|⌉."""
    reach = math.ceil(float(coords_relative.abs().max())) if coords_relative.numel() else 0
    return size + 2 * reach


def _centre_window(size: int, like: Tensor) -> Tensor:
    window = torch.zeros(size, size, dtype=like.real.dtype, device=like.device)
    quarter = size // 4
    window[quarter : quarter + size // 2, quarter : quarter + size // 2] = 1
    return window


def merge_group(
    patches: Tensor,
    coords_relative: Tensor,
    canvas: int,
    *,
    weight: Tensor | None = None,
    co_masked: bool = True,
) -> Tensor:
    """Average the patches of each group on one canvas per group.

    Args:
        patches: (B, C, N, N) complex.
        coords_relative: (B, C, 2).
        canvas: side M of the canvas.
        weight: (N, N) real weights; the central N/2 window by default, |P|² for a
            probe-weighted merge.
        co_masked: weight the numerator too (zero outside the support). False gives the
            reference's quotient of unmasked patches by masked weights, which grows to 10³ times
            the content outside the support; it exists for comparisons only.

    Returns:
        (B, M, M)
    """
    batch, count, size, _ = patches.shape
    weight = _centre_window(size, patches) if weight is None else weight.to(patches.real.dtype)
    start = (canvas - size) // 2 - coords_relative.flip(-1).flatten(0, 1)  # (BC, 2), rows first
    moved, place = spread(patches.flatten(0, 1), start)  # (BC, N+1, N+1)
    share = spread(weight.expand(batch * count, size, size), start)[0]
    shape = (batch, canvas, canvas)
    total = torch.zeros(shape, dtype=patches.dtype, device=patches.device)
    norm = torch.zeros(shape, dtype=patches.real.dtype, device=patches.device)
    total = accumulate(total, moved * share if co_masked else moved, place)
    return total / (accumulate(norm, share, place) + MERGE_EPSILON)


def extract_group(canvases: Tensor, coords_relative: Tensor, size: int) -> Tensor:
    """Cut the C patches back out of merged canvases (B, M, M): (B, C, N, N)."""
    batch, count = coords_relative.shape[:2]
    start = (canvases.shape[-1] - size) // 2 - coords_relative.flip(-1)
    source = canvases[:, None].expand(batch, count, *canvases.shape[1:])
    windows = sample_windows(
        source.reshape(batch * count, *canvases.shape[1:]), start.reshape(-1, 2), (size, size)
    )
    return windows.view(batch, count, size, size)


class Stitcher:
    """Overlap average of patches on one canvas, fed batch by batch.

    The canvas pixel ``origin`` (row, column) lies on ``centre_xy``. ``add`` may be called any
    number of times (streaming); ``result`` divides by the accumulated weights.
    """

    def __init__(
        self,
        centre_xy: tuple[float, float],
        shape: tuple[int, int],
        origin_yx: tuple[float, float],
        *,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
    ) -> None:
        real = torch.float64 if dtype == torch.complex128 else torch.float32
        self.centre = torch.tensor(centre_xy, dtype=torch.float64, device=device)
        self.origin = torch.tensor(origin_yx, dtype=torch.float64, device=device)
        self.total = torch.zeros(1, *shape, dtype=dtype, device=device)
        self.weight = torch.zeros(1, *shape, dtype=real, device=device)

    def add(self, patches: Tensor, coords_xy: Tensor, weight: Tensor | None = None) -> None:
        """Add (K, h, w) patches whose pixel [h/2, w/2] lies on (K, 2) coordinates."""
        if not len(patches):
            return
        h, w = patches.shape[-2:]
        half = torch.tensor([h // 2, w // 2], dtype=torch.float64, device=self.centre.device)
        start = (coords_xy.to(self.centre) - self.centre).flip(-1) + self.origin - half
        ones = torch.ones(h, w, dtype=self.weight.dtype, device=self.weight.device)
        weight = ones if weight is None else weight.to(ones)
        add_windows(self.total, (patches.to(self.total.dtype) * weight)[None], start[None])
        add_windows(self.weight, weight.expand(1, len(patches), h, w), start[None])

    def result(self, fill: complex = 0.0) -> Tensor:
        """(H, W) complex average; pixels without any weight become ``fill``."""
        out = self.total[0] / (self.weight[0] + STITCH_EPSILON)
        return torch.where(self.weight[0] > 1e-6, out, torch.full_like(out, fill)) if fill else out


def crop_centre(images: Tensor, side: int) -> Tensor:
    """The central sidexside part of (..., N, N), starting at N/2 - side/2."""
    start = images.shape[-1] // 2 - side // 2
    return images[..., start : start + side, start : start + side]


def stitch(patches: Tensor, coords_xy: Tensor, crop: int = 20) -> Tensor:
    """Average the central ``crop`` pixels of all patches on a canvas around the mean position.

    Args:
        patches: (n, N, N) complex.
        coords_xy: (n, 2) in pixels, float64.
        crop: side M of the central part that is kept.

    Returns:
        (L, L) with L = M + 2·pad, pad the even ceiling of the largest offset; pixel L/2 lies on
        the mean coordinate.
    """
    coords = coords_xy.double()
    mean = coords.mean(0)
    reach = math.ceil(float((coords - mean).abs().max()))
    side = crop + 2 * (reach + reach % 2)
    stitcher = Stitcher(
        (float(mean[0]), float(mean[1])),
        (side, side),
        (side / 2, side / 2),
        dtype=patches.dtype,
        device=patches.device,
    )
    stitcher.add(crop_centre(patches, crop), coords)
    return stitcher.result()
