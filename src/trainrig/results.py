"""Runs as pandas tables: ``load`` one row per run, ``load_curves`` one row per logged line.

Both read any folder that holds runs of any experiment: a run, a sweep, a DeepOBS results folder, a
reconstruction. A setting and seed that is there more than once is one run, the newest, with a
warning. A dot in a column's name stands in a configuration key (``optimizer.lr``), a slash
in a measurement (``holdout/loss``). Examples: ``docs/python.md``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainrig.config import flatten
from trainrig.report.describers import find_runs
from trainrig.report.records import RunRecord, each_once, repeated_texts
from trainrig.report.runs import differing_keys

if TYPE_CHECKING:
    from pandas import DataFrame


def load(path: Path | str, *, whole_config: bool = False) -> DataFrame:
    """Return one row per run at or below ``path``.

    Columns: ``status``; ``step``, how many were completed; ``counts``, what it counts (``step`` or
    ``epoch``); the configuration keys whose values differ; the last value of every logged scalar,
    as ``split/name``; ``message``, why a run diverged or failed; ``path``.

    Args:
        path: a run, or any folder above runs.
        whole_config: every configuration key instead of those that differ.

    Returns:
        Indexed by the run's name, its place below ``path``.

    Raises:
        ImportError: pandas is not installed.
        FileNotFoundError: no such folder, or no run in it.
        ValueError: a run's files are damaged.
    """
    runs, settings = _read(Path(path), whole_config)
    pandas = _pandas()
    rows = [
        {
            **{"status": run.status, "step": run.step, "counts": run.counts},
            **setting,
            **{f"{split}/{name}": value for split, name, value in _measured(run)},
            **{"message": run.message, "path": str(run.path)},
        }
        for run, setting in zip(runs, settings, strict=True)
    ]
    return pandas.DataFrame(rows, index=pandas.Index([run.name for run in runs], name="run"))


def load_curves(path: Path | str, *, whole_config: bool = False) -> DataFrame:
    """Return one row per logged line of every run at or below ``path``.

    Columns: ``run``; ``step``; ``split``; the configuration keys whose values differ; the scalars
    of the line under their logged names. Arguments and errors as for ``load``.
    """
    runs, settings = _read(Path(path), whole_config)
    rows = [
        {"run": run.name, "step": row.get("step"), "split": row.get("split", ""), **setting, **row}
        for run, setting in zip(runs, settings, strict=True)
        for row in run.rows
    ]
    return _pandas().DataFrame(rows, columns=None if rows else ["run", "step", "split"])


def _read(path: Path, whole_config: bool) -> tuple[list[RunRecord], list[dict[str, Any]]]:
    """Return the runs, and the shown part of each one's configuration."""
    _pandas()  # refused before a long reading
    runs = each_once(find_runs(path))
    for text in repeated_texts(runs):
        warnings.warn(text, stacklevel=4)
    if not runs:
        raise FileNotFoundError(f"{path}: holds no runs; give a run, or a folder above runs")
    flat = [flatten(run.config) for run in runs]
    keys = {key: None for one in flat for key in one} if whole_config else differing_keys(runs)
    return runs, [{key: _hashable(one.get(key)) for key in keys} for one in flat]


def _measured(run: RunRecord) -> Iterable[tuple[str, str, Any]]:
    for split, scalars in run.final.items():
        for name, value in scalars.items():
            yield split, name, value


def _hashable(value: Any) -> Any:
    """Return a value that ``groupby`` accepts: lists as tuples, mappings as JSON."""
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else value


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError(
            "trainrig.results: pandas is not installed; pip install -e '.[pandas]'"
        ) from None
    return pandas
