"""``runs.csv`` of CIFAR runs: every run of a folder, marked by what may be compared."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrig.files import read_json
from trainrig.run_status import read_status
from trainrig.summaries import (
    differences,
    edited,
    in_turn,
    run_configs,
    summary_lock,
    twins,
    warn,
)
from trainrig.tracking.tables import write_table

RUNS_COLUMNS = (
    "run",
    "optimizer",
    "lr",
    "seed",
    "dataset",
    "model",
    "parameters",
    "epochs",
    "batch_size",
    "precision",
    "engine",
    "pipeline",
    "device",
    "status",
    "train_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "synthetic",
    "in_grid",
    "differs",
)
#: Columns that change while a run is at work.
MOVING = (
    *("lr", "parameters", "status", "train_loss", "val_accuracy", "test_loss", "test_accuracy"),
    *("seconds", "differs"),
)
#: What a comparison of runs tells apart, or what changes no number but its rounding.
FREE = ("seed", "optimizer.type", "optimizer.lr", "device", "engine")


def write_runs_csv(folder: Path) -> Path:
    """Rebuild ``folder/runs.csv`` from the run directories in it, safely beside other writers."""
    with summary_lock(folder):
        listed, unread = list_runs(folder)
        write_table(table_rows(folder, listed), folder / "runs.csv", RUNS_COLUMNS)
    warn(unread)
    return folder / "runs.csv"


def table_rows(folder: Path, listed: Iterable[Listed]) -> list[dict[str, Any]]:
    """Return the rows of ``runs.csv``."""
    return [_row(folder / run.name, run) for run in listed]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One run of a folder.

    Attributes:
        name: of its directory.
        config: its ``config.json``.
        in_grid: whether it belongs to the grid in question; None without a grid.
        differs: why it cannot be compared with the grid's runs; empty if it can.
    """

    name: str
    config: dict[str, Any]
    in_grid: bool | None
    differs: str


def list_runs(folder: Path, grid: Iterable[str] | None = None) -> tuple[list[Listed], list[str]]:
    """Return every run of ``folder`` that has begun, the grid's first, and what cannot be read.

    Of equal runs under two names one is compared: the grid's, else the one that ended last.
    """
    configs, unread = run_configs(folder, lambda config: "train_val_split" in config)
    names = [name for name in configs if read_status(folder / name)["status"] != "new"]
    if grid is None:
        plain = [Listed(name=n, config=configs[n], in_grid=None, differs="") for n in names]
        return plain, unread
    planned = set(grid)
    ordered = {name: configs[name] for name in in_turn(folder, names, planned)}
    again = twins(ordered)
    own = [name for name in ordered if name in planned]
    listed: list[Listed] = []
    for name, config in ordered.items():
        if name in again:
            differs = f"the same run as {again[name]}"
        else:
            differs = differences(configs[own[0]], config, FREE) if own else ""
        listed.append(Listed(name=name, config=config, in_grid=name in planned, differs=differs))
    return listed, unread


def config_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``config.json`` says of a run, under the names of the columns of ``runs.csv``."""
    return {
        "optimizer": config["optimizer"]["type"],
        "lr": config["optimizer"]["lr"],
        "seed": config["seed"],
        "dataset": config["dataset"],
        "model": config["model"],
        "epochs": config["num_epochs"],
        "batch_size": config["batch_size"],
        "precision": config["precision"],
        "engine": config.get("engine", "eager"),
        "pipeline": config["pipeline"],
        "device": config["device"],
        "synthetic": int(config["images"]["synthetic"]),
    }


def edited_cells(folder: Path) -> list[str]:
    """Return where the ``runs.csv`` of ``folder`` contradicts the runs' own files."""

    def own(grid: set[str]) -> dict[str, dict[str, Any]]:
        listed, _ = list_runs(folder, grid or None)
        return {run.name: _row(folder / run.name, run) for run in listed}

    return edited(folder, own, MOVING)


def read_metrics(path: Path) -> tuple[dict[str, Any], str]:
    """Return what a complete run measured, or nothing and why it cannot be read."""
    if read_status(path)["status"] != "complete":
        return {}, ""
    file = path / "metrics.json"
    try:
        metrics = read_json(file)
        if all(math.isfinite(metrics["final"][split]["accuracy"]) for split in ("val", "test")):
            return metrics, ""
        wrong = f"{file}: an accuracy is not finite"
    except (LookupError, TypeError):
        wrong = f"{file}: holds no final accuracies"
    except (ValueError, OSError) as error:
        wrong = str(error)
    return {}, f"{wrong}; restore it, or remove the run's folder and train the run again"


def _row(path: Path, run: Listed) -> dict[str, Any]:
    facts, status = config_facts(run.config), read_status(path)
    metrics, _ = read_metrics(path)
    final, timing = metrics.get("final", {}), metrics.get("timing", {})  # there in older runs
    with contextlib.suppress(OSError, ValueError):  # no file, or a damaged one
        timing = read_json(path / "timing.json")
    return {
        **facts,
        "run": path.name,
        "lr": metrics.get("optimizer", {}).get("lr", facts["lr"]),
        "parameters": metrics.get("parameters"),
        "status": status["status"],
        "train_loss": final.get("train", {}).get("loss"),
        "val_accuracy": final.get("val", {}).get("accuracy"),
        "test_loss": final.get("test", {}).get("loss"),
        "test_accuracy": final.get("test", {}).get("accuracy"),
        "seconds": timing.get("seconds"),
        "in_grid": None if run.in_grid is None else int(run.in_grid),
        "differs": run.differs or None,
    }
