"""Finding checkpoints; the module name is part of the contract with Ptychodus."""

from __future__ import annotations

from pathlib import Path

from trainrig.checkpoint import load_dictionary


def find_best_checkpoint(run_dir: Path) -> Path | None:
    """Return the best checkpoint below a run directory, else the last one, else None.

    "Best" is what the newest ``last.ckpt`` names; without one, the newest file named ``best*``.

    Raises:
        CheckpointError: ``last.ckpt`` is damaged.
    """
    best, last = (
        sorted(Path(run_dir).rglob(f"{name}*.ckpt"), key=lambda path: path.stat().st_mtime)
        for name in ("best", "last")
    )
    if last:
        name = load_dictionary(last[-1]).get("best")
        if name and (last[-1].parent / name).is_file():
            return last[-1].parent / name
    return next(iter([*best[-1:], *last[-1:]]), None)
