"""What a run left behind, read back: configuration, environment, status and logged rows.

Reads only. A run at work may be read at any moment: a last line without its end is left out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainrig.files import read_json
from trainrig.repeats import count_once, repeated_text, setting_key
from trainrig.run_status import FINAL, observe_status
from trainrig.stats import mean_and_sd

#: Evaluations that a headline averages where each draws sequences of its own.
HEADLINE_EVALUATIONS = 3
#: Folders that hold no run directories.
_INSIDE_RUNS = ("checkpoints", "logs", "trackio", "tensorboard", "previews", ".git", ".venv")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One run, whatever wrote it.

    Attributes:
        path: its directory, or its result file.
        name: unique among the runs it was found with.
        status: see ``trainrig.run_status.observe_status``.
        message: why it diverged or failed.
        step: steps (or epochs, where that is what was counted) completed.
        config: the resolved configuration, nested.
        environment: ``environment.json``.
        rows: logged rows, ``{"step", "split", scalar: value, ...}``, oldest first.
        final: last value of each scalar by split; what the run itself declared wins.
        counts: what ``step`` counts, ``step`` or ``epoch``.
        setting: what decides the run's numbers, where that is not ``config``.
        repeated: older results of the same setting and seed, which count no more.
    """

    path: Path
    name: str
    status: str = "complete"
    message: str = ""
    step: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    final: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    counts: str = "step"
    setting: Mapping[str, Any] | None = None
    repeated: int = 0

    def value(self, split: str, key: str) -> float | None:
        """Return the final value of a scalar, or None where there is none."""
        value = self.final.get(split, {}).get(key)
        return value if _is_number(value) else None

    def headline(self, split: str, key: str, count: int) -> tuple[float | None, float | None]:
        """Return the mean of a scalar's last ``count`` rows and its standard error.

        The final value, without an error, where the run logged no row or has diverged.
        """
        rows = [row for row in self.rows if row.get("split") == split]
        if self.status == "diverged" or not rows:
            return self.value(split, key), None
        return mean_of_last(rows, key, count)


def each_once(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Return runs of which each setting and seed is there once: the newest that has ended.

    A run is known by its configuration, not by its folder: a copy of a run, or the same run under
    another name, says nothing about the spread over seeds. A run without a seed, or one that has
    not ended, is equal to no other.
    """
    once = count_once(runs, _key, lambda run: _ended_at(run.path))
    older = {id(kept): dropped for kept, dropped in once.dropped}
    return [
        replace(run, repeated=run.repeated + sum(1 + one.repeated for one in older[id(run)]))
        if id(run) in older
        else run
        for run in once.kept
    ]


def repeated_texts(runs: Iterable[RunRecord]) -> list[str]:
    """Return a sentence for each run of which there were more."""
    return [repeated_text(run.name, 1 + run.repeated) for run in runs if run.repeated]


def _key(run: RunRecord) -> str | None:
    if run.status not in FINAL:
        return None
    return setting_key(run.config if run.setting is None else run.setting)


def _ended_at(path: Path) -> float:
    status = path / "status.json"
    file = status if status.exists() else path
    return file.stat().st_mtime if file.exists() else 0.0


def run_directories(path: Path, *, hidden: bool = False) -> Iterator[Path]:
    """Yield every run directory at or below ``path``, in the order of names.

    A run directory holds ``config.json`` and ``environment.json``; with ``hidden`` its name may
    begin with a dot.
    """
    for folder, folders, files in os.walk(path):
        shown = (f for f in folders if f not in _INSIDE_RUNS and (hidden or f[0] != "."))
        folders[:] = sorted(shown)
        if {"config.json", "environment.json"} <= set(files):
            folders.clear()
            yield Path(folder)


def read_run(path: Path, name: str | None = None) -> RunRecord:
    """Read one run directory.

    Raises:
        FileNotFoundError, ValueError: no configuration, or one that is not JSON.
    """
    config = read_json(path / "config.json")
    status = observe_status(path)
    rows = tuple(read_rows(path / "logs/metrics.jsonl"))
    final = last_values(rows)
    for split, scalars in status.get("metrics", {}).items():
        final[split] = {**final.get(split, {}), **scalars}
    return RunRecord(
        path=path,
        name=name or path.name,
        status=status["status"],
        message=str(status.get("message", "")),
        step=int(rows[-1].get("step", 0)) if rows else int(status.get("step", 0)),
        config=config if isinstance(config, dict) else {},
        environment=_optional_json(path / "environment.json"),
        rows=rows,
        final=final,
    )


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a ``metrics.jsonl``; nothing where there is none.

    Raises:
        ValueError: a line is not JSON; file and line number are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not valid JSON ({error})") from None
        if not isinstance(row, dict) or not _is_number(row.get("step", 0)):
            raise ValueError(f"{path}:{number}: {line[:80]} is no row with a step's number")
        yield row


def last_values(rows: tuple[Mapping[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """Return the last value of every scalar, by split.

    >>> last_values(({"step": 1, "split": "train", "loss": 2.0}, {"step": 2, "loss": 1.0}))
    {'train': {'loss': 2.0}, '': {'loss': 1.0}}
    """
    final: dict[str, dict[str, Any]] = {}
    for row in rows:
        scalars = {k: v for k, v in row.items() if k not in ("step", "epoch", "split")}
        final.setdefault(str(row.get("split", "")), {}).update(scalars)
    return final


def mean_of_last(
    rows: Sequence[Mapping[str, Any]], key: str, count: int
) -> tuple[float | None, float | None]:
    """Return the mean of a scalar over the last rows that have it, and its standard error.

    At most ``count`` are averaged; one alone has no standard error. None and None where one of
    them is not a number.

    >>> rows = [{"accuracy": value} for value in (0.1, 0.5, 0.6, 0.7)]
    >>> mean, error = mean_of_last(rows, "accuracy", 3)
    >>> round(mean, 6), round(error, 6)
    (0.6, 0.057735)
    >>> mean_of_last(rows[:1], "accuracy", 3), mean_of_last(rows, "loss", 3)
    ((0.1, None), (None, None))
    """
    values = [row[key] for row in rows if key in row][-count:]
    if not values or not all(_is_number(v) and math.isfinite(v) for v in values):
        return None, None
    mean, sd = mean_and_sd(values)
    return mean, sd / math.sqrt(len(values)) if len(values) > 1 else None


def _optional_json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
