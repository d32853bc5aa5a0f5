"""What a report says of in-context-learning runs: both regimes, beside the published figures."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_port.figures.published import READ_ERROR, SOURCE, Curve, Regime, figure3_curve
from pytorch_port.sweep.figure3_tables import run_directory
from trainrig.repeats import setting_key
from trainrig.report.content import Section, Table, Tile, plural
from trainrig.report.describers import Describer, Description, Metric, Watched
from trainrig.report.records import HEADLINE_EVALUATIONS, RunRecord
from trainrig.stats import mean_and_sd
from trainrig.summaries import left_out_text
from trainrig.tracking.tables import Row

#: Every evaluation draws sequences of its own, so that one alone is no headline.
_accuracy = partial(Metric, percent=True, average=HEADLINE_EVALUATIONS)

METRICS = (
    _accuracy("holdout", "accuracy_closed", "in-context accuracy (of 2 labels)"),
    _accuracy("no_support", "accuracy_query", "in-weights accuracy"),
    _accuracy("holdout", "accuracy_query", "in-context accuracy (of all labels)"),
    Metric("holdout", "loss", "in-context loss / nats"),
    Metric("no_support", "loss", "in-weights loss / nats"),
    Metric("train", "loss", "training loss / nats"),
    Metric("train", "weight_l2", "weight norm"),
    Metric("train", "grad_l2", "gradient norm"),
)
KEY_NAMES = {
    "data.generator_config.n_rare_classes": "rare classes",
    "data.generator_config.n_common_classes": "common classes",
    "data.generator_config.n_holdout_classes": "holdout classes",
    "data.seq_config.p_bursty": "share of bursty sequences",
    "data.generator_config.zipf_exponent": "Zipf exponent",
    "optimizer.weight_decay": "λ",
    "optimizer.max_lr": "learning rate",
    "optimizer.name": "optimizer",
    "training_steps": "steps",
}
HIDDEN = ("images.", "data.symbolic_config.")
CAPTIONS = {
    "figure3_adamw.png": "Both accuracies against weight decay, and against the training step.",
    "figure3_adamw_curves.png": "Every run's accuracies against the training step.",
    "figure3a_torch.png": "In-context accuracy against the training step, by class count.",
    "figure3b_torch.png": "In-weights accuracy against the training step, by class count.",
}
REGIMES: dict[Regime, Metric] = {"in_context": METRICS[0], "in_weights": METRICS[1]}


def describe(folder: Path, runs: Sequence[RunRecord]) -> Description | None:
    """Describe a folder whose runs are all of this experiment; None for any other."""
    if not runs or not all(_is_ours(run.config) for run in runs):
        return None
    sources = {run.config.get("images", {}).get("image_source", "unknown") for run in runs}
    drawn = "synthetic" in sources
    warnings = []
    if drawn:
        warnings.append(
            "Images are procedural glyphs, not Omniglot: shapes of curves may be compared with the "
            "published ones, values may not."
        )
    listed, wrong = _table(folder)
    warnings += wrong
    apart = {
        run_directory(row["checkpoint"]).name: row["differs"]
        for row in listed
        if row.get("differs")
    }
    compared = [run for run in runs if run.name not in apart] or runs
    if apart:
        warnings.append(f"Tiles and figures: {left_out_text(list(apart.values()))}.")
    return Description(
        title=_title(runs),
        lead=_lead(runs),
        warnings=warnings,
        tiles=_tiles(compared),
        metrics=METRICS,
        hidden_keys=HIDDEN,
        key_names=KEY_NAMES,
        captions=CAPTIONS,
        sections=_published(runs),
    )


def _table(folder: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of a sweep's ``runs.csv``, or none and what is wrong with it."""
    from pytorch_port.sweep.runs_table import read_runs  # imports torch, which views do without

    path = folder / "runs.csv"
    if not path.exists():
        return [], []
    try:
        return read_runs(path), []
    except ValueError as error:
        return [], [str(error)]


def _is_ours(config: Mapping[str, Any]) -> bool:
    return "n_holdout_classes" in config.get("data", {}).get("generator_config", {})


def class_count(run: RunRecord) -> int:
    """Return all partitioned classes of a run."""
    generator = run.config["data"]["generator_config"]
    return sum(generator[f"n_{kind}_classes"] for kind in ("rare", "common", "holdout"))


def _title(runs: Sequence[RunRecord]) -> str:
    if len(runs) == 1:
        return f"In-context learning: {runs[0].name}"
    counts = sorted({class_count(run) for run in runs})
    decays = {run.config["optimizer"]["weight_decay"] for run in runs}
    varied = f"{len(decays)} weight decays, " if len(decays) > 1 else ""
    return f"In-context learning: {varied}{' and '.join(map(str, counts))} classes"


