"""Figures drawn again from a table of curves, where the result files are not kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deepobs.analyzer.plots import plot_performance
from deepobs.analyzer.results import Results, Run, Setting
from trainrig.plotting.style import save_figure
from trainrig.tracking.tables import read_table

CURVES_CSV = "published_curves.csv"


def redraw(folder: Path) -> list[Path]:
    """Draw ``published_curves.png`` from the table of that name."""
    path = folder / CURVES_CSV
    if not path.exists():
        return []
    return list(save_figure(plot_performance(read_curves(path)), path.with_suffix(".png")))


def read_curves(path: Path) -> Results:
    """Return the runs of a table: a row per problem, optimizer, lr, seed, curve and epoch."""
    curves: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for row in read_table(path, {}):
        key = tuple(row[name] for name in ("problem", "optimizer", "lr", "seed"))
        curves.setdefault(key, {}).setdefault(row["curve"], []).append(float(row["ours"]))
    results = Results(path.parent, {}, [])
    for (problem, optimizer, lr, seed), own in curves.items():
        run = Run(
            path=path,
            testproblem=problem,
            optimizer=optimizer,
            hyperparams={"lr": lr},
            seed=seed,
            batch_size=0,
            num_epochs=max(map(len, own.values())) - 1,
            weight_decay=None,
            status="complete",
            curves={name: np.array(values) for name, values in own.items()},
        )
        settings = results.settings.setdefault(problem, {}).setdefault(optimizer, {})
        settings.setdefault(f"lr__{lr}", Setting(f"lr__{lr}")).runs.append(run)
    return results
