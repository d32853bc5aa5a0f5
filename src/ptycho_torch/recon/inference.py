"""From a trained model and a scan to one object, batch by batch or as frames arrive.

Legend: n frames, B batch, C frames per group, N frame side. Every patch is placed at its own
frame's position, weighted by the probe's intensity in its central part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.data.dataset import GroupDataset
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.network.assembly import Stitcher, crop_centre
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.physics.scaling import input_factor, mean_frame_energy, probe_norm
from ptycho_torch.raw_data import RawDataTorch
from trainrig.device import send
from trainrig.seeding import deterministic_kernels


@dataclass
class Reconstruction:
    """An object on its grid; ``covered`` tells where any patch contributed."""

    object: np.ndarray  # (H, W) complex64
    grid: Grid
    covered: np.ndarray  # (H, W) bool
    patterns_per_s: float
    uncertainty: np.ndarray | None = None  # (H, W) float32, see uncertainty.py


def stitch_weight(probe: np.ndarray, trim: int, weighting: str) -> Tensor:
    """(M, M) weight of a patch's central part: |P|² with a floor of 1e-3, or ones."""
    power = torch.from_numpy((np.abs(probe) ** 2).sum(0).astype(np.float32))
    power = crop_centre(power, trim)
    if weighting == "uniform":
        return torch.ones_like(power)
    return power / power.max() + 1e-3


