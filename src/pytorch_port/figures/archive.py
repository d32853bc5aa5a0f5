"""Figures of in-context learning drawn again from the tables beside them, without any run."""

from __future__ import annotations

from pathlib import Path

from pytorch_port.config.schema import IclConfig
from pytorch_port.figures.figure3_sources import METRICS_CSV, draw_tables
from pytorch_port.figures.figure3a import PanelName, files_of, plot_figure3a, read_rows
from pytorch_port.figures.reproduction import BASE_JSON, make_plan
from pytorch_port.figures.reproduction_figures import draw_figures
from pytorch_port.figures.reproduction_files import FINALS_CSV
from trainrig.config import from_dict
from trainrig.files import read_json
from trainrig.plotting.style import save_figure
from trainrig.tracking.tables import Column, read_table


def redraw(folder: Path) -> list[Path]:
    """Draw Figure 3, 3a, 3b and the published experiments, whichever has its table here."""
    written: list[Path] = []
    if (folder / METRICS_CSV).exists():
        written += draw_tables([folder / METRICS_CSV], folder)
    panels: tuple[PanelName, ...] = ("a", "b")
    for panel in panels:
        files = files_of(folder, panel)
        if files.timeseries.exists():
            written += save_figure(plot_figure3a(read_rows(files.timeseries), panel), files.figure)
    if (folder / BASE_JSON).exists():
        written += _published(folder)
    return written


def _published(folder: Path) -> list[Path]:
    """Draw the figures of a reproduction from its tables."""
    rows = read_table(folder / "plan.csv", {})
    base = from_dict(IclConfig, read_json(folder / BASE_JSON), str(folder / BASE_JSON))
    figures, seeds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("figure", "seed"))
    plan = make_plan(base, [str(figure) for figure in figures], seeds)
    curves = [
        {**row, "figure": str(row["figure"])} for row in read_table(folder / "curves.csv", {})
    ]
    finals = read_table(folder / FINALS_CSV, {"label": Column(str)})
    return draw_figures(plan, curves, finals, folder)
