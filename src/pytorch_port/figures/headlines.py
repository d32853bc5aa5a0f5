"""Headline accuracies: the mean of a run's last three evaluations, with its standard error.

Consecutive evaluations of one run differ by more than the draw of their sequences explains, because
the model moves between them; the last one alone is a matter of luck. A headline averages the last
three, and says how far they scatter.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_port.sweep.figure3_tables import run_key
from trainrig.report.records import HEADLINE_EVALUATIONS, RunRecord, mean_of_last, read_run
from trainrig.tracking.tables import Row

#: Metrics of an evaluation and what the metrics table calls them, the regime appended.
COLUMNS = {"accuracy_query": "accuracy", "accuracy_closed": "accuracy_closed"}
MEAN, ERROR = "last3", "last3_se"


def with_headlines(rows: Iterable[Row], curves: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return metrics rows with the mean of the last three evaluations and its standard error.

    The columns are those of the last evaluation with ``_last3`` and ``_last3_se`` appended. A run
    that diverged, or has no curve, has none; one evaluation has no standard error.

    Args:
        rows: metrics rows.
        curves: curve rows of the same runs; those after a row's ``global_step`` do not count.
    """
    of_run: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for curve in curves:
        of_run[run_key(curve)].append(curve)
    found = []
    for row in rows:
        own = [curve for curve in of_run[run_key(row)] if curve["step"] <= row["global_step"]]
        found.append({**row, **(_headlines(own) if row.get("status") != "diverged" else {})})
    return found


def _headlines(evaluations: Iterable[Mapping[str, Any]]) -> Row:
    ordered = sorted(evaluations, key=lambda row: row["step"])
    columns: Row = {}
    for split in dict.fromkeys(row["split"] for row in ordered):
        own = [row for row in ordered if row["split"] == split]
        for metric, name in COLUMNS.items():
            columns |= headline_columns(own, metric, f"{name}_{split}")
    return columns


def headline_columns(evaluations: Sequence[Mapping[str, Any]], metric: str, name: str) -> Row:
    """Return the two headline columns of a metric, from evaluations of one run, oldest first."""
    mean, error = mean_of_last(evaluations, metric, HEADLINE_EVALUATIONS)
    return {f"{name}_{MEAN}": mean, f"{name}_{ERROR}": error}


def headline(row: Mapping[str, Any], column: str) -> tuple[Any, float]:
    """Return a row's headline for a column of the last evaluation, and its standard error.

    The last evaluation itself, with a standard error of 0, where a table has no other (that of the
    JAX sweep, or an older one).
    """
    mean, error = row.get(f"{column}_{MEAN}"), row.get(f"{column}_{ERROR}")
    known = isinstance(mean, int | float) and math.isfinite(mean)
    return (mean, error or 0.0) if known else (row.get(column), 0.0)


def headline_lines(path: Path) -> list[str]:
    """Return what a finished run reached, a line per split, as the terminal shows it.

    Training has the loss and accuracy of its last logged batch. The accuracy among the labels 0 and
    1 is left out there: it means something only where these are the labels of the context.
    """
    run = read_run(path)
    lines = []
    for split, scalars in run.final.items():
        if split == "train":
            parts = [f"{name} {scalars[name]:.4f}" for name in ("loss", "accuracy_query")]
        else:
            parts = [_said(run, split, name) for name in ("loss", *COLUMNS)]
        lines.append(f"{split:<11} {'  '.join(parts)}")
    if any("±" in line for line in lines):
        lines.append(f"(mean ± standard error of the last {HEADLINE_EVALUATIONS} evaluations)")
    return lines


def _said(run: RunRecord, split: str, name: str) -> str:
    mean, error = run.headline(split, name, HEADLINE_EVALUATIONS)
    spread = "" if error is None else f" ± {error:.4f}"
    return f"{name} {'none' if mean is None else f'{mean:.4f}'}{spread}"