class FrameStream:
    """Inference on frames as they arrive; ``object`` is available at any time.

    Args:
        model: a trained model.
        grid: where the object lies.
        probe: (m, N, N) probe of the scan.
        factor: input normalisation of the scan (from its first frames, or known).
        device: where to compute.
    """

    def __init__(
        self,
        model: PtychoPINN_Lightning,
        grid: Grid,
        probe: np.ndarray,
        factor: float,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model.to(device).eval()
        self.net = self.model.net
        self.grid, self.device = grid, device
        settings = model.inference_config
        self.trim = min(settings.middle_trim, probe.shape[-1])
        self.weight = stitch_weight(probe, self.trim, settings.patch_weighting).to(device)
        norm = probe_norm(torch.from_numpy(probe), model.data_config.probe_scale)
        self.scale = model.object_scale(factor, norm)
        self.photons = factor * float(model.intensity_scale)
        self.stitcher = Stitcher((0.0, 0.0), grid.shape, (-grid.y0, -grid.x0), device=device)
        self.patterns, self.seconds = 0, 0.0

    @torch.inference_mode()
    def patches(self, images: Tensor) -> Tensor:
        """Photon amplitudes (B, C, N, N) → the patches' stitched part, physical: (B, C, M, M)."""
        images = send(images, self.device)
        within = 2 * self.trim <= images.shape[-1]  # else the border branch is stitched too
        patches = self.net.centres(images) if within else self.net.patches(images)
        cropped = crop_centre(patches, self.trim) * self.scale
        return cropped.expand(-1, images.shape[1], -1, -1)

    def add(self, frames: np.ndarray, coords: np.ndarray) -> None:
        """Take (B, N, N) amplitudes, or (B, C, N, N) groups, with (B[, C], 2) positions."""
        images = torch.from_numpy(np.asarray(frames, np.float32)) * self.photons
        self.add_images(images if images.dim() == 4 else images[:, None], coords)

    @torch.inference_mode()
    def add_images(self, images: Tensor, coords: np.ndarray) -> None:
        """Take (B, C, N, N) photon amplitudes s·X with (B, C, 2) positions."""
        began = time.perf_counter()
        place = torch.from_numpy(np.asarray(coords, np.float64).reshape(-1, 2))
        with deterministic_kernels(self.device):
            patches = self.patches(images).flatten(0, 1)
            self.stitcher.add(patches, send(place, self.device), self.weight)
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - began
        self.patterns += len(patches)

    def object(self, fill: complex = 1.0) -> np.ndarray:
        """(H, W) complex64 so far; unreached pixels are ``fill``."""
        return self.stitcher.result(fill).cpu().numpy()

    def covered(self) -> np.ndarray:
        """(H, W) where any patch contributed."""
        return (self.stitcher.weight[0] > 1e-6).cpu().numpy()

    @property
    def patterns_per_s(self) -> float:
        """Patterns through the network and the stitching per second, so far."""
        return self.patterns / self.seconds if self.seconds else 0.0


def open_stream(
    model: PtychoPINN_Lightning,
    scan: RawDataTorch,
    grid: Grid | None = None,
    device: torch.device | str = "cpu",
) -> FrameStream:
    """A stream whose grid, probe and normalisation are a whole scan's."""
    if scan.N != model.data_config.N:
        raise ValueError(
            f"{scan.source}: frames of {scan.N} pixels for a network of N = {model.data_config.N}"
        )
    grid = Grid.of(scan.coords, scan.N) if grid is None else grid
    factor = input_factor(mean_frame_energy(scan.diff3d), scan.N)
    return FrameStream(model, grid, scan.probe_modes, factor, device=device)


def reconstruct(
    model: PtychoPINN_Lightning,
    scan: RawDataTorch,
    *,
    grid: Grid | None = None,
    batch_size: int | None = None,
    nsamples: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Reconstruction:
    """Reconstruct a whole scan with the network alone.

    Args:
        model: a trained model.
        scan: frames and positions.
        grid: canvas, around the positions by default.
        batch_size: groups per pass.
        nsamples: groups, every frame as anchor by default.
        seed: of the neighbour draws (groups of several frames only).
        device: where to compute.
    """
    training = model.training
    stream = open_stream(model, scan, grid, device)
    gridsize = model.data_config.grid_size[0]
    settings = {"K": max(model.data_config.K, gridsize**2), "seed": seed}
    groups = scan.group(gridsize, len(scan) if nsamples is None else nsamples, **settings)
    batches = GroupDataset(scan, groups, stream.photons)
    step = min(batch_size or model.inference_config.batch_size, 64 if device == "cpu" else 4096)
    for start in range(0, len(groups), step):
        rows = list(range(start, min(start + step, len(groups))))
        stream.add_images(batches.__getitems__(rows)["images"], batches.coords[rows])
    model.train(training)
    return Reconstruction(stream.object(), stream.grid, stream.covered(), stream.patterns_per_s)


@torch.inference_mode()
def dump_batch(
    model: PtychoPINN_Lightning, scan: RawDataTorch, path: Path, groups: int = 16
) -> None:
    """Write what the network sees and says of a scan's first groups, for looking into it.

    ``inputs`` (B, C, N, N) are the amplitudes that enter the first layer, ``patches`` (B, n, N, N)
    its raw complex patches, ``coords`` (B, C, 2) and ``frames`` (B, C) where they belong.
    """
    from ptycho_torch.scan.npz_format import write_scan

    stream, gridsize = open_stream(model, scan), model.data_config.grid_size[0]
    count = min(groups, len(scan))
    chosen = scan.group(gridsize, count, K=max(model.data_config.K, gridsize**2), sequential=True)
    batch = GroupDataset(scan, chosen, stream.photons)
    images = batch.__getitems__(list(range(count)))["images"]
    arrays = {
        "inputs": images * torch.exp(-stream.net.log_scale),
        "patches": stream.net.patches(images),
    }
    found = {name: value.numpy() for name, value in arrays.items()}
    write_scan(path, found | {"coords": batch.coords, "frames": batch.index})


def save_reconstruction(found: Reconstruction, path: Path, coords: np.ndarray) -> None:
    """Write ``object``, ``origin_xy`` (coordinate of pixel [0, 0]), ``covered`` and positions."""
    from ptycho_torch.scan.npz_format import write_scan

    arrays = {
        "object": found.object.astype(np.complex64),
        "origin_xy": np.array([found.grid.x0, found.grid.y0]),
        "covered": found.covered,
        "xcoords": coords[:, 0],
        "ycoords": coords[:, 1],
    }
    if found.uncertainty is not None:
        arrays["uncertainty"] = found.uncertainty.astype(np.float32)
    write_scan(path, arrays, compressed=True)


def load_reconstruction(path: Path) -> Reconstruction:
    """Read what ``save_reconstruction`` wrote, without its uncertainty.

    Raises:
        FileNotFoundError, ValueError: no such file, or a damaged one.
    """
    from ptycho_torch.scan.npz_format import read_arrays

    arrays = read_arrays(path)
    x0, y0 = (float(value) for value in arrays["origin_xy"])
    obj = arrays["object"]
    return Reconstruction(obj, Grid(obj.shape, x0, y0), arrays["covered"], 0.0)
