"""From runs to figures: mean curves, final and best values, speed, tunability, confidence.

Conventions of the published analysis: mean and *population* standard deviation over seeds, for each
epoch; the final value is the last entry of the mean curve, the best value its extremum. A diverged
run has no value: it makes the mean of its setting NaN, as a diverged setting should be.

Speed is the mean first epoch at the convergence threshold over the runs that reach it; a run that
does not has no speed (the published analysis takes N + 1 for it, which depends on how long it was
given). Settings of unequal length are ranked apart, the longest first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepobs.analyzer.baselines import load_baselines
from deepobs.analyzer.results import Results, Setting
from trainrig.stats import Moments, t_interval

MODES = ("final", "best", "most")


@dataclass(frozen=True)
class Summary:
    """Figures of one setting on one metric.

    Attributes:
        n: number of runs.
        mean, std: final values over runs, population deviation.
        sd: their sample deviation, which tests use (NaN for one run).
        best: extremum of the mean curve.
        low, high: 95 % confidence interval of the mean (Student's t; NaN for one run).
        speed: mean epochs to the threshold of the runs that reach it; None where none does.
        reached: runs that reach it; None without a threshold.
        diverged: runs that diverged.
    """

    n: int
    mean: float
    std: float
    sd: float
    best: float
    low: float
    high: float
    speed: float | None
    reached: int | None
    diverged: int

    @property
    def moments(self) -> Moments:
        """What tests compare: number, mean and sample deviation."""
        return Moments(self.n, self.mean, self.sd)


def choose_metric(settings: Setting | Sequence[Setting], metric: str | None = None) -> str:
    """Return the metric to judge by: accuracies where the problem has them, else losses.

    Validation curves win over test curves where every run has them, unless ``metric`` says
    otherwise.

    Args:
        settings: one, or all that are compared.
        metric: a curve's name.

    Raises:
        ValueError: ``metric`` is not among a run's curves, or they have none in common.
    """
    compared = [settings] if isinstance(settings, Setting) else settings
    runs = [(setting, run) for setting in compared for run in setting.runs]
    if metric is not None:
        for setting, run in runs:
            if metric not in run.curves:
                raise ValueError(
                    f"metric {metric!r} is not in {setting.name}; "
                    f"available: {', '.join(run.curves)}"
                )
        return metric
    for candidate in ("valid_accuracies", "test_accuracies", "valid_losses", "test_losses"):
        if all(candidate in run.curves for _, run in runs):
            return candidate
    raise ValueError(f"{compared[0].name}: no metric found")


def is_loss(metric: str) -> bool:
    """Say whether smaller is better."""
    return metric.endswith("losses")


def curves_of(setting: Setting, metric: str) -> np.ndarray:
    """Return (runs, N + 1); where a run ended early, NaN."""
    length = setting.runs[0].num_epochs + 1
    rows = np.full((len(setting.runs), length), math.nan)
    for row, run in zip(rows, setting.runs, strict=True):
        curve = run.curves.get(metric, np.empty(0))[:length]
        row[: len(curve)] = curve
    return rows


def mean_and_std(setting: Setting, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and population standard deviation per epoch."""
    rows = curves_of(setting, metric)
    return rows.mean(0), rows.std(0)


def threshold_of(testproblem: str, metric: str) -> float | None:
    """Return the published convergence threshold of a problem's test metric, or None."""
    value = load_baselines().thresholds.get(testproblem)
    if value is None:
        return None
    losses = testproblem in ("quadratic_deep", "mnist_vae", "fmnist_vae")
    return value if is_loss(metric) == losses else None


def summarise(setting: Setting, metric: str) -> Summary:
    """Return the figures of one setting."""
    rows = curves_of(setting, metric)
    final, mean = rows[:, -1], rows.mean(0)
    loss = is_loss(metric)
    best = math.nan
    if not np.isnan(mean).all():
        best = float(np.nanmin(mean) if loss else np.nanmax(mean))
    threshold = threshold_of(setting.runs[0].testproblem, metric)
    speed, reached = None, None
    if threshold is not None:
        speed, reached = _speed(rows, threshold, loss)
    moments = Moments.of(final)
    low, high = t_interval(moments)
    diverged = sum(run.status == "diverged" for run in setting.runs)
    return Summary(
        moments.n,
        moments.mean,
        moments.population_sd,
        moments.sd,
        best,
        low,
        high,
        speed,
        reached,
        diverged,
    )


def _speed(rows: np.ndarray, threshold: float, loss: bool) -> tuple[float | None, int]:
    hit = rows <= threshold if loss else rows >= threshold
    epochs = hit.argmax(1)[hit.any(1)]
    return float(epochs.mean()) if len(epochs) else None, len(epochs)


def speed_text(speed: float | None, reached: int | None, n: int, epochs: int) -> str:
    """Return a speed as a table shows it.

    >>> speed_text(12.0, 3, 3, 100), speed_text(12.0, 2, 3, 100)
    ('12.0', '12.0, 1 of 3 not reached in 100')
    >>> speed_text(None, 0, 3, 100), speed_text(None, None, 3, 100)
    ('not reached in 100', '')
    """
    if reached is None:
        return ""
    if speed is None:
        return f"not reached in {epochs}"
    rest = f", {n - reached} of {n} not reached in {epochs}" if reached < n else ""
    return f"{speed:.1f}{rest}"


def published_speed(row: Mapping[str, Any]) -> float | None:
    """Return a published speed over the runs that reached the threshold; None where none did.

    The published mean holds N + 1 for each of the others, which is taken out.
    """
    if not row["nconv"]:
        return None
    return (row["speed"] * row["n"] - (row["n"] - row["nconv"]) * (row["N"] + 1)) / row["nconv"]


def rank_settings(settings: list[Setting], metric: str, mode: str = "final") -> list[Setting]:
    """Return settings from best to worst; those of which a run diverged last, in every mode.

    Settings of fewer epochs stand after all longer ones: their values are on another scale.

    Args:
        settings: of one optimizer on one problem.
        metric: what to judge by.
        mode: ``final`` value, ``best`` value, or ``most`` runs (ties by final value).
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; accepted: {', '.join(MODES)}")
    sign = 1.0 if is_loss(metric) else -1.0

    def key(setting: Setting) -> tuple[bool, float, float, float]:
        summary = summarise(setting, metric)
        most, epochs = -summary.n if mode == "most" else 0, -setting.runs[0].num_epochs
        if math.isnan(summary.mean):
            return (True, most, epochs, 0.0)
        return (False, most, epochs, sign * (summary.best if mode == "best" else summary.mean))

    return sorted(settings, key=key)


def best_setting(
    results: Results,
    testproblem: str,
    optimizer: str,
    mode: str = "most",
    metric: str | None = None,
    epochs: int | None = None,
) -> Setting | None:
    """Return the setting that stands for an optimizer; None where it has no run.

    Args:
        results: of a folder.
        testproblem: its name.
        optimizer: its name.
        mode: see ``rank_settings``.
        metric: what to judge by.
        epochs: among the settings of this length; None takes the first in rank of any.
    """
    settings = of_length(results.of(testproblem, optimizer), epochs)
    if not settings:
        return None
    return rank_settings(settings, choose_metric(settings, metric), mode)[0]


def published_value(row: dict[str, Any], metric: str, epoch: int) -> tuple[float, float]:
    """Return a published curve's mean and population deviation at an epoch.

    Raises:
        ValueError: the published runs ended before that epoch.
    """
    band = load_baselines().band(row["tp"], row["opt"], metric)
    assert band is not None  # the row is a published one
    mean, std = band
    if epoch >= len(mean):
        raise ValueError(f"{row['tp']}: the published runs end at epoch {row['N']}, not {epoch}")
    return float(mean[epoch]), float(std[epoch])


def published_moments(row: dict[str, Any], metric: str, epoch: int) -> Moments:
    """Return number of seeds, mean and sample deviation of a published curve at an epoch."""
    return Moments.of_population(row["n"], *published_value(row, metric, epoch))


def of_length(settings: Sequence[Setting], epochs: int | None) -> list[Setting]:
    """Return the settings of so many epochs; all where it is None."""
    return [s for s in settings if epochs in (None, s.runs[0].num_epochs)]


def longest(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings that have the greatest number of epochs."""
    most = max((setting.runs[0].num_epochs for setting in settings), default=0)
    return [setting for setting in settings if setting.runs[0].num_epochs == most]


def sensitivity(
    settings: list[Setting], metric: str, hyperparameter: str = "lr"
) -> tuple[np.ndarray, np.ndarray]:
    """Return a hyperparameter's values and the relative performance in [0, 1] at each.

    The best setting has 1: ``best / value`` for losses, ``value / best`` for accuracies; 0 where
    the setting diverged. Sorted by the hyperparameter. Shorter settings than the longest are left
    out.
    """
    settings = longest(settings)
    pairs = []
    for setting in settings:
        value = setting.hyperparams.get(hyperparameter)
        if isinstance(value, int | float) and not isinstance(value, bool):
            pairs.append((float(value), summarise(setting, metric).mean))
    if not pairs:
        return np.empty(0), np.empty(0)
    x, y = np.array(sorted(pairs)).T
    if np.isnan(y).all():
        return x, np.zeros_like(y)
    relative = np.nanmin(y) / y if is_loss(metric) else y / np.nanmax(y)
    return x, np.clip(np.nan_to_num(relative, nan=0.0), 0.0, 1.0)
