"""``runs.csv``: every in-context-learning run of a folder, marked by what a figure may compare.

The table is rebuilt from the run directories each time, so that no crash, no second grid and no
other sweep in the folder can leave it wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pytorch_port.sweep.figure3_tables import (
    RUNS_COLUMNS,
    RUNS_EXTRA,
    RUNS_REQUIRED,
    check_rows,
    config_facts,
    run_directory,
    shrink_factor,
)
from pytorch_port.sweep.grid import SAME_NUMBERS, SweepRun, is_ours, stored
from pytorch_port.train.rows import LENGTH
from trainrig.checkpoint import list_checkpoints
from trainrig.optim.schedules import total_lr, warmup_rsqrt
from trainrig.runs import LATEST, read_status
from trainrig.summaries import contradictions, differences, run_configs, summary_lock, warn
from trainrig.tracking.tables import Row, read_table, write_table

#: Besides, what every figure tells apart.
FREE = (
    *(key for key in SAME_NUMBERS if key not in ("images", "data.source")),
    "seed",
    "data.generator_config.n_rare_classes",
    "data.symbolic_config.dataset_size",
)
#: Columns that change while a run is at work.
MOVING = ("checkpoint", "completed_steps", "status", "sum_lr", "shrink", "differs")
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
            configs, unread = run_configs(base_dir, is_ours)
            planned = {run.name: stored(run.config) for run in runs}
            rows, unlisted = list_runs(configs, planned, base_dir, config_path.stem, varied)
            unread += unlisted
            write_table(rows, base_dir / "runs.csv", list(RUNS_COLUMNS))
            warn(() if passing else unread)
    return base_dir / "runs.csv"


def read_runs(path: Path | str) -> list[Row]:
    """Read ``runs.csv``; ``checkpoint`` becomes a path that is valid from here.

    Raises:
        FileNotFoundError, ValueError: as ``read_table``; or a run that may be compared is listed
            twice, or a cell says something else than the run's own files.
    """
    path = Path(path)
    rows = read_table(path, RUNS_REQUIRED, RUNS_EXTRA)
    for row in rows:
        row["checkpoint"] = path.parent / row["checkpoint"]
        row.setdefault("backend", "torch")
    check_rows([row for row in rows if not row.get("differs")], str(path))
    wrong = _contradictions(path, rows)
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{path}: differs from the runs' own files: {'; '.join(wrong[:5])}{more}; correct the "
            "table, or give the sweep's command again, which writes it from the runs"
        )
    return rows


def _contradictions(path: Path, rows: Sequence[Row]) -> list[str]:
    """Return where ``runs.csv`` says something else than the runs beside it.

    Nothing is said of a run that is not there. Which runs the last call asked for stands in no
    run's files: ``in_grid`` and ``config_module`` are held against each other only.
    """
    listed = []
    for row in rows:
        if "checkpoints" in row["checkpoint"].parts:
            folder = run_directory(row["checkpoint"])
            if folder.parent == path.parent:
                listed.append((folder.name, row))
    present, _ = run_configs(path.parent, is_ours)
    configs = {name: present[name] for name, _ in listed if name in present}
    planned = {n: configs[n] for n, row in listed if row.get("in_grid") and n in configs}
    lines: list[str] = []
    for varied in (DECAYS, ()):  # of the two sweeps
        found, lines = list_runs(configs, planned, path.parent, "", varied)
        own = {}
        for row in found:
            row["checkpoint"] = path.parent / row["checkpoint"]
            del row["config_module"]
            if not planned:  # what the others were compared with is not known
                del row["differs"]
            own[run_directory(row["checkpoint"]).name] = row
        lines += contradictions(path, listed, own, MOVING)
        if not lines:
            break
    return lines or [
        line
        for name, row in listed
        if name in configs
        for line in _row_contradictions(name, row, configs[name])
    ]


def _row_contradictions(name: str, row: Row, config: Mapping[str, Any]) -> list[str]:
    """Return which cells do not follow from the row's others, however old the table may be."""
    step = re.fullmatch(r"step_(\d+)", row["checkpoint"].parent.name)
    own: Row = {**config_facts(config), "completed_steps": int(step[1]) if step else 0}
    own |= _decay(config, own["completed_steps"])
    if "config_module" in row:
        own["in_grid"] = int(row["config_module"] is not None)
    return [
        f"{column} of {name} is {row[column]}, {value} follows from the rest of its row"
        for column, value in own.items()
        if column in row and row[column] != value
    ]


def list_runs(
    configs: Mapping[str, Mapping[str, Any]],
    planned: Mapping[str, Mapping[str, Any]],
    base_dir: Path,
    config_module: str,
    varied: Sequence[str],
) -> tuple[list[Row], list[str]]:
    """Return the rows of ``runs.csv``, those of the grid first, and what could not be read.

    A run that diverged before its first checkpoint names the folder where that would be.

    Args:
        configs: ``config.json`` of the runs to list, by name.
        planned: that of the grid's runs.
        base_dir: of the run directories.
        config_module: what the grid's runs are told to come from.
        varied: as for ``write_runs_csv``.
    """
    unread: list[str] = []
    own = [name for name in planned if name in configs]
    compared = [name for name in own if read_status(base_dir / name)["status"] != "diverged"] or own
    reference = configs[compared[0]] if compared else next(iter(planned.values()), {})
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
        rows.append({**row, **mark, "config_module": config_module if name in planned else None})
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
    return {
        **config_facts(config),
        "checkpoint": str(newest.relative_to(base_dir)),
        "backend": "torch",
        "completed_steps": step,
        "status": status["status"],
        **_decay(config, step),
    }


def _decay(config: Mapping[str, Any], step: int) -> Row:
    """Return the sum of the learning rates of so many steps, and what decay alone leaves."""
    optimizer = config["optimizer"]
    summed = _sum_lr(optimizer["max_lr"], optimizer["warmup_steps"], step)
    decoupled = optimizer["l2_mode"] == "decoupled"
    shrink = shrink_factor(optimizer["weight_decay"], summed) if decoupled else None
    return {"sum_lr": summed, "shrink": shrink}


@cache
def _sum_lr(max_lr: float, warmup_steps: int, steps: int) -> float:
    return total_lr(warmup_rsqrt(max_lr, warmup_steps), steps)
