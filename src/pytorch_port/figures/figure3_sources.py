"""Figure 3 from tables that are already there: cached metrics, the JAX sweep's, archived runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pytorch_port.figures.figure3 import Overlay, plot_curves, plot_lambda_panels
from pytorch_port.sweep.figure3_tables import (
    CURVES_REQUIRED,
    merge_curves,
    merge_metrics,
    read_curves,
    read_metrics,
    write_curves,
    write_metrics,
)
from trainrig.plotting.style import save_figure
from trainrig.tracking.tables import Row, read_table

METRICS_CSV = "figure3_adamw_metrics.csv"
CURVES_CSV = "figure3_adamw_curves.csv"
FIGURE_PNG = "figure3_adamw.png"
CURVES_PNG = "figure3_adamw_curves.png"
PUBLISHED = "published"


def draw_tables(
    metrics: Sequence[Path],
    output_dir: Path,
    *,
    jax_metrics: Sequence[Path] = (),
    curves: Sequence[Path] | None = None,
    overlay: Overlay | None = None,
) -> list[Path]:
    """Draw Figure 3 from metrics tables and write the rows drawn beside it.

    Args:
        metrics: metrics tables; rows without a backend are torch's.
        output_dir: where the files go. A table there that is one of the inputs is left as it is.
        jax_metrics: metrics tables whose rows without a backend are jax's.
        curves: curve tables; default those named ``figure3_adamw_curves.csv`` beside the metrics.
        overlay: published curves and archived runs to draw as well.

    Returns:
        The paths written, figures last.

    Raises:
        FileNotFoundError, ValueError: as ``read_metrics``; or a run is in two tables.
    """
    rows = merge_metrics(
        *(read_metrics(path) for path in metrics),
        *(read_metrics(path, backend="jax") for path in jax_metrics),
    )
    curve_files = list(_beside(metrics) if curves is None else curves)
    curve_rows = merge_curves(*(read_curves(path) for path in curve_files))
    inputs = {path.resolve() for path in (*metrics, *jax_metrics, *curve_files)}
    written = []
    for name, table, write in (
        (METRICS_CSV, rows, write_metrics),
        (CURVES_CSV, curve_rows, write_curves),
    ):
        path = output_dir / name
        if table and path.resolve() not in inputs:
            write(table, path)
            written.append(path)
    return [*written, *draw(rows, curve_rows, output_dir, overlay)]


def draw(
    rows: Sequence[Row],
    curves: Sequence[Row],
    output_dir: Path,
    overlay: Overlay | None = None,
    note: str = "",
) -> list[Path]:
    """Write ``figure3_adamw`` and, given curves, ``figure3_adamw_curves``, as PNG and PDF.

    ``note``: what else the figures say, such as which runs they leave out.
    """
    figure = plot_lambda_panels(rows, curves=curves, overlay=overlay, note=note)
    written = [*save_figure(figure, output_dir / FIGURE_PNG)]
    if curves:
        figure = plot_curves(curves, rows=rows, overlay=overlay, note=note)
        written += save_figure(figure, output_dir / CURVES_PNG)
    return written


def load_overlay(items: Iterable[str]) -> Overlay:
    """Read what ``--overlay`` names.

    Args:
        items: ``published`` for Chan et al. 2022, Fig. 3; a metrics or a curves table of archived
            runs; or a folder that holds one or both under their usual names.

    Raises:
        FileNotFoundError: a table or folder does not exist, or the folder holds no table.
        ValueError: a table is malformed.
    """
    published, rows, curves = False, [], []
    for item in items:
        if item == PUBLISHED:
            published = True
            continue
        for path in _tables(Path(item)):
            origin = {"origin": f"archived {_archive_name(path)}"}
            if _is_curves(path):
                curves += [row | origin for row in read_curves(path)]
            else:
                rows += [row | origin for row in read_metrics(path)]
    return Overlay(published=published, rows=rows, curves=merge_curves(curves))


def _beside(metrics: Iterable[Path]) -> list[Path]:
    return [path for table in metrics if (path := table.with_name(CURVES_CSV)).exists()]


def _tables(item: Path) -> list[Path]:
    if not item.is_dir():
        return [item]
    found = [item / name for name in (METRICS_CSV, CURVES_CSV) if (item / name).exists()]
    if not found:
        raise FileNotFoundError(f"{item}: no {METRICS_CSV} or {CURVES_CSV} in this folder")
    return found


def _is_curves(path: Path) -> bool:
    rows = read_table(path, {})
    return bool(rows) and set(CURVES_REQUIRED) <= set(rows[0])


def _archive_name(path: Path) -> str:
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "archive" else folder.name
