"""What the scripts leave behind: resolved configuration, reconstructions, pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.canonical_config import TrainingConfig
from ptycho_torch.canvas import Grid
from ptycho_torch.execution import ExecutionConfig
from ptycho_torch.figures import draw_single, limits
from ptycho_torch.hybrid import hybrid, save_state
from ptycho_torch.inference import Reconstruction, open_stream, reconstruct, save_reconstruction
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.refine import RefineSettings
from trainrig.files import write_atomically


def write_config(path: Path, training: TrainingConfig, execution: ExecutionConfig) -> None:
    """The resolved configuration as YAML that ``--config`` reads again."""
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
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(content, sort_keys=True))


def infer(args: argparse.Namespace, scan: RawDataTorch) -> Reconstruction:
    """The network's reconstruction for ``infer_ptycho.py``: whole, streamed or repeated."""
    from ptycho_torch.persistence import load_model
    from ptycho_torch.uncertainty import reconstruct_with_spread
    from trainrig.device import choose_device

    model = load_model(args.model_path, trust_pickle=args.trust_pickle)
    if args.middle_trim is not None:
        model.inference_config.middle_trim = args.middle_trim
    name = {"gpu": "cuda", "mps": "cpu"}.get(args.accelerator, args.accelerator)
    device = choose_device(name).type
    if args.uncertainty:
        return reconstruct_with_spread(model, scan, args.uncertainty, seed=args.seed, device=device)
    if args.stream:
        stream = open_stream(model, scan, device=device)
        for start in range(0, len(scan), args.stream):
            rows = slice(start, start + args.stream)
            stream.add(scan.diff3d[rows], scan.coords[rows])
        return Reconstruction(stream.object(), stream.grid, stream.covered(), stream.patterns_per_s)
    return reconstruct(
        model,
        scan,
        batch_size=args.inference_batch_size,
        nsamples=args.n_images,
        seed=args.seed,
        device=device,
    )


def save_outputs(
    found: Reconstruction | None,
    scan: RawDataTorch,
    out: Path,
    settings: RefineSettings,
    modes: int = 1,
    seed: int = 0,
    phase_limits: dict[str, float | None] | None = None,
) -> Iterator[str]:
    """Refine if asked for, then write the reconstruction and its pictures; yields lines."""
    out.mkdir(parents=True, exist_ok=True)
    if settings.epochs:
        if found is not None:
            save_reconstruction(found, out / "network.npz", scan.coords)
        began = time.perf_counter()
        grid = None if found is not None else Grid.of(scan.coords, scan.N)
        settings = replace(settings, seed=seed)
        found, state = hybrid(scan, settings, network=found, grid=grid, modes=modes)
        save_state(state, out / "refinement.npz")
        spent = time.perf_counter() - began
        yield f"refined {settings.epochs} epochs in {spent:.0f} s, loss {state.loss:.5f}"
    save_reconstruction(found, out / "reconstruction.npz", scan.coords)
    draw_pictures(found, out, phase_limits or {})
    yield f"{out / 'reconstruction.npz'} {out / 'reconstructed_amplitude.png'}"


def draw_pictures(found: Reconstruction, out: Path, phase_limits: dict[str, float | None]) -> None:
    """``reconstructed_{amplitude,phase,spread}.png``; unreached pixels stay blank."""
    hidden = ~found.covered
    mean = found.object[found.covered].sum() if found.covered.any() else 1.0
    turned = found.object * np.exp(-1j * np.angle(mean))
    amplitude = np.ma.masked_array(np.abs(found.object), hidden)
    phase = np.ma.masked_array(np.angle(turned), hidden)
    span = limits(phase.compressed()) | {k: v for k, v in phase_limits.items() if v is not None}
    grey = {"cmap": "gray", **limits(amplitude.compressed())}
    draw_single(amplitude, out / "reconstructed_amplitude.png", "amplitude", **grey)
    draw_single(phase, out / "reconstructed_phase.png", "phase / rad", cmap="viridis", **span)
    if found.spread is not None:
        spread = np.ma.masked_array(found.spread, hidden)
        path = out / "reconstructed_spread.png"
        draw_single(spread, path, "standard deviation", cmap="magma", **limits(spread.compressed()))
