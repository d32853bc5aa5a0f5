"""A quick regression: two short runs on glyphs whose logged metrics must lie in archived bounds.

The archive is a table (``class_count, step, split, metric, low, high``); the values checked are the
ones that a run wrote to its ``progress.txt``, so that the log itself is under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrig.tracking.progress import read_progress
from trainrig.tracking.tables import Column, read_table

BOUNDS_COLUMNS = {
    "class_count": Column(int),
    "step": Column(int),
    "split": Column(str),
    "metric": Column(str),
    "low": Column(float),
    "high": Column(float),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One logged value beside its bounds; ``value`` is None where the log has no number."""

    class_count: int
    step: int
    split: str
    metric: str
    low: float
    high: float
    value: float | None

    @property
    def ok(self) -> bool:
        """Whether the value is there and within its bounds (NaN is not)."""
        return self.value is not None and self.low <= self.value <= self.high

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "FAIL"
        value = "missing" if self.value is None else f"{self.value:.4f}"
        return (
            f"{self.class_count:>6} classes  step {self.step:>5}  {self.split:<10} "
            f"{self.metric:<16} {value:>8}  in [{self.low:g}, {self.high:g}]  {verdict}"
        )


def read_bounds(path: Path) -> list[dict[str, Any]]:
    """Read the archived bounds.

    Raises:
        FileNotFoundError, ValueError: no such table, a missing column, or no rows.
    """
    rows = read_table(path, BOUNDS_COLUMNS)
    if not rows:
        raise ValueError(f"{path}: holds no bounds; at least one row is expected")
    return rows


def check_progress(
    progress: Path, class_count: int, bounds: Sequence[dict[str, Any]]
) -> list[Check]:
    """Compare one run's ``progress.txt`` with the bounds of its class count."""
    logged = {(row.get("step"), row.get("split")): row for row in read_progress(progress)}
    checks = []
    for bound in bounds:
        if bound["class_count"] != class_count:
            continue
        row = logged.get((bound["step"], bound["split"]), {})
        value = row.get(bound["metric"])
        checks.append(Check(**bound, value=value if isinstance(value, int | float) else None))
    return checks
