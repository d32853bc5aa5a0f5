"""Figures: performance, sensitivity, tuning, profiles; the published baselines under each.

Every function returns a matplotlib figure and draws from result files alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deepobs.analyzer.aggregate import (
    best_setting,
    choose_metric,
    is_loss,
    longest,
    mean_and_std,
    rank_settings,
    sensitivity,
    summarise,
    threshold_of,
)
from deepobs.analyzer.baselines import OPTIMIZERS, load_baselines
from deepobs.analyzer.profiles import left_out, performance_profile, times_to_threshold
from deepobs.analyzer.results import Results
from trainrig.plotting.style import COLUMN_IN, PALETTE, TEXT_IN, new_figure, paper_style

#: Curves of at most this many values show each of them.
SHORT = 12
METRICS = ("test_losses", "train_losses", "test_accuracies", "train_accuracies")
LOGARITHMIC = ("lr", "eps", "weight_decay")
BASELINE_COLOURS = {"SGD": "#7f7f7f", "Momentum": "#b59b6d", "Adam": "#222222"}
COLOURS = PALETTE
LEAST_PANEL_IN = 2.2


def _figure(rows: int = 1, columns: int = 1, height_in: float = 2.6) -> Any:
    """Return a figure of one column's width, or of the text's where it has several panels."""
    width = COLUMN_IN if columns == 1 else max(TEXT_IN, LEAST_PANEL_IN * columns)
    figure = new_figure(width, height_in * rows)
    return figure, figure.subplots(rows, columns, squeeze=False)


@paper_style()
def plot_performance(
    results: Results, testproblems: list[str] | None = None, mode: str = "most"
) -> Any:
    """Draw mean curves with bands of one deviation: a column per problem, a row per metric.

    The published curves are cut where the longest of our runs ends.

    Args:
        results: what to draw; published baselines are dashed, under it.
        testproblems: all with results where None.
        mode: which setting stands for an optimizer.
    """
    problems = testproblems or results.testproblems
    if not problems:
        raise ValueError(f"{results.root}: no results to plot")
    figure, axes = _figure(len(METRICS), len(problems), 1.7)
    for column, problem in enumerate(problems):
        for row, metric in enumerate(METRICS):
            _panel(axes[row, column], results, problem, metric, mode)
        axes[0, column].set_title(problem)
        for axis in [axis for axis in axes[:, column] if axis.axison][-1:]:
            axis.set_xlabel("epoch")
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= {
            text: handle for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
        }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
    return figure


def _panel(axis: Any, results: Results, problem: str, metric: str, mode: str) -> None:
    axis.xaxis.get_major_locator().set_params(integer=True)
    finals, curves = [], []
    chosen = {
        name: setting
        for name in results.optimizers(problem)
        if (setting := best_setting(results, problem, name, mode)) is not None
        and metric in setting.runs[0].curves
    }
    lengths = [setting.runs[0].num_epochs + 1 for setting in chosen.values()]
    longest = max(lengths, default=None)
    for name, colour in BASELINE_COLOURS.items():
        band = load_baselines().band(problem, name, metric)
        if band is None:
            continue
        mean, std = (curve[:longest] for curve in band)
        epochs = np.arange(len(mean))
        axis.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.15, lw=0)
        label = f"{name} (published)"  # above ours, which would hide it where all is well
        axis.plot(epochs, mean, color=colour, lw=0.9, ls="--", label=label, zorder=3)
        finals.append(mean[-1])
        curves.append(mean)
    for i, (optimizer, setting) in enumerate(chosen.items()):
        mean, std = mean_and_std(setting, metric)
        epochs, colour = np.arange(len(mean)), COLOURS[i % len(COLOURS)]
        axis.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.25, lw=0)
        marker = "o" if len(mean) <= SHORT else None
        label = f"{optimizer} (n={len(setting.runs)})"
        axis.plot(epochs, mean, color=colour, lw=1.4, marker=marker, ms=2.5, label=label)
        finals.append(mean[-1])
        curves.append(mean)
    if not curves:  # such as accuracies of an autoencoder
        axis.set_axis_off()
        return
    threshold = threshold_of(problem, metric) if metric.startswith("test") else None
    if threshold is not None:
        axis.axhline(threshold, color="0.5", lw=0.7)
    axis.set_ylabel(metric.replace("_", " "))
    _limit(axis, curves, finals, threshold)


def _limit(
    axis: Any, curves: list[np.ndarray], finals: list[float], threshold: float | None
) -> None:
    """Set the y-range from the 20/80 percentiles, final values and threshold, times 0.9 and 1.1.

    Short curves are shown whole.
    """
    values = [*finals, *([] if threshold is None else [threshold])]
    for curve in curves:
        finite = curve[np.isfinite(curve)]
        if len(finite):
            values += list(np.percentile(finite, (20, 80) if len(curve) > SHORT else (0, 100)))
    values = [value for value in values if math.isfinite(value)]
    if values and min(values) < max(values):
        axis.set_ylim(0.9 * min(values), 1.1 * max(values))


@paper_style()
def plot_sensitivity(
    results: Results, testproblems: list[str] | None = None, hyperparameter: str = "lr"
) -> Any:
    """Draw relative performance in [0, 1] over a hyperparameter; published grids under it."""
    problems = testproblems or results.testproblems
    if not problems:
        raise ValueError(f"{results.root}: no results to plot")
    columns = min(4, len(problems))
    figure, axes = _figure(-(-len(problems) // columns), columns, 1.9)
    for axis in axes.flat[len(problems) :]:
        axis.set_axis_off()
    for axis, problem in zip(axes.flat, problems, strict=False):
        if hyperparameter == "lr":
            _published_grids(axis, problem)
        for i, optimizer in enumerate(results.optimizers(problem)):
            settings = results.of(problem, optimizer)
            x, y = sensitivity(settings, choose_metric(settings), hyperparameter)
            colour = COLOURS[i % len(COLOURS)]
            axis.plot(x, y, marker="o", ms=2.5, lw=1.2, color=colour, label=optimizer)
        axis.set(title=problem, xlabel=hyperparameter, ylim=(0, 1.05))
        axis.set_ylabel("relative performance")
        if hyperparameter in LOGARITHMIC:
            axis.set_xscale("log")
        axis.legend(fontsize=6)
    return figure


def _published_grids(axis: Any, problem: str) -> None:
    for row in load_baselines().rows:
        if row["tp"] != problem:
            continue
        lr, finals, _ = zip(*row["lr_grid_seed42_final_metric"], strict=True)
        value = np.array([math.nan if v is None else v for v in finals], np.float64)
        accuracy = "test_accuracies" in row
        relative = value / np.nanmax(value) if accuracy else np.nanmin(value) / value
        name = OPTIMIZERS[row["opt"]]
        shown = np.clip(np.nan_to_num(relative, nan=0.0), 0, 1)
        colour = BASELINE_COLOURS[name]
        axis.plot(lr, shown, ls="--", lw=0.9, color=colour, label=f"{name} (published)")


@paper_style()
def plot_sensitivity_2d(
    results: Results, testproblem: str, optimizer: str, x: str, y: str, metric: str | None = None
) -> Any:
    """Draw the final metric over two hyperparameters, one marker per setting of the same length."""
    settings = longest(results.of(testproblem, optimizer))
    if not settings:
        raise ValueError(f"{results.root}: no runs of {optimizer} on {testproblem}")
    metric = choose_metric(settings, metric)
    points = [
        (float(s.hyperparams[x]), float(s.hyperparams[y]), summarise(s, metric).mean)
        for s in settings
        if x in s.hyperparams and y in s.hyperparams
    ]
    if not points:
        raise ValueError(f"{optimizer} on {testproblem}: no setting has both {x!r} and {y!r}")
    figure, axes = _figure()
    xs, ys, values = np.array(points).T
    axis = axes[0, 0]
    drawn = axis.scatter(xs, ys, c=values, cmap="viridis_r" if is_loss(metric) else "viridis")
    axis.scatter(xs[np.isnan(values)], ys[np.isnan(values)], marker="x", color="0.5")
    axis.set(xlabel=x, ylabel=y, title=f"{optimizer} on {testproblem}")
    for name, values_of, scale in ((x, xs, axis.set_xscale), (y, ys, axis.set_yscale)):
        if name in LOGARITHMIC and (values_of > 0).all():
            scale("log")
    figure.colorbar(drawn, label=metric.replace("_", " "))
    return figure


@paper_style()
def plot_final_metric_vs_tuning_rank(
    results: Results, testproblem: str, optimizer: str, metric: str | None = None
) -> Any:
    """Draw the final metric of each setting of the greatest length, best first, every seed."""
    settings = longest(results.of(testproblem, optimizer))
    if not settings:
        raise ValueError(f"{results.root}: no runs of {optimizer} on {testproblem}")
    metric = choose_metric(settings, metric)
    figure, axes = _figure()
    axis = axes[0, 0]
    for rank, setting in enumerate(rank_settings(settings, metric), start=1):
        finals = [run.curves[metric][-1] for run in setting.runs if len(run.curves[metric])]
        axis.plot([rank] * len(finals), finals, "o", ms=3, color=COLOURS[1], alpha=0.6)
        axis.plot(rank, summarise(setting, metric).mean, "_", ms=10, color=COLOURS[0])
    axis.set(xlabel="rank of the setting", ylabel=metric.replace("_", " "))
    axis.set_title(f"{optimizer} on {testproblem}")
    return figure


@paper_style()
def plot_profiles(results: Results, tau_max: float = 4.0) -> Any:
    """Draw performance profiles: share of problems solved within tau times the fastest."""
    taus = np.linspace(1, tau_max, 200)
    figure, axes = _figure()
    axis = axes[0, 0]
    for optimizer, profile in performance_profile(times_to_threshold(results), taus).items():
        style = "--" if optimizer.endswith("(published)") else "-"
        axis.step(taus, profile, where="post", ls=style, label=optimizer)
    axis.set(xlabel="time relative to the fastest", ylabel="share of problems", ylim=(0, 1.02))
    if axis.lines:
        axis.legend(fontsize="small")
    if absent := left_out(results):
        text = "left out, of another length:\n" + "\n".join(absent)
        axis.set_title(text, fontsize="x-small", loc="left")
    return figure


@paper_style()
def plot_budget(curves: dict[str, np.ndarray], metric: str) -> Any:
    """Draw the best metric found against the number of trials, a line per search."""
    figure, axes = _figure()
    for name, curve in curves.items():
        axes[0, 0].step(np.arange(1, len(curve) + 1), curve, where="post", label=name)
    axes[0, 0].set(xlabel="trials", ylabel=f"best {metric.replace('_', ' ')}")
    axes[0, 0].legend(fontsize="small")
    return figure
