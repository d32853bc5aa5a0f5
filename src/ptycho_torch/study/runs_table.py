"""``runs.csv`` of an ensemble or of repetitions: one row per run directory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrig.run_status import read_status
from trainrig.summaries import differences, edited, in_turn, run_configs, summary_lock, twins, warn
from trainrig.tracking.tables import write_table

RUNS_COLUMNS = (
    *("run", "seed", "status", "epochs", "train_loss", "val_loss", "refinement_loss"),
    *("in_grid", "differs"),
)
#: Columns that change while a run is at work.
MOVING = ("status", "epochs", "train_loss", "val_loss", "refinement_loss", "differs")
#: What sets the members of an ensemble, or repetitions, apart.
FREE = ("seed", "training.seed", "execution.seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One run of a folder.

    Attributes:
        name: of its directory.
        config: its ``config.json``.
        status: its ``status.json``.
        in_grid: whether this call asked for it.
        differs: why it cannot be compared with those that this call asked for; empty if it can.
    """

    name: str
    config: dict[str, Any]
    status: dict[str, Any]
    in_grid: bool
    differs: str


def list_runs(folder: Path, asked: Collection[str]) -> tuple[list[Listed], list[str]]:
    """Return every run of ``folder``, those ``asked`` for first, and what cannot be read."""
    configs, unread = run_configs(folder, lambda config: "scan_sha256" in config)
    states = {name: read_status(folder / name) for name in configs}
    own = [name for name in configs if name in asked]
    ends = {name: _end(state) for name, state in states.items() if state["status"] == "complete"}
    ended = next((ends[name] for name in own if name in ends), None)
    differs = {}
    for name in configs:
        differs[name] = differences(configs[own[0]], configs[name], FREE) if own else ""
        if not differs[name] and ended is not None and name in ends:
            differs[name] = differences(ended, ends[name], ())
    ordered = in_turn(folder, ends, asked)
    again = twins({name: configs[name] for name in ordered if not differs[name]})
    differs |= {name: f"the same run as {counted}" for name, counted in again.items()}
    listed = [
        Listed(
            name=name,
            config=configs[name],
            status=states[name],
            in_grid=name in asked,
            differs=differs[name],
        )
        for name in (*own, *(name for name in configs if name not in asked))
    ]
    return listed, unread


def _end(status: dict[str, Any]) -> dict[str, Any]:
    """Return what a finished run was given besides its identity: it may be given more."""
    return {key: status.get(key) for key in ("epochs", "refinement")}


def comparable(folder: Path, asked: Collection[str]) -> list[str]:
    """Return the complete runs of ``folder`` that may be compared with those asked for.

    Others are named on stderr.
    """
    listed, unread = list_runs(folder, asked)
    left = [f"{folder / run.name}: left out: {run.differs}" for run in listed if run.differs]
    warn([*unread, *left])
    return [run.name for run in listed if run.status["status"] == "complete" and not run.differs]


def write_runs_csv(folder: Path, asked: Collection[str]) -> Path:
    """Rebuild ``folder/runs.csv`` from the run directories in it, safely beside other writers.

    Args:
        folder: of the runs.
        asked: names of the runs of this call, which the table marks.
    """
    with summary_lock(folder):
        listed, unread = list_runs(folder, asked)
        write_table([_row(run) for run in listed], folder / "runs.csv", RUNS_COLUMNS)
    warn(unread)
    return folder / "runs.csv"


def edited_cells(folder: Path) -> list[str]:
    """Return where the ``runs.csv`` of ``folder`` contradicts the runs' own files."""
    return edited(
        folder, lambda asked: {run.name: _row(run) for run in list_runs(folder, asked)[0]}, MOVING
    )


def seed_of(config: Mapping[str, Any]) -> Any:
    """Return the seed of a training or a repetition, from its ``config.json``."""
    return config.get("seed", config.get("execution", {}).get("seed"))


def _row(run: Listed) -> dict[str, Any]:
    metrics = run.status.get("metrics", {})
    losses = {split: values.get("loss") for split, values in metrics.items()}
    return {
        "run": run.name,
        "seed": seed_of(run.config),
        "status": run.status["status"],
        "epochs": run.status.get("epoch"),
        **{f"{split}_loss": losses.get(split) for split in ("train", "val", "refinement")},
        "in_grid": int(run.in_grid),
        "differs": run.differs or None,
    }