def _lead(runs: Sequence[RunRecord]) -> str:
    parts = []
    for metric in METRICS[:2]:
        found = [
            (value, error or 0.0, run.name)
            for run in runs
            for value, error in [metric.of(run)]
            if value is not None
        ]
        if found:
            value, error, name = max(found)
            where = f" ({name})" if len(runs) > 1 else ""
            spread = f" ± {100 * error:.1f}" if error else ""
            parts.append(f"{metric.label.partition(' (')[0]} {100 * value:.1f}{spread} %{where}")
    if not parts:
        return "No evaluation has been logged yet."
    return ("Highest at the end: " if len(runs) > 1 else "At the end: ") + "; ".join(parts) + "."


def _tiles(runs: Sequence[RunRecord]) -> list[Tile]:
    """Per class count at the smallest weight decay: both accuracies, over seeds.

    With one seed the spread is the standard error of its own evaluations. Of runs that differ in
    more than their seeds, or that stand at different steps, each group has tiles of its own.
    """
    tiles = []
    for count in sorted({class_count(run) for run in runs}):
        own = [run for run in runs if class_count(run) == count]
        least = min(run.config["optimizer"]["weight_decay"] for run in own)
        groups: dict[Hashable, list[RunRecord]] = {}
        for run in own:
            if run.config["optimizer"]["weight_decay"] == least:
                key = (setting_key(run.config, seed=False) or run.name, run.step)
                groups.setdefault(key, []).append(run)
        for group, metric in itertools.product(groups.values(), METRICS[:2]):
            found = [(v, error) for v, error in map(metric.of, group) if v is not None]
            if not found:
                continue
            mean, spread = mean_and_sd([100 * value for value, _ in found])
            what = "s.d. over seeds"
            if len(found) == 1:
                spread, what = 100 * (found[0][1] or 0.0), "s.e. of its last evaluations"
            label = f"{metric.label.partition(' (')[0]}, {count} classes"
            whose = f", {group[0].name} at step {group[0].step}" if len(groups) > 1 else ""
            seeds = f"{plural(len(found), 'seed')}{f', ± {what}' if spread else ''}"
            shown = f"{mean:.1f} ± {spread:.1f} %" if spread else f"{mean:.1f} %"
            tiles.append(Tile(label, shown, f"λ = {least:g}{whose}, {seeds}"))
    return tiles[:8]


def _published(runs: Sequence[RunRecord]) -> list[Section]:
    """Ours beside Figure 3 of Chan et al. 2022, at the same step, for λ = 0."""
    rows = []
    for run in runs:
        if run.config["optimizer"]["weight_decay"] != 0:
            continue
        for regime, metric in REGIMES.items():
            curve, (ours, error) = figure3_curve(regime, class_count(run)), metric.of(run)
            if curve is not None and ours is not None:
                rows.append(_published_row(run, metric, curve, ours, error))
    if not rows:
        return []
    text = (
        f"{SOURCE}, good to about ± {100 * READ_ERROR:.0f} points. There: 12 layers, 105-px "
        "Omniglot, batches of 32, Adam, class counts without the holdout classes. A value at "
        "another step, model or image set is no reproduction. Between two readings of a curve the "
        "value is interpolated. Ours: mean of the last "
        f"{HEADLINE_EVALUATIONS} evaluations ± its standard error. No value was published before "
        "the first reading of a curve."
    )
    return [Section("Beside published values", [Table(rows)], text)]


def _published_row(
    run: RunRecord, metric: Metric, curve: Curve, ours: float, error: float | None
) -> dict[str, Any]:
    there = curve.at(run.step)
    last_step, last = curve.points[-1]
    return {
        "run": run.name,
        "classes": class_count(run),
        "what": metric.label,
        "step": run.step,
        "ours / %": round(100 * ours, 2),
        "±": None if error is None else round(100 * error, 2),
        "published at this step / %": None if there is None else round(100 * there, 1),
        f"published at step {last_step} / %": round(100 * last, 1),
    }


WATCHED = Watched(
    metrics=(
        Metric("train", "loss", "loss"),
        Metric("holdout", "accuracy_closed", "in-context"),
        Metric("no_support", "accuracy_query", "in-weights"),
        Metric("train", "weight_l2", "|w|"),
        Metric("train", "grad_l2", "|g|"),
    ),
    total="training_steps",
)
DESCRIBER = Describer(
    describe, owns=_is_ours, watched=WATCHED, redraw="pytorch_port.figures.archive:redraw"
)
