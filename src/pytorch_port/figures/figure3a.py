"""Figure 3a and 3b: accuracy against training step, a line per class count.

Panel ``a`` is the in-context regime (few-shot sequences of held-out classes), panel ``b`` the
in-weights regime (trained classes, absent from the context). Functions only: rows in, files out.
Each panel has a table of every evaluation, a table of the last ones, and a figure.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytorch_port.figures.figure3_axes import (
    COMPANION_ALPHA,
    COMPANION_DASH,
    IN_CONTEXT,
    IN_WEIGHTS,
    header,
    legend_above,
    metric_handles,
)
from pytorch_port.figures.figure3_files import say_left_out
from pytorch_port.figures.figure3_panels import StepLook, step_panel
from pytorch_port.figures.figure3_series import Encoding, Rows, seeds_text, summarize
from pytorch_port.figures.headlines import headline_columns
from pytorch_port.sweep.figure3_tables import run_directory
from pytorch_port.sweep.runs_table import read_runs
from trainrig.plotting.style import COLUMN_IN, MUTED, new_figure, paper_style, save_figure
from trainrig.summaries import summary_lock
from trainrig.tracking.tables import Column, Row, read_table, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PanelName = Literal["a", "b"]
PANELS = {"a": IN_CONTEXT, "b": IN_WEIGHTS}

#: First and last columns of both tables; between them the metrics, sorted by name.
FIRST_COLUMNS = {"class_count": Column(int), "step": Column(int)}
LAST_COLUMNS = {"progress_path": Column(str)}
#: Metrics that every table has; any others are kept as well.
METRIC_COLUMNS = {
    "accuracy_closed": Column(float, may_be_empty=True),
    "accuracy_interim": Column(float, may_be_empty=True),
    "accuracy_query": Column(float, may_be_empty=True),
    "loss": Column(float, may_be_empty=True),
    "loss_interim": Column(float, may_be_empty=True),
    "loss_query": Column(float, may_be_empty=True),
}
#: What a row says of its run besides, from ``runs.csv``.
FACTS = ("seed", "source", "example_type", "n_holdout_classes", "in_grid")
_REQUIRED = {**FIRST_COLUMNS, **METRIC_COLUMNS, **LAST_COLUMNS}


@dataclass(frozen=True, slots=True)
class Files:
    """The three files of a panel."""

    metrics: Path
    timeseries: Path
    figure: Path


def files_of(output_dir: Path | str, panel: PanelName) -> Files:
    """Return the paths ``figure3{a,b}_torch_{metrics,timeseries}.csv`` and ``....png``."""
    stem = Path(output_dir) / f"figure3{panel}_torch"
    return Files(
        metrics=stem.with_name(f"{stem.name}_metrics.csv"),
        timeseries=stem.with_name(f"{stem.name}_timeseries.csv"),
        figure=stem.with_name(f"{stem.name}.png"),
    )


def evaluations_of_run(
    class_count: int,
    logs: Path | str,
    panel: PanelName,
    *,
    relative_to: Path | str,
    facts: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Return one row per evaluation of a run, from its ``logs/metrics.jsonl``.

    Args:
        class_count: all classes of the run.
        logs: the run's ``logs`` folder.
        panel: which regime.
        relative_to: the folder of the tables; ``progress_path`` is given from there.
        facts: further columns of every row, such as ``seed``, ``source``, ``example_type`` and
            ``n_holdout_classes``; the figure names the data and the ceiling by them.

    Raises:
        FileNotFoundError: the run has no log.
        ValueError: a line is not a JSON object; file and line are named.
    """
    log = Path(logs) / "metrics.jsonl"
    place = os.path.relpath(Path(logs) / "progress.txt", relative_to)
    rows = []
    for record in _records(log):
        if record.get("split") == PANELS[panel].split:
            metrics = {name: value for name, value in record.items() if name != "split"}
            row = {"class_count": class_count, **(facts or {}), **metrics, "progress_path": place}
            rows.append(row)
    return rows


