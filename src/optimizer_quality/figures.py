"""One figure per table of the comparison; drawing only, from rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer_quality.feature_images import FEATURE_IMAGES, save_features
from trainrig.plotting.style import (
    MARKERS,
    MUTED,
    TEXT_IN,
    colours,
    new_figure,
    paper_style,
    save_figure,
)
from trainrig.stats import mean_and_sd
from trainrig.tracking.tables import read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
JITTER = 0.14
#: Bins with fewer images have no accuracy to speak of, and are not drawn.
LEAST_IN_BIN = 20
#: Least height of an axis: smaller differences are within the sampling error of a test set.
LEAST_SPAN = {"test_accuracy": 2.0, "test_loss": 0.05}


def _by(rows: Iterable[Row], *keys: str) -> dict[Any, list[Row]]:
    """Group rows by one key's value, or by the tuple of several."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = row[keys[0]] if len(keys) == 1 else tuple(row[k] for k in keys)
        groups.setdefault(key, []).append(row)
    return groups


def _colours(rows: Sequence[Row], key: str = "optimizer") -> dict[Any, str]:
    return colours(sorted({row[key] for row in rows}))


def _kinds(rows: Sequence[Row]) -> list[str]:
    """Kinds of pairs, those between seeds first."""
    return sorted({row["kind"] for row in rows}, key=lambda kind: (" / " in kind, kind))


def pair_groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group pairs by kind; those of one seed, which share start and order, stand apart."""
    groups: dict[str, list[Row]] = {}
    for kind in _kinds(rows):
        for same_seed, note in ((0, ""), (1, ", same seed")):
            own = [r for r in rows if (r["kind"], r["same_seed"]) == (kind, same_seed)]
            if own:
                groups[kind + note] = own
    return groups


def _one_legend(ax: Axes) -> None:
    """Draw a legend in which every label stands once."""
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        ax.legend(unique.values(), unique.keys())


def _legend_below(figure: Figure) -> None:
    """Draw one legend for all panels, outside of them."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    columns = min(len(unique), 4)
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=columns)


def _dots(ax: Axes, groups: Mapping[str, Sequence[float]], colour: Mapping[str, str]) -> None:
    """Draw every value as a dot beside its group's mean and standard deviation."""
    for place, (name, values) in enumerate(groups.items()):
        mean, sd = mean_and_sd(values)
        spread = np.linspace(-JITTER, JITTER, len(values)) if len(values) > 1 else [0.0]
        ax.scatter(place + np.asarray(spread), values, s=14, color=colour[name], zorder=3)
        ax.errorbar(
            place + 0.28, mean, yerr=sd, fmt="_", color=colour[name], markersize=9, zorder=3
        )
    ax.set_xticks(range(len(groups)), list(groups))
    ax.set_xlim(-0.5, len(groups) - 0.3)
    ax.grid(axis="x", visible=False)


def _widen(ax: Axes, least: float) -> None:
    """Give an axis at least this height around its middle, so that no trifle fills it."""
    low, high = ax.get_ylim()
    missing = max(least - (high - low), 0.0) / 2
    ax.set_ylim(low - missing, high + missing)


