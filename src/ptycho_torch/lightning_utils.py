"""Finding checkpoints; the module name is part of the contract with Ptychodus."""

from __future__ import annotations

from pathlib import Path

import torch


def find_best_checkpoint(run_dir: Path) -> Path | None:
    """The best checkpoint below a run directory, else the last one, else None.

    "Best" is what the newest ``last.ckpt`` recorded as best; without that record it is the
    newest file named ``best*``.
    """
    run_dir = Path(run_dir)
    best = sorted(run_dir.rglob("best*.ckpt"), key=lambda p: p.stat().st_mtime)
    last = sorted(run_dir.rglob("last*.ckpt"), key=lambda p: p.stat().st_mtime)
    if last:
        callbacks = torch.load(last[-1], map_location="cpu", weights_only=True).get("callbacks", {})
        for state in callbacks.values():
            name = Path(state.get("best_model_path") or "").name
            if name and (last[-1].parent / name).is_file():
                return last[-1].parent / name
    if best:
        return best[-1]
    return last[-1] if last else None
