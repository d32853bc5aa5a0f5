"""The published baselines v1.1 (February 2019), shipped inside the package: figures only.

Three optimizers on eight problems: statistics over ten seeds at the tuned learning rate, the grid
of 36 learning rates, mean and standard deviation per epoch, and the convergence thresholds.
Source: the DeepOBS_Baselines data set, release v1.1, recomputed from its raw files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "data"
#: TensorFlow's name → the name shown, in the published order.
OPTIMIZERS = {
    "GradientDescentOptimizer": "SGD",
    "MomentumOptimizer": "Momentum",
    "AdamOptimizer": "Adam",
}


@dataclass(frozen=True)
class Baselines:
    """Published figures.

    Attributes:
        thresholds: convergence performance by problem.
        rows: one record of statistics per problem and optimizer, as published.
        curves: arrays by ``<problem>__<optimizer>__<metric>__mean|std``.
    """

    thresholds: dict[str, float]
    rows: list[dict[str, Any]]
    curves: dict[str, np.ndarray]

    def curve(self, key: str) -> np.ndarray | None:
        """Return one array, or None."""
        return self.curves.get(key)

    def row(self, testproblem: str, optimizer: str) -> dict[str, Any] | None:
        """Return the statistics of one problem and optimizer, by either name."""
        for row in self.rows:
            if row["tp"] == testproblem and optimizer in (row["opt"], OPTIMIZERS[row["opt"]]):
                return row
        return None

    def band(
        self, testproblem: str, optimizer: str, metric: str
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return mean and standard deviation per epoch, or None.

        Args:
            testproblem: the problem's name.
            optimizer: TensorFlow's or the shown name.
            metric: e.g. ``test_losses``.
        """
        names = {shown: name for name, shown in OPTIMIZERS.items()}
        prefix = f"{testproblem}__{names.get(optimizer, optimizer)}__{metric}__"
        if f"{prefix}mean" not in self.curves:
            return None
        return self.curves[f"{prefix}mean"], self.curves[f"{prefix}std"]


@cache
def load_baselines() -> Baselines:
    """Return the published figures."""
    record = json.loads((FOLDER / "baselines_v1_1.json").read_text(encoding="utf-8"))
    with np.load(FOLDER / "baseline_curves_v1_1.npz", allow_pickle=False) as archive:
        curves = {name: archive[name] for name in archive.files}
    return Baselines(record["convergence_performance"], record["rows"], curves)
