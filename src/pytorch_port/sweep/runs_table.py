"""``runs.csv``: every in-context-learning run of a folder, marked by what a figure may compare.

The table is rebuilt from the run directories each time, so that no crash, no second grid and no
other sweep in the folder can leave it wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_port.sweep.figure3_tables import RUNS_COLUMNS, config_facts, shrink_factor
from pytorch_port.sweep.grid import SAME_NUMBERS, SweepRun, is_ours, stored
from pytorch_port.train.rows import LENGTH
from trainrig.checkpoint import list_checkpoints
from trainrig.optim.schedules import total_lr, warmup_rsqrt
from trainrig.runs import LATEST, read_status
from trainrig.summaries import differences, run_configs, summary_lock, warn
from trainrig.tracking.tables import Row, write_table

#: Besides, what every figure tells apart.
FREE = (
    *(key for key in SAME_NUMBERS if key not in ("images", "data.source")),
    "seed",
    "data.generator_config.n_rare_classes",
    "data.symbolic_config.dataset_size",
)
#: What the weight-decay sweep varies besides.
DECAYS = ("optimizer.weight_decay", "optimizer.l2_mode")


def write_runs_csv(
    runs: Sequence[SweepRun],
    base_dir: Path,
    config_path: Path,
    *,
    varied: Sequence[str] = DECAYS,
    passing: bool = False,
) -> Path:
    """Write ``runs.csv``: every run of the folder with a checkpoint, or diverged.

    Args:
        runs: of this call's grid; others are marked.
        base_dir: of the run directories.
        config_path: the grid's configuration file.
        varied: dotted keys in which comparable runs may differ, beside ``FREE``.
        passing: of a sweep at work, whose next call writes the table again: another process that
            writes it is not waited for, and an unreadable run is named at the end alone.
    """
    with summary_lock(base_dir, wait=not passing) as mine:
        if mine:
            rows, unread = list_runs(runs, base_dir, config_path, varied)
            write_table(rows, base_dir / "runs.csv", list(RUNS_COLUMNS))
            warn(() if passing else unread)
    return base_dir / "runs.csv"


def list_runs(
    runs: Sequence[SweepRun], base_dir: Path, config_path: Path, varied: Sequence[str]
) -> tuple[list[Row], list[str]]:
    """Return the rows of ``runs.csv``, those of the grid first, and what could not be read.

    A run that diverged before its first checkpoint names the folder where that would be.
    """
    configs, unread = run_configs(base_dir, is_ours)
    planned = {run.name: None for run in runs}
    own = [name for name in planned if name in configs]
    compared = [name for name in own if read_status(base_dir / name)["status"] != "diverged"] or own
    reference = configs[compared[0]] if compared else stored(runs[0].config) if runs else {}
    rows: list[Row] = []
    seen: dict[tuple[Any, ...], str] = {}
    for name in (*own, *(name for name in configs if name not in planned)):
        try:
            row = _row(base_dir, name, configs[name])
        except (LookupError, TypeError, ValueError) as error:
            unread.append(f"left out: {base_dir / name}/config.json is of no known form ({error})")
            continue
        if row is None:
            continue
        free = (*FREE, *varied)
        if row["status"] == "diverged":  # it would have, of any greater length
            free = (*free, LENGTH)
        differs = differences(reference, configs[name], free)
        key = (row["class_count"], row["weight_decay"], row["l2_mode"], row["seed"])
        if name not in planned and not differs:
            if key in seen:
                differs = f"the same run as {seen[key]}"
            elif row["status"] not in ("complete", "diverged"):
                differs = f"{row['status']} at step {row['completed_steps']}"
        if not differs:
            seen[key] = name
        mark = {"in_grid": int(name in planned), "differs": differs or None}
        rows.append({**row, **mark, "config_module": config_path.stem if name in planned else None})
    return rows, unread


def _row(base_dir: Path, name: str, config: Mapping[str, Any]) -> Row | None:
    """Return what ``runs.csv`` says of one run, None if it has nothing to show yet.

    A complete run is listed at the step that it ended with, also where that checkpoint is gone.
    """
    path = base_dir / name
    checkpoints, status = list_checkpoints(path / LATEST), read_status(path)
    ended = status["status"] == "complete" and "step" in status
    if ended or checkpoints:
        step = int(status["step"]) if ended else checkpoints[-1][0]
        newest = dict(checkpoints).get(step, path / LATEST / f"step_{step}") / "weights.pt"
    elif status["status"] == "diverged":
        step, newest = 0, path / LATEST
    else:
        return None
    optimizer = config["optimizer"]
    summed = total_lr(warmup_rsqrt(optimizer["max_lr"], optimizer["warmup_steps"]), step)
    decoupled = optimizer["l2_mode"] == "decoupled"
    return {
        **config_facts(config),
        "checkpoint": str(newest.relative_to(base_dir)),
        "backend": "torch",
        "completed_steps": step,
        "status": status["status"],
        "sum_lr": summed,
        "shrink": shrink_factor(optimizer["weight_decay"], summed) if decoupled else None,
    }
