"""Trials of a search: a setting with the metric of its seeds, judged and written down."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepobs.analyzer.results import read_results
from trainrig.errors import nearest
from trainrig.files import write_atomically
from trainrig.stats import Moments
from trainrig.summaries import differences


@dataclass(frozen=True)
class Trial:
    """One setting with all its seeds.

    Attributes:
        hyperparams: the setting.
        values: the final (or best) metric of each seed; NaN for a diverged run.
        metric: what was measured.
        setting: all that decides its numbers, see ``deepobs.identity``.
        differs: of a setting of another search in the folder: what differs from this search's
            beside the hyperparameters.
    """

    hyperparams: dict[str, Any]
    values: list[float]
    metric: str
    setting: str = ""
    differs: str = ""

    @property
    def mean(self) -> float:
        """Mean over seeds; NaN where one diverged."""
        return Moments.of(self.values).mean

    def cost(self) -> float:
        """Return what is minimised: infinite where a run diverged."""
        value = self.mean if self.metric.endswith("losses") else -self.mean
        return value if math.isfinite(value) else math.inf


def default_metric(output: Mapping[str, Any]) -> str:
    """Return the curve to judge by: accuracies before losses, validation before test."""
    for name in ("valid_accuracies", "test_accuracies", "valid_losses", "test_losses"):
        if name in output:
            return name
    raise ValueError("no metric found in the result")


def value_of(output: Mapping[str, Any], metric: str, mode: str) -> float:
    """Return a run's final or best value; NaN where it diverged.

    Raises:
        KeyError: no such curve, with the nearest.
    """
    if metric not in output:
        raise KeyError(f"metric {metric!r} is not in the result{nearest(metric, output)}")
    if output["status"] != "complete":
        return math.nan
    curve = [math.nan if value is None else value for value in output[metric]]
    if mode == "final":
        return curve[-1]
    return min(curve) if metric.endswith("losses") else max(curve)


def other_trials(trials: Sequence[Trial], folder: Path, mode: str) -> list[Trial]:
    """Return the settings whose results lie in ``folder`` and that are not among ``trials``.

    Args:
        trials: of this search.
        folder: of one problem and optimizer.
        mode: as for ``value_of``.
    """
    tried = {trial.setting for trial in trials}
    reference, metric = json.loads(trials[0].setting), trials[0].metric
    results = read_results(folder)
    found: dict[str, Trial] = {}
    for run in results:
        if run.setting in tried or metric not in run.curves:
            continue
        differs = differences(reference, json.loads(run.setting), ("hyperparams",))
        trial = Trial(run.hyperparams, [], metric, run.setting, differs)
        curve = {"status": run.status, metric: run.curves[metric].tolist()}
        found.setdefault(run.setting, trial).values.append(value_of(curve, metric, mode))
    return list(found.values())


def write_tuning_summary(
    trials: Sequence[Trial], folder: Path, others: Sequence[Trial] = ()
) -> Path:
    """Write ``tuning_log.json``: one JSON object per line, best first, with the trial's number.

    Settings of other searches in the folder (``others``) have no number; those that differ in more
    than hyperparameters come last and say in what.
    """
    numbered = [*enumerate(trials, start=1), *((None, trial) for trial in others)]
    lines = []
    for number, trial in sorted(numbered, key=lambda pair: (pair[1].differs, pair[1].cost())):
        mean, std = trial.mean, Moments.of(trial.values).population_sd
        record: dict[str, Any] = {
            "params": trial.hyperparams,
            f"{trial.metric}_mean": mean if math.isfinite(mean) else None,
            f"{trial.metric}_std": std if math.isfinite(std) else None,
            "n": len(trial.values),
            "trial": number,
        }
        if trial.differs:
            record["differs"] = trial.differs
        lines.append(json.dumps(record, allow_nan=False))
    path = folder / "tuning_log.json"
    write_atomically(path, "\n".join(lines) + "\n")
    return path
