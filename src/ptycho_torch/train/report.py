"""What the scripts leave behind: resolved configuration, reconstructions, pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.config.canonical import TrainingConfig
from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.physics.probe import orthogonalised
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.recon.hybrid import coverage, save_state
from ptycho_torch.recon.inference import Reconstruction, save_reconstruction
from ptycho_torch.recon.pipeline import Method
from ptycho_torch.recon.refine import RefineState
from ptycho_torch.train.figures import draw_object, draw_pictures, draw_refinement
from trainrig.files import write_atomically
from trainrig.stopping import StopRequest

logger = logging.getLogger(__name__)


def config_text(training: TrainingConfig, execution: ExecutionConfig) -> str:
    """Return the resolved configuration as YAML that ``--config`` reads again."""
    import yaml

    def builtin(values: dict[str, Any]) -> dict[str, Any]:
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items() if v is not None}

    values = asdict(training)
    model = values.pop("model")
    content = {
        "model": builtin(model),
        "training": builtin(values),
        "execution": builtin(asdict(execution)),
    }
    return yaml.safe_dump(content, sort_keys=True)


def save_outputs(
    method: Method,
    scan: RawDataTorch,
    found: Reconstruction | None,
    out: Path,
    *,
    seed: int = 0,
    phase_limits: dict[str, float | None] | None = None,
    preview_every_epochs: int = 0,
    stop: StopRequest | None = None,
) -> Iterator[str]:
    """Refine if asked for, then write the reconstruction and its pictures; yields lines.

    Args:
        method: how the network's result is refined.
        scan: the measurement.
        found: the network's reconstruction; None without a network.
        out: created if needed.
        seed: of the refinement.
        phase_limits: display range of the phase.
        preview_every_epochs: of the refinement, for ``previews/refined_*.png``; 0 for none.
        stop: of the run that the refinement belongs to.

    Raises:
        Interruption: the run was asked to stop; a refinement begins again.
    """
    out.mkdir(parents=True, exist_ok=True)
    refined = bool(method.settings.epochs)
    if refined and found is not None:
        save_reconstruction(found, out / "network.npz", scan.coords)
    began = time.perf_counter()

    def show(state: RefineState) -> None:
        show_epoch(scan, out, method.settings.epochs, preview_every_epochs, state)
        if stop is not None and stop.due():
            raise stop.interruption(f"{out}: refinement epoch {state.epoch}")

    found, state = method.refine(scan, found, seed, on_epoch=show)
    if state is not None:
        spent = time.perf_counter() - began
        save_state(state, out / "refinement.npz")
        probe = orthogonalised(state.probe.detach().cpu().numpy())
        path = out / "refinement.png"
        draw_refinement(found.object, found.covered, probe, state.losses, path)
        yield f"refined {state.epoch} epochs in {spent:.0f} s, loss {state.loss:.5f}, {path}"
    save_reconstruction(found, out / "reconstruction.npz", scan.coords)
    draw_pictures(found.object, found.covered, found.uncertainty, out, phase_limits)
    yield f"{out / 'reconstruction.npz'} {out / 'reconstructed_amplitude.png'}"


def show_epoch(scan: RawDataTorch, out: Path, epochs: int, every: int, state: RefineState) -> None:
    """Log a refinement's loss ten times, and draw its object every so many epochs."""
    if state.epoch % max(1, epochs // 10) == 0:
        logger.info("refinement epoch %d of %d: loss %.5f", state.epoch, epochs, state.loss)
    if not every or state.epoch % every:
        return
    path = out / "previews" / f"refined_{state.epoch:04d}.png"
    draw_object(state.numpy(), coverage(scan, state.grid), path, title=f"epoch {state.epoch}")
    write_atomically(path.parent / "latest.png", path.read_bytes())


def save_halves(method: Method, scan: RawDataTorch, out: Path, seed: int = 0) -> list[Path]:
    """Reconstruct every other frame, and the frames between, from the same start: two files."""
    paths = []
    for k in (0, 1):
        half = scan.select(np.arange(k, len(scan), 2))
        paths.append(out / f"half_{k + 1}.npz")
        save_reconstruction(method(half, seed), paths[-1], half.coords)
    return paths
