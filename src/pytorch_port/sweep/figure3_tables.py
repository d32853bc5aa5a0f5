"""The tables behind Figure 3: ``runs.csv``, ``figure3_adamw_metrics.csv`` and the training curves.

Column meanings: docs/file_formats.md, which a test compares with the constants here. The first
columns of each table are those of the public JAX sweep, so that its files can be read as well.

``holdout`` is the in-context regime (few-shot sequences of classes never trained on),
``no_support`` the in-weights regime (trained classes, absent from the context).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrig.repeats import count_once, repeated_text
from trainrig.summaries import warn
from trainrig.tracking.progress import read_progress
from trainrig.tracking.tables import Column, Row, read_table, write_table

SPLITS = ("holdout", "no_support")

_INT, _FLOAT, _WORD = Column(int), Column(float), Column(str)
_INT_OR_NONE, _FLOAT_OR_NONE = Column(int, True), Column(float, True)
_WORD_OR_NONE = Column(str, True)

#: ``runs.csv``: readers need only these three; paths are relative to the file.
RUNS_REQUIRED = {"class_count": _INT, "weight_decay": _FLOAT, "checkpoint": _WORD}
#: The columns that our sweep adds, in this order.
RUNS_EXTRA = {
    "backend": _WORD,
    "seed": _INT,
    "optimizer": _WORD,
    "completed_steps": _INT,
    "n_rare_classes": _INT,
    "n_common_classes": _INT,
    "n_holdout_classes": _INT,
    "config_module": _WORD_OR_NONE,
    "example_type": _WORD,
    "source": _WORD,
    "l2_mode": _WORD,
    "status": _WORD,
    "sum_lr": _FLOAT_OR_NONE,
    "shrink": _FLOAT_OR_NONE,
    "in_grid": _INT,
    "differs": _WORD_OR_NONE,
}
RUNS_COLUMNS = (*RUNS_REQUIRED, *RUNS_EXTRA)

#: ``figure3_adamw_metrics.csv``: first these, in this order ...
METRICS_REQUIRED = {
    "class_count": _INT,
    "n_rare_classes": _INT,
    "n_common_classes": _INT,
    "n_holdout_classes": _INT,
    "weight_decay": _FLOAT,
    "global_step": _INT,
    "accuracy_holdout": _FLOAT_OR_NONE,
    "accuracy_no_support": _FLOAT_OR_NONE,
    "loss_holdout": _FLOAT_OR_NONE,
    "loss_no_support": _FLOAT_OR_NONE,
}
#: ... then these (those that some row has) and any further ones, sorted by name.
METRICS_EXTRA = {
    "accuracy_closed_holdout": _FLOAT_OR_NONE,
    "accuracy_closed_holdout_last3": _FLOAT_OR_NONE,
    "accuracy_closed_holdout_last3_se": _FLOAT_OR_NONE,
    "accuracy_closed_no_support": _FLOAT_OR_NONE,
    "accuracy_closed_no_support_last3": _FLOAT_OR_NONE,
    "accuracy_closed_no_support_last3_se": _FLOAT_OR_NONE,
    "accuracy_holdout_last3": _FLOAT_OR_NONE,
    "accuracy_holdout_last3_se": _FLOAT_OR_NONE,
    "accuracy_no_support_last3": _FLOAT_OR_NONE,
    "accuracy_no_support_last3_se": _FLOAT_OR_NONE,
    "backend": _WORD,
    "example_type": _WORD_OR_NONE,
    "in_grid": _INT_OR_NONE,
    "l2_mode": _WORD_OR_NONE,
    "n_sequences": _INT_OR_NONE,
    "optimizer": _WORD_OR_NONE,
    "seed": _INT_OR_NONE,
    "shrink": _FLOAT_OR_NONE,
    "source": _WORD_OR_NONE,
    "status": _WORD_OR_NONE,
    "sum_lr": _FLOAT_OR_NONE,
    "weight_l2_all_holdout": _FLOAT_OR_NONE,
    "weight_l2_all_no_support": _FLOAT_OR_NONE,
    "weight_l2_head_holdout": _FLOAT_OR_NONE,
    "weight_l2_head_no_support": _FLOAT_OR_NONE,
    "weight_l2_holdout": _FLOAT_OR_NONE,
    "weight_l2_no_support": _FLOAT_OR_NONE,
}

#: ``figure3_adamw_curves.csv``: one row per run, evaluation and regime.
CURVES_REQUIRED = {
    "class_count": _INT,
    "weight_decay": _FLOAT,
    "backend": _WORD,
    "l2_mode": _WORD,
    "seed": _INT,
    "step": _INT,
    "split": _WORD,
    "accuracy_closed": _FLOAT_OR_NONE,
    "accuracy_query": _FLOAT_OR_NONE,
    "loss": _FLOAT_OR_NONE,
}

#: What a reader may assume where a table of the JAX sweep lacks the column.
DEFAULTS = {"l2_mode": "decoupled", "seed": 0}
#: What a metrics row says of a run's setting beyond ``run_key``.
SETTING = (
    *("n_rare_classes", "n_common_classes", "n_holdout_classes"),
    *("global_step", "optimizer", "source", "example_type"),
)
_ACCURACIES = tuple(
    f"{metric}_{split}" for metric in ("accuracy", "accuracy_closed") for split in SPLITS
)


def shrink_factor(weight_decay: float, sum_lr: float) -> float:
    """Return exp(-λ Σlr): what decoupled decay alone leaves of a weight over a whole run."""
    return math.exp(-weight_decay * sum_lr)


def run_key(row: Mapping[str, Any]) -> tuple[int, float, str, str, int]:
    """Return what tells one run of a figure from another: classes, λ, backend, mode, seed."""
    return (
        row["class_count"],
        row["weight_decay"],
        row.get("backend") or "torch",
        _default(row, "l2_mode"),
        _default(row, "seed"),
    )


def config_facts(config: Mapping[str, Any]) -> Row:
    """Return what ``config.json`` says of a run, under the names of the columns of ``runs.csv``.

    Raises:
        LookupError, TypeError: a key is absent.
    """
    data, optimizer = config["data"], config["optimizer"]
    kinds = [f"n_{kind}_classes" for kind in ("rare", "common", "holdout")]
    counts = {kind: data["generator_config"][kind] for kind in kinds}
    return {
        "class_count": sum(counts.values()),
        **counts,
        "weight_decay": optimizer["weight_decay"],
        "optimizer": optimizer["name"],
        "l2_mode": optimizer["l2_mode"],
        "seed": config["seed"],
        "example_type": data["example_type"],
        "source": config.get("images", {}).get("image_source", data["source"]),
    }


def run_directory(checkpoint: Path) -> Path:
    """Return the run's folder: the one that holds ``checkpoints/``.

    Raises:
        ValueError: the path does not lead through a folder of that name.
    """
    for folder in (checkpoint, *checkpoint.parents):
        if folder.name == "checkpoints":
            return folder.parent
    raise ValueError(f"{checkpoint}: not a checkpoint of a run; RUN/checkpoints/... is expected")


def write_metrics(rows: Iterable[Mapping[str, Any]], path: Path | str) -> None:
    """Write ``figure3_adamw_metrics.csv``, sorted by class count, λ, backend, mode and seed.

    Extra keys become columns, ``/`` in their names turned into ``__``.

    Raises:
        ValueError: a row lacks one of ``METRICS_REQUIRED``, or a run occurs twice.
    """
    renamed = [{name.replace("/", "__"): value for name, value in row.items()} for row in rows]
    check_rows(renamed, str(path), METRICS_REQUIRED)
    extra = sorted({name for row in renamed for name in row} - set(METRICS_REQUIRED))
    full = [{**dict.fromkeys(extra), **row} for row in sorted(renamed, key=run_key)]
    write_table(full, path, [*METRICS_REQUIRED, *extra])


def read_metrics(path: Path | str, *, backend: str = "torch") -> list[Row]:
    """Read ``figure3_adamw_metrics.csv``, ours or the JAX sweep's.

    Args:
        path: the CSV file.
        backend: of rows that do not say.

    Raises:
        FileNotFoundError, ValueError: as ``read_table``; or an accuracy is not in [0, 1], λ is
            negative, or a run occurs twice with different settings.
    """
    rows = read_table(path, METRICS_REQUIRED, METRICS_EXTRA)
    for row in rows:
        row["backend"] = row.get("backend") or backend
    rows = _each_once(rows, str(path))
    check_rows(rows, str(path))
    return rows


def merge_metrics(*tables: Iterable[Row]) -> list[Row]:
    """Return the rows of several tables as one; of a run that is in two of them, the last counts.

    Which ones were is said on stderr.

    Raises:
        ValueError: two runs that a figure cannot tell apart have different settings.
    """
    rows = _each_once([row for table in tables for row in table], "metrics tables")
    check_rows(rows, "metrics tables")
    return rows


def merge_curves(*tables: Iterable[Row]) -> list[Row]:
    """Return the rows of several curve tables as one; of equal evaluations the last counts."""
    rows = [row for table in tables for row in table]
    once = {(row.get("origin"), run_key(row), row["split"], row["step"]): row for row in rows}
    return list(once.values())


def _each_once(rows: Sequence[Row], where: str) -> list[Row]:
    """Return the rows, of a run that is listed more than once the last; others fail later."""
    once = count_once(
        enumerate(rows),
        lambda item: (run_key(item[1]), tuple(item[1].get(name) for name in SETTING)),
        lambda item: item[0],
    )
    warn(
        f"{where}: " + repeated_text(f"the run {_run_text(row)}", 1 + len(older))
        for (_, row), older in once.dropped
    )
    return [row for _, row in once.kept]


def _run_text(row: Mapping[str, Any]) -> str:
    count, decay, backend, mode, seed = run_key(row)
    return (
        f"class_count {count}, weight_decay {decay:g}, backend {backend}, l2_mode {mode}, "
        f"seed {seed}"
    )


def collect_metrics(
    runs: Sequence[Mapping[str, Any]],
    evaluate: Callable[[Path], Mapping[str, Any]],
    cached: Iterable[Row] = (),
) -> list[Row]:
    """Return one metrics row per run: the cached one while it is current, else a new evaluation.

    A diverged run is not evaluated: its row has its steps and status, and no accuracies.

    Args:
        runs: rows of ``runs_table.read_runs``.
        evaluate: maps a run's folder to its metrics (all of ``METRICS_REQUIRED`` that ``runs.csv``
            does not hold, and extras).
        cached: rows of earlier metrics; current when the number of steps agrees, and whatever else
            both tables say of the run.

    Raises:
        ValueError: a run is not a torch run, so that nothing here can evaluate it.
    """
    known = {run_key(row): row for row in cached}
    rows = []
    for run in runs:
        old = known.get(run_key(run))
        if old is not None and _is_of(old, run):
            marked = run.get("in_grid") in (None, old.get("in_grid"))
            rows.append(old if marked else {**old, "in_grid": run["in_grid"]})
            continue
        if run["backend"] != "torch":
            raise ValueError(
                f"{run['checkpoint']}: a run of backend {run['backend']!r} cannot be evaluated "
                "here; give its metrics with --jax_metrics_csv"
            )
        shared = {name: run[name] for name in run if name in METRICS_EXTRA | METRICS_REQUIRED}
        if run.get("status") == "diverged":  # has no final accuracy, and none is made up
            absent = {name: None for name in METRICS_REQUIRED if name not in run}
            rows.append({**absent, **shared, "global_step": run["completed_steps"]})
        else:
            rows.append({**shared, **evaluate(run_directory(run["checkpoint"]))})
    return rows


def _is_of(row: Row, run: Mapping[str, Any]) -> bool:
    """Say whether a metrics row is of a run as ``runs.csv`` lists it.

    Another sweep whose figures went into the same folder has rows of the same class count and λ.
    """
    if run.get("completed_steps") not in (None, row["global_step"]):
        return False
    for name in METRICS_REQUIRED.keys() | METRICS_EXTRA.keys() - {"in_grid"}:
        one, other = run.get(name), row.get(name)
        if one is None or other is None or one == other:
            continue
        if not (isinstance(one, float) and math.isclose(one, other, rel_tol=1e-12)):
            return False
    return True


def curves_of_run(run: Mapping[str, Any], progress_path: Path | str) -> list[Row]:
    """Return the curve rows of one run from its ``progress.txt``.

    Args:
        run: the run's row of ``runs.csv`` (``class_count``, ``weight_decay``, ...).
        progress_path: its ``logs/progress.txt``.

    Raises:
        FileNotFoundError, ValueError: as ``read_progress``; or an evaluation has no ``step``.
    """
    class_count, weight_decay, backend, l2_mode, seed = run_key(run)
    rows = []
    for line in read_progress(progress_path):
        if line.get("split") not in SPLITS:
            continue
        if not isinstance(line.get("step"), int):
            raise ValueError(f"{progress_path}: an evaluation has no step; step=K is expected")
        row = {
            "class_count": class_count,
            "weight_decay": weight_decay,
            "backend": backend,
            "l2_mode": l2_mode,
            "seed": seed,
        }
        rows.append(row | {name: line.get(name) for name in CURVES_REQUIRED if name not in row})
    return rows


def write_curves(rows: Iterable[Mapping[str, Any]], path: Path | str) -> None:
    """Write ``figure3_adamw_curves.csv``, sorted by run, regime and step."""
    ordered = sorted(rows, key=lambda row: (*run_key(row), row["split"], row["step"]))
    write_table(ordered, path, list(CURVES_REQUIRED))


def read_curves(path: Path | str) -> list[Row]:
    """Read ``figure3_adamw_curves.csv``; errors as ``read_table``."""
    rows = read_table(path, CURVES_REQUIRED)
    for row in rows:
        if row["split"] not in SPLITS:
            raise ValueError(
                f"{path}: split is {row['split']!r}; {' or '.join(SPLITS)} is expected"
            )
    return rows


def _default(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    return DEFAULTS[name] if value is None else value


def check_rows(rows: Iterable[Mapping[str, Any]], where: str, required: Iterable[str] = ()) -> None:
    """Refuse rows of impossible values, without a ``required`` column, or of one run.

    Raises:
        ValueError: with ``where`` and the number of the row.
    """
    seen = set()
    for number, row in enumerate(rows, start=1):
        missing = [name for name in required if name not in row]
        if missing:
            raise ValueError(f"{where}: row {number} lacks {', '.join(missing)}")
        decay = row["weight_decay"]
        if not (math.isfinite(decay) and decay >= 0):
            raise ValueError(f"{where}: row {number}: weight_decay is {decay}; a number >= 0")
        for name in _ACCURACIES:
            value = row.get(name)
            if value is not None and not math.isnan(value) and not 0 <= value <= 1:
                raise ValueError(f"{where}: row {number}: {name} is {value}; a share in [0, 1]")
        key = run_key(row)
        if key in seen:
            raise ValueError(
                f"{where}: row {number} repeats the run {_run_text(row)} with another setting; "
                "one row each"
            )
        seen.add(key)