def draw_curves(rows: Sequence[Row]) -> Figure:
    """Loss and accuracy over epochs; a thin line per seed, a thick one for the mean."""
    figure = new_figure(TEXT_IN, 2.5)
    axes = figure.subplots(1, 3)
    panels = (("train", "loss"), ("val", "loss"), ("val", "accuracy"))
    colour = _colours(rows)
    for ax, (split, key) in zip(axes, panels, strict=True):
        chosen = [row for row in rows if row["split"] == split]
        for optimizer, own in _by(chosen, "optimizer").items():
            for run in _by(own, "run").values():
                epochs = [row["epoch"] for row in run]
                values = [row[key] for row in run]
                ax.plot(epochs, values, color=colour[optimizer], linewidth=0.6, alpha=0.5)
            mean = {e: mean_and_sd([r[key] for r in g])[0] for e, g in _by(own, "epoch").items()}
            ax.plot(
                list(mean),
                list(mean.values()),
                color=colour[optimizer],
                label=optimizer,
                marker=MARKERS[0] if len(mean) < 12 else None,
                markersize=3,
            )
        long = "training" if split == "train" else "validation"
        ax.set(title=f"{long} {key}", xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
    _one_legend(axes[0])
    return figure


def draw_accuracy(rows: Sequence[Row]) -> Figure:
    """Final test accuracy and test loss: seeds as dots, mean and standard deviation beside."""
    figure = new_figure(TEXT_IN, 2.4)
    for ax, key, scale, label in zip(
        figure.subplots(1, 2),
        ("test_accuracy", "test_loss"),
        (100, 1),
        ("test accuracy (%)", "test loss (nats)"),
        strict=True,
    ):
        groups = {n: [scale * r[key] for r in g] for n, g in _by(rows, "optimizer").items()}
        _dots(ax, groups, _colours(rows))
        _widen(ax, LEAST_SPAN[key])
        ax.set(title=label)
    return figure


def draw_disagreement(rows: Sequence[Row]) -> Figure:
    """Disagreement by kind of pair, beside the distance of the predicted distributions."""
    figure = new_figure(TEXT_IN, 2.4)
    pairs = pair_groups(rows)
    panels = ("disagreement", "total_variation")
    titles = ("different class (% of test images)", "total variation of predictions (%)")
    for ax, key, title in zip(figure.subplots(1, 2), panels, titles, strict=True):
        groups = {k.replace(", ", ",\n"): [100 * r[key] for r in own] for k, own in pairs.items()}
        _dots(ax, groups, colours(list(groups)))
        ax.set_ylim(0, 1.08 * max(map(max, groups.values())))
        ax.set(title=title)
    return figure


def draw_barrier(rows: Sequence[Row]) -> Figure:
    """Test loss along the lines: BatchNorm interpolated, estimated again, and channels aligned."""
    groups, modes = pair_groups(rows), list(dict.fromkeys(row["batchnorm"] for row in rows))
    figure = new_figure(TEXT_IN, 2.6)
    colour = colours(list(groups))
    for ax, mode in zip(figure.subplots(1, len(modes), sharey=True), modes, strict=True):
        for number, (kind, own) in enumerate(groups.items()):
            chosen = [row for row in own if row["batchnorm"] == mode]
            for line in _by(chosen, "run_a", "run_b").values():
                ax.plot(
                    [row["t"] for row in line],
                    [row["loss"] for row in line],
                    color=colour[kind],
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=2.5,
                    linewidth=1,
                    label=kind,
                )
        aligned = mode.startswith("aligned")
        title = "channels aligned, re-estimated" if aligned else f"BatchNorm {mode}"
        ax.set(title=title, xlabel="position between the solutions")
    axes = figure.axes
    axes[0].set_ylabel("test loss (nats)")
    _legend_below(figure)
    return figure


def draw_cka(rows: Sequence[Row]) -> Figure:
    """CKA of equal layers by kind of pair, and one whole matrix between optimizers."""
    figure = new_figure(TEXT_IN, 2.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    groups = pair_groups(rows)
    colour = colours(list(groups))
    layers = list(dict.fromkeys(row["layer_a"] for row in rows))
    for kind, own in groups.items():
        same = [r for r in own if r["layer_a"] == r["layer_b"]]
        stats = [mean_and_sd([r["cka"] for r in same if r["layer_a"] == name]) for name in layers]
        means, sds = zip(*stats, strict=True)
        left.errorbar(
            range(len(layers)), means, yerr=sds, color=colour[kind], marker="o", label=kind
        )
    left.set_xticks(range(len(layers)), layers, rotation=45, ha="right")
    left.set(
        title="same layer (mean ± sd over pairs)",
        ylabel="CKA",
        ylim=(min(0, *left.get_ylim()), 1.03),
    )
    left.legend(loc="lower left")
    pair = next(iter(_by(groups[next(reversed(groups))], "run_a", "run_b").values()))
    matrix = np.array([row["cka"] for row in pair]).reshape(len(layers), len(layers))
    image = right.imshow(matrix, vmin=0, vmax=1, cmap="viridis", origin="lower")
    right.set_xticks(range(len(layers)), layers, rotation=45, ha="right")
    right.set_yticks(range(len(layers)), layers)
    right.grid(visible=False)
    right.set(title="every layer", ylabel=pair[0]["run_a"], xlabel=pair[0]["run_b"])
    figure.colorbar(image, ax=right, shrink=0.8, label="CKA")
    return figure


#: What the coordinates of the Hessian are called in figures and tables.
COORDINATES = {
    "plain": "plain: depends on the weights' scale",
    "filter": "relative to each filter's norm",
    "adaptive": "relative to each weight",
}


def draw_hessian(rows: Sequence[Row]) -> Figure:
    """Largest eigenvalues in each coordinates, and the trace; logarithmic where all are positive.

    A table without the column ``coordinates`` holds the plain ones.
    """
    groups = _by([{"coordinates": "plain", **row} for row in rows], "coordinates")
    tall = len(groups) > 1
    figure = new_figure(TEXT_IN, 4.6 if tall else 2.5)
    axes = figure.subplots(2 if tall else 1, 2).flatten()
    colour = _colours(rows)
    for ax, (coordinates, own) in zip(axes, groups.items(), strict=False):
        for (optimizer, _), run in _by(own, "optimizer", "run").items():
            ax.plot(
                [row["rank"] for row in run],
                [row["eigenvalue"] for row in run],
                color=colour[optimizer],
                marker="o",
                markersize=3,
                linewidth=0.9,
                label=optimizer,
            )
        ax.set(title=COORDINATES[coordinates], xlabel="rank", ylabel="eigenvalue")
        if all(row["eigenvalue"] > 0 for row in own):
            ax.set_yscale("log")
        ax.xaxis.get_major_locator().set_params(integer=True)
    _one_legend(axes[0])
    relative = groups.get("filter", rows)
    first = [row for row in relative if row["rank"] == 1]
    last = axes[-1]
    _dots(last, {n: [r["trace"] for r in g] for n, g in _by(first, "optimizer").items()}, colour)
    last.set(title="trace, relative to each filter's norm" if tall else "trace")
    if all(row["trace"] > 0 for row in first):
        last.set_yscale("log")
    return figure


def draw_calibration(rows: Sequence[Row]) -> Figure:
    """Reliability diagram, and the expected calibration error by optimizer."""
    figure = new_figure(TEXT_IN, 2.8)
    left, right = figure.subplots(1, 2)
    colour = _colours(rows)
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    filled = [row for row in rows if row["n_images"] >= LEAST_IN_BIN]
    for (optimizer, _), own in _by(filled, "optimizer", "run").items():
        left.plot(
            [row["bin_confidence"] for row in own],
            [row["bin_accuracy"] for row in own],
            color=colour[optimizer],
            marker="o",
            markersize=2.5,
            linewidth=0.9,
            label=optimizer,
        )
    left.set(title="reliability", xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    _one_legend(left)
    runs = [own[0] for own in _by(rows, "run").values()]
    groups = {n: [100 * r["ece"] for r in g] for n, g in _by(runs, "optimizer").items()}
    _dots(right, groups, colour)
    right.set_ylim(bottom=0)
    right.set(title="expected calibration error (%)")
    return figure


def _draw_layers(rows: Sequence[Row], panels: Sequence[tuple[str, str]]) -> Figure:
    """Draw one small panel per statistic, layers from input to output, means over seeds."""
    figure = new_figure(TEXT_IN, 2.9)
    colour = _colours(rows)
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for ax, (key, title) in zip(axes, panels, strict=True):
        for optimizer, own in _by(rows, "optimizer").items():
            stats = [mean_and_sd([r[key] for r in own if r["layer"] == name]) for name in layers]
            means, sds = zip(*stats, strict=True)
            ax.errorbar(
                range(len(layers)),
                means,
                yerr=sds,
                color=colour[optimizer],
                label=optimizer,
                marker="o",
                markersize=2.5,
                linewidth=0.9,
            )
        ax.set_title(title)
        ax.set_xticks(range(len(layers)), layers, rotation=90, fontsize=5.5)
    _one_legend(figure.axes[0])
    return figure


def draw_robustness(rows: Sequence[Row]) -> Figure:
    """Accuracy against the strength of each corruption, mean and standard deviation over seeds."""
    return _draw_shift(rows, "optimizer", "accuracy", "accuracy (%)")


def draw_shift(rows: Sequence[Row]) -> Figure:
    """Disagreement against the strength of each corruption, by kind of pair."""
    named = [{**row, "group": kind} for kind, own in pair_groups(rows).items() for row in own]
    return _draw_shift(named, "group", "disagreement", "different class (%)")


def _draw_shift(rows: Sequence[Row], key: str, value: str, label: str) -> Figure:
    """Draw one panel per corruption, a line per group."""
    corruptions = _by(rows, "corruption")
    figure = new_figure(TEXT_IN, 2.4)
    colour = colours(list(dict.fromkeys(row[key] for row in rows)))
    axes = figure.subplots(1, len(corruptions), sharey=True)
    for ax, (corruption, chosen) in zip(axes, corruptions.items(), strict=True):
        for number, (name, own) in enumerate(_by(chosen, key).items()):
            strengths = _by(own, "strength")
            stats = [mean_and_sd([100 * r[value] for r in g]) for g in strengths.values()]
            means, sds = zip(*stats, strict=True)
            ax.errorbar(
                list(strengths),
                means,
                yerr=sds,
                color=colour[name],
                marker=MARKERS[number % len(MARKERS)],
                markersize=3,
                linewidth=0.9,
                label=name,
            )
        ax.set(title=corruption, xlabel="strength")
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel(label)
    axes[0].set_ylim(bottom=0)
    _legend_below(figure)
    return figure


def draw_pruning(rows: Sequence[Row]) -> Figure:
    """Accuracy against sparsity, one panel per scope of the magnitudes."""
    scopes = _by(rows, "scope")
    titles = {
        "network": "smallest of the network",
        "layer": "smallest of each layer",
        "filter": "relative to each filter's norm",
    }
    figure = new_figure(TEXT_IN, 2.5)
    colour = _colours(rows)
    axes = figure.subplots(1, len(scopes), sharey=True)
    for ax, (scope, chosen) in zip(axes, scopes.items(), strict=True):
        for optimizer, own in _by(chosen, "optimizer").items():
            stats = {
                s: mean_and_sd([100 * r["accuracy"] for r in g])
                for s, g in _by(own, "sparsity").items()
            }
            means, sds = zip(*stats.values(), strict=True)
            ax.errorbar(
                [100 * s for s in stats],
                means,
                yerr=sds,
                color=colour[optimizer],
                marker="o",
                markersize=3,
                linewidth=0.9,
                label=optimizer,
            )
        ax.set(title=titles[scope], xlabel="weights set to 0 (%)")
    axes[0].set_ylabel("accuracy (%)")
    axes[0].set_ylim(bottom=0)
    _one_legend(axes[0])
    return figure


def draw_classes(rows: Sequence[Row]) -> Figure:
    """Heat maps of the cosine of last features between classes, mean over seeds."""
    optimizers = _by(rows, "optimizer")
    figure = new_figure(TEXT_IN, 2.6)
    axes = np.atleast_1d(figure.subplots(1, len(optimizers)))
    values = [row["cosine"] for row in rows if row["cosine"] is not None]
    low, high = min(0.0, *values), 1.0
    for ax, (optimizer, own) in zip(axes, optimizers.items(), strict=True):
        runs = list(_by(own, "run").values())
        side = round(len(runs[0]) ** 0.5)
        matrices = [
            [np.nan if row["cosine"] is None else row["cosine"] for row in run] for run in runs
        ]
        mean = np.mean(np.array(matrices).reshape(len(runs), side, side), axis=0)
        image = ax.imshow(mean, vmin=low, vmax=high, cmap="viridis")
        ax.grid(visible=False)
        other = mean[~np.eye(side, dtype=bool)].mean()
        ax.set(title=f"{optimizer}\nother classes: {other:.2f}", xlabel="class")
    axes[0].set_ylabel("class")
    figure.colorbar(image, ax=list(axes), shrink=0.8, label="mean cosine")
    return figure


def draw_probes(rows: Sequence[Row]) -> Figure:
    """Accuracy of the linear read-out of every layer, mean and standard deviation over seeds."""
    return _draw_layers(rows, (("accuracy", "accuracy of a linear read-out"),))


def draw_spectra(rows: Sequence[Row]) -> Figure:
    """Singular values of four kernels from input to output, mean over seeds."""
    layers = list(_by(rows, "layer"))
    shown = [layers[round(i * (len(layers) - 1) / 3)] for i in range(4)]
    figure = new_figure(TEXT_IN, 2.3)
    colour = _colours(rows)
    for ax, layer in zip(figure.subplots(1, 4, sharey=True), shown, strict=True):
        chosen = [row for row in rows if row["layer"] == layer]
        for optimizer, own in _by(chosen, "optimizer").items():
            ranks = _by(own, "rank")
            ax.plot(
                list(ranks),
                [mean_and_sd([r["singular_value"] for r in g])[0] for g in ranks.values()],
                color=colour[optimizer],
                linewidth=1,
                label=optimizer,
            )
        ax.set(title=layer, xlabel="rank")
    figure.axes[0].set_ylabel("singular value / largest")
    _one_legend(figure.axes[-1])
    return figure


def _has(rows: Sequence[Row], prefix: str) -> bool:
    """Say whether a table has a column of this prefix; older ones lack some."""
    return any(key.startswith(prefix) for key in rows[0])


def draw_weights(rows: Sequence[Row]) -> Figure:
    """Kernel norm, stable rank and distance from the start, layer by layer."""
    return _draw_layers(
        rows,
        (
            ("l2", "kernel norm"),
            ("stable_rank", "stable rank"),
            ("distance_from_start", "distance / start"),
            *((("angle_from_start", "angle from start (°)"),) if _has(rows, "angle") else ()),
        ),
    )


def draw_activations(rows: Sequence[Row]) -> Figure:
    """Spread, zeros and directions in use of the activations, layer by layer."""
    return _draw_layers(
        rows,
        (
            ("sd", "standard deviation"),
            ("zeros", "share of exact zeros"),
            ("participation_ratio", "directions in use"),
        ),
    )


DRAW: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "curves": draw_curves,
    "accuracy": draw_accuracy,
    "disagreement": draw_disagreement,
    "barrier": draw_barrier,
    "cka": draw_cka,
    "hessian": draw_hessian,
    "calibration": draw_calibration,
    "robustness": draw_robustness,
    "shift": draw_shift,
    "pruning": draw_pruning,
    "classes": draw_classes,
    "probes": draw_probes,
    "spectra": draw_spectra,
    "weights": draw_weights,
    "activations": draw_activations,
}


def redraw(folder: Path) -> list[Path]:
    """Draw every measure whose data of a comparison lie in ``folder``."""
    written: list[Path] = []
    if (folder / FEATURE_IMAGES).exists():
        written += save_features(folder)
    for name, draw in DRAW.items():
        path = folder / f"{name}.csv"
        rows = read_table(path, {}) if path.exists() else []
        if rows and ("optimizer" in rows[0] or "kind" in rows[0]):  # or it is another table
            with paper_style():
                figure = draw(rows)
            written += save_figure(figure, folder / f"{name}.png")
    return written
