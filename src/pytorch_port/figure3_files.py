"""From ``runs.csv`` to the files of Figure 3: metrics, curves, PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_port.figure3 import Overlay
from pytorch_port.figure3_sources import CURVES_CSV, METRICS_CSV, draw
from pytorch_port.figure3_tables import (
    collect_metrics,
    curves_of_run,
    merge_metrics,
    read_metrics,
    read_runs,
    run_directory,
    write_curves,
    write_metrics,
)
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

    Returns:
        The paths written, figures last.
    """
    runs = read_runs(runs_csv)
    metrics_csv = output_dir / METRICS_CSV
    cached = read_metrics(metrics_csv) if metrics_csv.exists() and not recompute else []

    def evaluate(path: Path) -> dict[str, object]:
        from pytorch_port.evaluation import evaluate_run

        return evaluate_run(
            path, max_eval_batches=max_eval_batches, device=device, data_dir=data_dir
        )

    rows = collect_metrics(runs, evaluate, cached)
    curves = [
        row
        for run in runs
        for row in curves_of_run(run, run_directory(run["checkpoint"]) / "logs/progress.txt")
    ]
    write_metrics(rows, metrics_csv)
    write_curves(curves, output_dir / CURVES_CSV)
    figures = draw(merge_metrics(rows, extra_rows), curves, output_dir, overlay)
    return [metrics_csv, output_dir / CURVES_CSV, *figures]
