"""``runs.csv`` of an ensemble or of repetitions: one row per run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainrig.files import read_json
from trainrig.report.records import run_directories
from trainrig.run_status import read_status
from trainrig.tracking.tables import write_table

RUNS_COLUMNS = ("run", "seed", "status", "epochs", "train_loss", "val_loss", "refinement_loss")


def write_runs_csv(folder: Path) -> Path:
    """Rebuild ``folder/runs.csv`` from the run directories in it."""
    rows = [_row(path) for path in run_directories(folder)]
    write_table(rows, folder / "runs.csv", RUNS_COLUMNS)
    return folder / "runs.csv"


def _row(path: Path) -> dict[str, Any]:
    config, status = read_json(path / "config.json"), read_status(path)
    losses = {split: values.get("loss") for split, values in status.get("metrics", {}).items()}
    return {
        "run": path.name,
        "seed": config.get("seed", config.get("execution", {}).get("seed")),
        "status": status["status"],
        "epochs": status.get("epoch"),
        **{f"{split}_loss": losses.get(split) for split in ("train", "val", "refinement")},
    }
