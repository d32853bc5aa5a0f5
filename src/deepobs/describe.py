"""What a report says of a DeepOBS results folder: curves over the published baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepobs.analyzer.aggregate import choose_metric
from deepobs.analyzer.baselines import OPTIMIZERS, load_baselines
from deepobs.analyzer.results import Results, Run, Setting, read_results
from deepobs.analyzer.tables import lengths_note, make_rows, tests_note
from trainrig.report.content import Chart, Section, Series, Table, Tile, plural
from trainrig.report.describers import Describer, Description, Metric, Watched
from trainrig.report.records import RunRecord, last_values
from trainrig.report.runs import mean_series

EXPERIMENT = "deepobs"
SPLITS = {"train": "train", "valid": "valid", "test": "test"}


def find_runs(folder: Path) -> list[RunRecord]:
    """Return every result file at or below ``folder`` as a run, step counting epochs."""
    if not next(folder.rglob("random_seed__*.json"), None):
        return []
    results = read_results(folder, quiet=True)
    return [_record(run, folder, results.times.get(run.path, 1) - 1) for run in results]


def _record(run: Run, folder: Path, repeated: int) -> RunRecord:
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        losses = run.curves.get(f"{split}_losses", np.array([]))
        accuracies = run.curves.get(f"{split}_accuracies", np.array([]))
        for epoch, loss in enumerate(losses):
            row: dict[str, Any] = {"step": epoch, "split": split, "loss": _finite(loss)}
            if epoch < len(accuracies):
                row["accuracy"] = _finite(accuracies[epoch])
            rows.append(row)
    versions = run.content.get("versions", run.content.get("environment", {}))
    return RunRecord(
        path=run.path,
        name=run.path.relative_to(folder).with_suffix("").as_posix(),
        status=run.status,
        step=len(run.curves["train_losses"]) - 1,
        config={
            "experiment": EXPERIMENT,
            "testproblem": run.testproblem,
            "optimizer": run.optimizer,
            "hyperparams": run.hyperparams,
            "batch_size": run.batch_size,
            "num_epochs": run.num_epochs,
            "weight_decay": run.weight_decay,
            "random_seed": run.seed,
        },
        environment=versions if isinstance(versions, dict) else {},
        rows=tuple(rows),
        final=last_values(tuple(rows)),
        counts="epoch",
        setting={"setting": run.setting, "seed": run.seed} if run.seed >= 0 else {},
        repeated=repeated,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def describe(folder: Path, runs: Sequence[RunRecord]) -> Description | None:
    """Describe a folder whose runs are all result files; None for any other."""
    if not runs or not all(run.config.get("experiment") == EXPERIMENT for run in runs):
        return None
    results = read_results(folder, quiet=True)
    rows = make_rows(results)
    problems, count = ", ".join(results.testproblems), len(results.testproblems)
    text = (
        "Best setting of each optimizer by its final value; published: DeepOBS baselines v1.1, ten "
        "seeds. Speed: epochs to the problem's convergence performance. "
    )
    text = " ".join(filter(None, (text.strip(), tests_note(rows), lengths_note(rows))))
    table = [
        {
            "problem": row.testproblem,
            "optimizer": row.optimizer,
            "source": row.source,
            "metric": row.metric.replace("_", " "),
            "seeds": row.n,
            "epochs": row.epochs,
            "final": None if math.isnan(row.performance) else row.performance,
            "sd": row.std if row.n > 1 and not math.isnan(row.std) else None,
            "speed": row.speed_text,
            "setting": row.tunability,
            "against published": row.verdict,
        }
        for row in rows
    ]
    tiles = [
        Tile(f"{row.optimizer} on {row.testproblem}", _value(row), _note(row))
        for row in rows
        if row.source == "run"
    ]
    return Description(
        title=f"DeepOBS: {plural(count, 'problem')}, {plural(len(runs), 'run')}",
        lead=f"Results on {problems}.",
        warnings=[f"skipped: {skipped.reason}" for skipped in results.skipped],
        tiles=tiles[:8],
        hidden_keys=("experiment",),
        charts=_charts(results),
        sections=[Section("Beside published values", [Table(table)], text)],
    )


def _value(row: Any) -> str:
    return "diverged" if math.isnan(row.performance) else f"{row.performance:.4g}"


def _note(row: Any) -> str:
    spread = f" ± {row.std:.2g}" if row.n > 1 and not math.isnan(row.std) else ""
    return f"{row.metric.replace('_', ' ')}{spread}, {plural(row.n, 'seed')}"


def _charts(results: Results) -> list[Chart]:
    charts = []
    for problem in results.testproblems:
        own = [
            setting for name in results.optimizers(problem) for setting in results.of(problem, name)
        ]
        chosen = choose_metric(own)
        keys = dict.fromkeys((chosen, "test_losses", "test_accuracies", "train_losses"))
        charts += [chart for key in keys if (chart := _chart(problem, own, key)) is not None]
    return charts


def _chart(problem: str, settings: Sequence[Setting], key: str) -> Chart | None:
    series: list[Series] = []
    order = {name: i for i, name in enumerate(dict.fromkeys(s.runs[0].optimizer for s in settings))}
    for colour, setting in enumerate(settings):
        curves = [run.curves[key] for run in setting.runs if key in run.curves]
        if not curves:
            continue
        name = setting.runs[0].optimizer
        if setting.learning_rate is not None:
            name += f" lr {setting.learning_rate:.3g}"
        lines = [(range(len(curve)), [_finite(v) for v in curve]) for curve in curves]
        series.append(mean_series(name, lines, colour))
        series += [
            Series(f"{name}, seed {run.seed}", x, y, colour, thin=True)
            for run, (x, y) in zip(setting.runs, lines, strict=True)
        ]
    if not series:
        return None
    for place, name in enumerate(OPTIMIZERS.values()):
        band = load_baselines().band(problem, name, key)
        if band is not None:
            colour = order.get(name, len(settings) + place)
            y = [_finite(value) for value in band[0]]
            series.append(Series(f"{name}, published", range(len(y)), y, colour, dashed=True))
    what = key.replace("_", " ").replace("losses", "loss").replace("accuracies", "accuracy")
    return Chart(f"{problem}: {what}", series, "epoch", what)


def _is_ours(config: Mapping[str, Any]) -> bool:
    return {"testproblem", "hyperparams"} <= config.keys()


def _label(config: Mapping[str, Any]) -> str:
    chosen = " ".join(f"{key} {value:.4g}" for key, value in _numbers(config["hyperparams"]))
    words = (config["testproblem"], config["optimizer_name"], chosen)
    return " ".join(word for word in (*words, f"seed {config['random_seed']}") if word)


def _numbers(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    plain = {k: v for k, v in values.items() if isinstance(v, int | float)}
    return [(key, value) for key, value in plain.items() if not isinstance(value, bool)]


WATCHED = Watched(
    metrics=(
        Metric("minibatch", "loss", "loss"),
        Metric("train", "accuracy", "train"),
        Metric("test", "accuracy", "test"),
        Metric("test", "loss", "test loss"),
    ),
    unit="epoch",
    total="num_epochs",
    key="epoch",
    splits=("train", "test"),
    label=_label,
)
DESCRIBER = Describer(
    describe, find_runs, owns=_is_ours, watched=WATCHED, redraw="deepobs.analyzer.archive:redraw"
)
