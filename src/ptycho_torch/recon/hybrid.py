"""The network's result as the start of an iterative refinement, or the refinement on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ptycho_torch.physics.canvas import Grid
from ptycho_torch.physics.probe import orthogonal_modes, orthogonalised
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.inference import Reconstruction
from ptycho_torch.recon.refine import RefineSettings, RefineState, misfit, refine

logger = logging.getLogger(__name__)

COVER_SHARE = 0.02  # of the brightest illumination: darker pixels are not reconstructed


def coverage(scan: RawDataTorch, grid: Grid) -> np.ndarray:
    """(H, W) bool: where the scan's summed illumination says anything about the object."""
    from ptycho_torch.physics.forward import accumulate

    power = torch.from_numpy((np.abs(scan.probe_modes) ** 2).sum(0).astype(np.float32))
    place = torch.from_numpy(np.rint(grid.pixels(scan.coords)[:, ::-1] - scan.N / 2).astype(int))
    light = accumulate(torch.zeros(1, *grid.shape), power.expand(len(scan), *power.shape), place)[
        0
    ].numpy()
    return light > COVER_SHARE * light.max()


def start_from(found: Reconstruction, scan: RawDataTorch) -> np.ndarray:
    """A network's object, its unreached part filled; ones where those explain the frames better.

    The unreached part gets the reached part's mean amplitude. A network that was trained too
    little, or on another sample, can be worse than knowing nothing; its misfit tells.
    """
    start = found.object.astype(np.complex64).copy()
    if found.covered.any():
        start[~found.covered] = np.abs(start[found.covered]).mean()
    flat = np.ones_like(start)
    ours, theirs = misfit(scan, found.grid, start), misfit(scan, found.grid, flat)
    logger.info("start: misfit of the network's object %.4f, of a flat one %.4f", ours, theirs)
    if not ours < theirs:
        logger.warning("the network's object explains the frames no better; starting flat")
        return flat
    return start


def hybrid(
    scan: RawDataTorch,
    settings: RefineSettings,
    *,
    network: Reconstruction | None = None,
    grid: Grid | None = None,
    modes: int = 1,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[RefineState], None] | None = None,
) -> tuple[Reconstruction, RefineState | None]:
    """Refine a network's reconstruction, or start flat when there is none.

    Args:
        scan: frames, positions, start probe.
        settings: of the refinement; 0 epochs returns the start.
        network: the start; its grid wins.
        grid: canvas of a flat start.
        modes: probe modes; more than the scan's own are added as weak orthogonal ones.
        device: where to compute.
        on_epoch: called after every epoch, for live views.
    """
    if modes < 1:
        raise ValueError(f"--probe-modes {modes}: must be at least 1")
    if modes > len(scan.probe_modes):
        scan = replace(scan, probeGuess=orthogonal_modes(scan.probe_modes, modes))
    grid = network.grid if network is not None else grid
    grid = Grid.of(scan.coords, scan.N) if grid is None else grid
    start = None if network is None else start_from(network, scan)
    state = None
    for state in refine(scan, settings, grid=grid, start=start, device=device):
        if on_epoch is not None:
            on_epoch(state)
    if state is None:
        obj = np.ones(grid.shape, np.complex64) if start is None else start
    else:
        obj = state.numpy()
    rate = 0.0 if network is None else network.patterns_per_s
    return Reconstruction(obj, grid, coverage(scan, grid), rate), state


def save_state(state: RefineState, path: Path) -> None:
    """Write what the refinement learnt besides the object: probe, shifts, background, losses."""
    from ptycho_torch.scan.npz_format import write_scan

    write_scan(
        path,
        {
            "probe": orthogonalised(state.probe.detach().cpu().numpy()),
            "shifts_xy": state.shifts_xy.cpu().numpy(),
            "background": state.background.detach().cpu().numpy(),
            "losses": np.asarray(state.losses),
        },
        compressed=True,
    )


def as_learnt(scan: RawDataTorch, path: Path) -> RawDataTorch:
    """The scan with the probe and positions that ``save_state`` wrote to ``path``."""
    from ptycho_torch.scan.npz_format import read_arrays

    learnt = read_arrays(path)
    coords = scan.coords + learnt["shifts_xy"]
    return replace(scan, xcoords=coords[:, 0], ycoords=coords[:, 1], probeGuess=learnt["probe"])
