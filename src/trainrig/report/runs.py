"""The page of any set of runs: what they reached, what differs between them, what made them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrig.config import flatten
from trainrig.repeats import SEEDS
from trainrig.report.content import (
    Chart,
    Folded,
    Item,
    Link,
    Page,
    Picture,
    Section,
    Series,
    Table,
    Tile,
    plural,
)
from trainrig.report.describers import Description, Metric
from trainrig.report.records import RunRecord, repeated_texts
from trainrig.stats import mean_and_sd

MAX_METRICS = 10
#: Columns of differing keys in the table of runs; all of them are in the table of differences.
MAX_KEYS = 6


def runs_page(folder: Path, runs: Sequence[RunRecord], description: Description) -> Page:
    """Return the page of ``runs``, found in ``folder``, as described."""
    sections: list[Section] = list(description.sections) if description.whole else []
    if not description.whole:
        metrics = description.metrics or choose_metrics(runs)
        varying = differing_keys(runs, description.hidden_keys)
        names = short_names(list(varying), description.key_names)
        charts = description.charts or [
            chart for metric in metrics if (chart := metric_chart(metric, runs, varying, names))
        ]
        if charts:
            text = (
                "Lines are means over seeds, bands one standard deviation."
                if any(series.low for chart in charts for series in chart.series)
                else ""
            )
            sections.append(Section("Curves", charts, text))
        sections += description.sections
        sections += _pictures(folder, description.captions)
        if runs:
            rows = [run_row(run, names, metrics) for run in runs]
            text = f"A click on a heading sorts.{_averages(metrics)}"
            sections.append(Section("Runs", [Table(rows)], text))
            sections += _configuration(runs, varying)
            sections += _environment(runs)
    sections += _files(folder, runs)
    return Page(
        title=description.title,
        lead=description.lead,
        warnings=[*description.warnings, *_troubles(runs)],
        tiles=description.tiles,
        notes=[
            *description.notes,
            *repeated_texts(runs),
            *([_counted(runs, folder)] if runs else []),
        ],
        sections=sections,
    )


def generic_description(folder: Path, runs: Sequence[RunRecord]) -> Description:
    """Return a description of runs that no experiment claims: the best of each metric."""
    tiles = []
    for metric in choose_metrics(runs)[:4]:
        values = [v for run in runs if (v := run.value(metric.split, metric.key)) is not None]
        if values:
            best = max(values) if "acc" in metric.key else min(values)
            which = "highest" if "acc" in metric.key else "lowest"
            note = f"{which} of {len(values)} runs" if len(values) > 1 else ""
            tiles.append(Tile(metric.label, format_value(best, metric.percent), note))
    name = runs[0].name if len(runs) == 1 else folder.name
    return Description(title=name, tiles=tiles)


def choose_metrics(runs: Sequence[RunRecord]) -> list[Metric]:
    """Return the scalars that most runs log: evaluations before training, losses first."""
    seen: Counter[tuple[str, str]] = Counter()
    for run in runs:
        for split, scalars in run.final.items():
            for key in scalars:
                if run.value(split, key) is not None:
                    seen[split, key] += 1

    def weight(pair: tuple[str, str]) -> tuple[Any, ...]:
        split, key = pair
        plain = key in ("loss", "accuracy")
        return (not plain, "acc" not in key, "loss" not in key, split == "train", split, key)

    common = [pair for pair, count in seen.items() if 2 * count >= len(runs)]
    return [
        Metric(split, key, f"{split} {key.replace('_', ' ')}".strip(), percent="accuracy" in key)
        for split, key in sorted(common, key=weight)[:MAX_METRICS]
    ]


def differing_keys(runs: Sequence[RunRecord], hidden: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return ``{dotted key: one value per run}`` for keys whose values differ; None is absent."""
    flat = [flatten(run.config) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = {}
    for key in keys:
        values = [one.get(key) for one in flat]
        if any(value != values[0] for value in values) and not key.startswith(tuple(hidden)):
            found[key] = values
    return found


def short_names(keys: Sequence[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a reader calls each dotted key.

    That is its known name, else its last part, or the whole key where last parts are equal.

    >>> short_names(["optimizer.lr", "my_seed", "a.n", "b.n"], {"optimizer.lr": "rate"})
    {'optimizer.lr': 'rate', 'my_seed': 'my seed', 'a.n': 'a.n', 'b.n': 'b.n'}
    """
    last = Counter(key.rsplit(".", 1)[-1] for key in keys)
    tails = {key: key.rsplit(".", 1)[-1] for key in keys}
    short = {key: tail if last[tail] == 1 else key for key, tail in tails.items()}
    return {key: (known or {}).get(key, name.replace("_", " ")) for key, name in short.items()}


def run_row(run: RunRecord, names: Mapping[str, str], metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return a run's line: link, status, what is special about it, what it reached."""
    row: dict[str, Any] = {"run": Link(run.name, run.path), "status": run.status}
    row[f"{run.counts}s"] = run.step
    config = flatten(run.config)
    for key in list(names)[:MAX_KEYS]:
        row[names[key]] = cell(config.get(key))
    for metric in metrics:
        value, error = metric.of(run)
        title, scale = (f"{metric.label} / %", 100.0) if metric.percent else (metric.label, 1.0)
        row[title] = None if value is None else scale * value
        if metric.average > 1:
            row[f"± {title}"] = None if error is None else scale * error
    return row


def metric_chart(
    metric: Metric,
    runs: Sequence[RunRecord],
    varying: Mapping[str, Sequence[Any]],
    names: Mapping[str, str],
) -> Chart | None:
    """Return the metric against the step: mean and band by setting where seeds repeat it."""
    scale = 100.0 if metric.percent else 1.0
    curves: dict[str, list[tuple[RunRecord, list[float], list[float | None]]]] = {}
    labels = setting_names(runs, varying, names)
    for position, run in enumerate(runs):
        rows = [r for r in run.rows if r.get("split", "") == metric.split and metric.key in r]
        if rows:
            x = [float(row["step"]) for row in rows]
            y = [None if row[metric.key] is None else scale * row[metric.key] for row in rows]
            curves.setdefault(labels[position], []).append((run, x, y))
    if not curves:
        return None
    repeated = any(len(group) > 1 for group in curves.values())
    series = []
    for colour, label in enumerate(sorted(curves, key=_natural)):
        group = curves[label]
        if repeated:
            series.append(mean_series(label, [(x, y) for _, x, y in group], colour))
        for run, x, y in group:
            series.append(Series(run.name if repeated else label, x, y, colour, thin=repeated))
    unit = " / %" if metric.percent else ""
    return Chart(metric.label, series, runs[0].counts, metric.label + unit)


def setting_names(
    runs: Sequence[RunRecord], varying: Mapping[str, Sequence[Any]], names: Mapping[str, str]
) -> list[str]:
    """Return what tells each run's setting from the others', the seed left out.

    Three keys are named; all of them where these do not tell two settings apart.
    """
    keys = [key for key in varying if key.rsplit(".", 1)[-1] not in SEEDS]
    settings = [tuple(json.dumps(varying[key][i]) for key in keys) for i in range(len(runs))]

    def label(position: int, most: int) -> str:
        values = {key: varying[key][position] for key in keys}
        parts = [f"{names[key]} {_brief(v)}" for key, v in values.items() if v is not None]
        return ", ".join(parts[:most]) or runs[position].name

    for most in (3, len(keys)):
        labels = [label(position, most) for position in range(len(runs))]
        if len(set(zip(labels, settings, strict=True))) == len(set(labels)):
            break
    return labels


def _averages(metrics: Sequence[Metric]) -> str:
    """Say which columns are means, and of what."""
    counts = {metric.average for metric in metrics if metric.average > 1}
    if not counts:
        return ""
    said = " and ".join(map(str, sorted(counts)))
    return f" Columns with a ± are means of the last {said} evaluations, ± one standard error."


def _brief(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(cell(value))


def _natural(label: str) -> list[Any]:
    """Return a sort key that puts "lr 0.001" before "lr 0.1" and words in their order."""
    parts = re.split(r"([-+]?\d+\.?\d*(?:e[-+]?\d+)?)", label)
    return [(float(p), "") if i % 2 else (0.0, p) for i, p in enumerate(parts)]


def mean_series(
    name: str, curves: Sequence[tuple[Sequence[float], Sequence[float | None]]], colour: int
) -> Series:
    """Return the mean over curves at the positions that all have, with one standard deviation."""
    tables = [dict(zip(x, y, strict=True)) for x, y in curves]
    shared = [x for x in tables[0] if all(table.get(x) is not None for table in tables)]
    spreads = [mean_and_sd([y for t in tables if (y := t[x]) is not None]) for x in shared]
    return Series(
        f"{name} (mean of {len(tables)})" if len(tables) > 1 else name,
        shared,
        [mean for mean, _ in spreads],
        colour,
        low=[mean - sd for mean, sd in spreads] if len(tables) > 1 else (),
        high=[mean + sd for mean, sd in spreads] if len(tables) > 1 else (),
    )


def format_value(value: float, percent: bool = False) -> str:
    """Return a headline figure as text.

    >>> format_value(0.7712, percent=True), format_value(0.12345)
    ('77.1 %', '0.1235')
    """
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def cell(value: Any) -> Any:
    """Return a configuration value as a table's cell."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return json.dumps(value)


def _pictures(folder: Path, captions: Mapping[str, str]) -> list[Section]:
    files = sorted(folder.glob("*.png"), key=lambda path: (path.name not in captions, path.name))
    pictures = [Picture(path, captions.get(path.name, "")) for path in files]
    return [Section("Figures", pictures)] if pictures else []


def _configuration(
    runs: Sequence[RunRecord], varying: Mapping[str, Sequence[Any]]
) -> list[Section]:
    rows = []
    for key, values in varying.items():
        counts = Counter(json.dumps(value) for value in values)
        shown = ", ".join(f"{v} ({n})" if len(counts) < len(runs) else v for v, n in counts.items())
        rows.append({"key": key, "values": len(counts), "value (runs)": shown})
    common = {k: v for k, v in flatten(runs[0].config).items() if k not in varying}
    shared = "\n".join(f"{key}: {json.dumps(value)}" for key, value in common.items())
    title = "The same in all runs" if len(runs) > 1 else "The whole configuration"
    text = "Keys whose values differ between the runs." if rows else ""
    items: list[Item] = [
        *([Table(rows)] if rows else []),
        *([Folded(title, shared)] if shared else []),
    ]
    return [Section("Configuration", items, text)] if items else []


def _environment(runs: Sequence[RunRecord]) -> list[Section]:
    kinds: Counter[str] = Counter()
    commands: dict[str, None] = {}
    for run in runs:
        facts = flatten(run.environment)
        command = facts.pop("command", None)
        if isinstance(command, list):
            commands[" ".join(map(str, command))] = None
        kinds[json.dumps(facts, sort_keys=True)] += 1
    rows = [
        {**{short: cell(v) for short, v in _short(json.loads(kind)).items()}, "runs": count}
        for kind, count in kinds.items()
        if kind != "{}"
    ]
    if not rows:
        return []
    items: list[Item] = [Table(rows)]
    if commands:
        items.append(Folded("Commands", "\n".join(commands)))
    return [Section("Environment", items, "What made the runs.")]


def _short(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = short_names(list(facts))
    return {names[key]: value for key, value in facts.items()}


def _files(folder: Path, runs: Sequence[RunRecord]) -> list[Section]:
    here = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name != "report.html"
    ]
    rows = [
        {"file": Link(path.name, path), "kB": round(path.stat().st_size / 1000, 1)} for path in here
    ]
    if len(runs) == 1 and runs[0].path.is_dir():
        rows += [
            {"file": Link(f"logs/{path.name}", path), "kB": round(path.stat().st_size / 1000, 1)}
            for path in sorted((runs[0].path / "logs").glob("*"))
            if path.is_file()
        ]
    return [Section("Files", [Table(rows)])] if rows else []


def _troubles(runs: Sequence[RunRecord]) -> list[str]:
    return [
        f"{run.name}: {run.status}" + (f", {run.message}" if run.message else "")
        for run in runs
        if run.status in ("diverged", "failed")
    ]


def _counted(runs: Sequence[RunRecord], folder: Path) -> str:
    states = Counter(run.status for run in runs)
    listed = ", ".join(f"{count} {status}" for status, count in states.items())
    return f"{plural(len(runs), 'run')} in {folder.name}: {listed}."