def _records(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such log; give the logs folder of a run") from None
    for number, line in enumerate(text.split("\n")[:-1], start=1):  # an unfinished line is left out
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not valid JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{number}: {line!r} is not a JSON object")
        yield record


def last_rows(rows: Rows) -> list[Row]:
    """Return the last evaluation of each run (class count, and seed where there is one).

    The mean of its last three accuracies, and the standard error, stand beside them.
    """
    newest = {(row["class_count"], row.get("seed") or 0): row for row in with_headlines(rows)}
    return [dict(newest[key]) for key in sorted(newest)]


def with_headlines(rows: Rows) -> list[Row]:
    """Return the evaluations by step, each with the mean of its run's last three up to it."""
    runs: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    found = []
    for row in sorted(rows, key=lambda row: row["step"]):
        own = runs.setdefault((row["class_count"], row.get("seed") or 0), [])
        own.append(row)
        found.append(
            {
                **row,
                **headline_columns(own, "accuracy_closed", "accuracy_closed"),
                **headline_columns(own, "accuracy_query", "accuracy_query"),
            }
        )
    return found


def write_rows(rows: Rows, path: Path | str) -> None:
    """Write a metrics or time-series table, sorted by class count, seed and step.

    Raises:
        ValueError: there are no rows, or a row lacks ``class_count``, ``step``, ``progress_path``
            or one of ``METRIC_COLUMNS``.
    """
    if not rows:
        raise ValueError(f"{path}: no evaluations to write; at least one is needed")
    for number, row in enumerate(rows, start=1):
        missing = [name for name in _REQUIRED if name not in row]
        if missing:
            raise ValueError(f"{path}: row {number} lacks {', '.join(missing)}")
    metrics = sorted({name for row in rows for name in row} - {*FIRST_COLUMNS, *LAST_COLUMNS})
    columns = [*FIRST_COLUMNS, *metrics, *LAST_COLUMNS]
    ordered = sorted(rows, key=lambda row: (row["class_count"], row.get("seed") or 0, row["step"]))
    write_table([{**dict.fromkeys(columns), **row} for row in ordered], path, columns)


def read_rows(path: Path | str) -> list[Row]:
    """Read a metrics or time-series table; errors as ``read_table``."""
    return read_table(path, _REQUIRED)


def plot_figure3a(rows: Rows, panel: PanelName = "a", note: str = "") -> Figure:
    """Draw accuracy against step, a line per class count; seeds as mean and band.

    Args:
        rows: rows of the time series.
        panel: ``a`` (in-context, ``accuracy_closed`` with ``accuracy_query`` faint) or ``b``
            (in-weights, ``accuracy_query``).
        note: a line below the figure, such as which runs it leaves out.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError(f"figure 3{panel}: no evaluations to draw; at least one is needed")
    regime = PANELS[panel]
    full = [{"weight_decay": 0.0, **row, "split": regime.split} for row in rows]
    code = Encoding.of(full)
    with paper_style():
        fig = new_figure(1.3 * COLUMN_IN, 3.3)
        ax = fig.subplots()
        step_panel(ax, regime, full, StepLook(code=code, by_lambda=False, published=False))
        if regime.companion:
            for series in summarize(full, regime.companion, x="step"):
                x, y = [p.x for p in series.points], [p.mean for p in series.points]
                ax.plot(
                    x,
                    y,
                    color=code.colours[series.class_count],
                    linestyle=COMPANION_DASH,
                    linewidth=0.9,
                    alpha=COMPANION_ALPHA,
                )
        ax.set_xlabel("training step")
        ax.set_ylabel("accuracy")
        ax.set_title(regime.title)
        legend_above(ax, metric_handles(regime, markers=False))
        header(fig, full, [seeds_text(summarize(full, regime.metric, x="step"))])
        if note:
            fig.supxlabel("\n".join(textwrap.wrap(note, 90)), fontsize=6.5, color=MUTED)
    return fig


def write_figure3a(
    rows: Rows,
    output_dir: Path | str,
    panel: PanelName = "a",
    *,
    plot: bool = True,
    note: str = "",
) -> Files:
    """Write a panel's two tables and, if asked, its figure (PNG and PDF)."""
    files = files_of(output_dir, panel)
    write_rows(with_headlines(rows), files.timeseries)
    write_rows(last_rows(rows), files.metrics)
    if plot:
        save_figure(plot_figure3a(rows, panel, note), files.figure)
    return files


def draw_folder(folder: Path, panel: PanelName, *, plot: bool = True) -> Files:
    """Write a panel's files from all runs of a folder that its ``runs.csv`` lets be compared.

    Raises:
        ValueError: no run has been evaluated yet, or ``runs.csv`` contradicts the runs' own files.
    """
    with summary_lock(folder):  # two sweeps may end in one folder at once
        listed = read_runs(folder / "runs.csv")
        rows = [
            row
            for run in listed
            if not run.get("differs")
            for row in evaluations_of_run(
                run["class_count"],
                run_directory(run["checkpoint"]) / "logs",
                panel,
                relative_to=folder,
                facts={key: run[key] for key in FACTS if key in run},
            )
        ]
        return write_figure3a(rows, folder, panel, plot=plot, note=say_left_out(listed))
