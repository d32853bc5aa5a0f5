"""From ``runs.csv`` to the files of Figure 3: metrics, curves, PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_port.figures.figure3 import Overlay
from pytorch_port.figures.figure3_sources import CURVES_CSV, METRICS_CSV, draw
from pytorch_port.figures.headlines import with_headlines
from pytorch_port.sweep.figure3_tables import (
    collect_metrics,
    curves_of_run,
    merge_metrics,
    read_metrics,
    run_directory,
    run_key,
    write_curves,
    write_metrics,
)
from pytorch_port.sweep.runs_table import read_runs
from trainrig.files import read_json
from trainrig.summaries import left_out_text, summary_lock, warn
from trainrig.tracking.tables import Row


def draw_runs(
    runs_csv: Path,
    output_dir: Path,
    *,
    recompute: bool = False,
    max_eval_batches: int | None = None,
    device: str = "auto",
    data_dir: str | None = None,
    extra_rows: Sequence[Row] = (),
    overlay: Overlay | None = None,
) -> list[Path]:
    """Evaluate the runs of ``runs.csv`` that need it and write tables and figures.

    Args:
        runs_csv: as ``read_runs`` takes it.
        output_dir: where the files go.
        recompute: evaluate every run again.
        max_eval_batches: batches per evaluation; default each run's own.
        device: see ``choose_device``.
        data_dir: folder of data sets.
        extra_rows: metrics rows of other backends to draw as well.
        overlay: published curves and archived runs to draw as well.

    Runs of other settings are listed there and not drawn; stderr and the figure say which.

    Returns:
        The paths written, figures last.

    Raises:
        ValueError: ``runs.csv`` lists no run, or contradicts the runs' own files.
    """
    _read(runs_csv)  # refused before anything is written
    with summary_lock(output_dir):  # two sweeps may end in one folder at once
        listed, runs = _read(runs_csv)
        metrics_csv = output_dir / METRICS_CSV
        cached = [] if recompute else current_rows(metrics_csv, runs, max_eval_batches)

        def evaluate(path: Path) -> dict[str, object]:
            from pytorch_port.train.evaluation import evaluate_run

            return evaluate_run(
                path, max_eval_batches=max_eval_batches, device=device, data_dir=data_dir
            )

        rows = collect_metrics(runs, evaluate, cached)
        curves = [
            row
            for run in runs
            for row in curves_of_run(run, run_directory(run["checkpoint"]) / "logs/progress.txt")
        ]
        rows = with_headlines(rows, curves)
        write_metrics(rows, metrics_csv)
        write_curves(curves, output_dir / CURVES_CSV)
        note = say_left_out(listed)
        every = merge_metrics(rows, extra_rows)
        figures = draw(every, curves, output_dir, overlay, note)
        return [metrics_csv, output_dir / CURVES_CSV, *figures]


def _read(runs_csv: Path) -> tuple[list[Row], list[Row]]:
    """Return all runs of a ``runs.csv``, and those that a figure may compare."""
    listed = read_runs(runs_csv)
    runs = [run for run in listed if not run.get("differs")]
    if not runs:
        why = left_out_text([run["differs"] for run in listed])
        raise ValueError(
            f"{runs_csv}: lists no run with a checkpoint; train at least one"
            + (f" ({why})" if why else "")
        )
    return listed, runs


def say_left_out(listed: Sequence[Row]) -> str:
    """Name on stderr each run of ``runs.csv`` that cannot be compared; return the figure's note."""
    left = [run for run in listed if run.get("differs")]
    warn([f"{run_directory(run['checkpoint'])}: not shown: {run['differs']}" for run in left])
    return left_out_text([run["differs"] for run in left])


def current_rows(
    metrics_csv: Path, runs: Sequence[Row], max_eval_batches: int | None = None
) -> list[Row]:
    """Return the cached metrics rows whose runs have not been trained or asked otherwise since.

    A checkpoint younger than the table belongs to a run that was trained again.
    ``max_eval_batches`` asks for a number of sequences that a cached row may not have.
    """
    if not metrics_csv.exists():
        return []
    written = metrics_csv.stat().st_mtime_ns
    stale = set()
    for run in runs:
        checkpoint = run["checkpoint"]
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns > written:
            stale.add(run_key(run))
    rows = [row for row in read_metrics(metrics_csv) if run_key(row) not in stale]
    if max_eval_batches is None:
        return rows
    sizes = {run_key(run): _batch_size(run_directory(run["checkpoint"])) for run in runs}
    return [
        row
        for row in rows
        if (size := sizes.get(run_key(row))) is None
        or row.get("n_sequences") in (None, max_eval_batches * size)
    ]


def _batch_size(run: Path) -> int | None:
    """Return a run's evaluation batch size, None where the run itself is not there."""
    file = run / "config.json"
    return read_json(file)["evaluation"]["batch_size"] if file.exists() else None
