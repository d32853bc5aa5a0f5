"""What a report says of this experiment's runs, sweeps and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optimizer_quality.page import CAPTIONS, describe_comparison
from optimizer_quality.runs_table import edited_cells
from trainrig.files import read_json
from trainrig.report.content import Section, Table, Tile
from trainrig.report.describers import Describer, Description, Metric, Watched
from trainrig.report.records import RunRecord
from trainrig.tracking.tables import read_table

METRICS = (
    Metric("val", "accuracy", "validation accuracy", percent=True),
    Metric("test", "accuracy", "test accuracy (once, at the end)", percent=True),
    Metric("train", "accuracy", "training accuracy", percent=True),
    Metric("train", "loss", "training loss / nats"),
    Metric("val", "loss", "validation loss / nats"),
    Metric("train", "grad_norm", "gradient norm"),
)
HIDDEN = ("images.", "results_dir", "log_dir", "experiment_name")


def describe(folder: Path, runs: Sequence[RunRecord]) -> Description | None:
    """Describe runs, a sweep or a comparison of this experiment; None for anything else."""
    if (folder / "comparison.json").exists():
        return _comparison(folder)
    if not runs or not all(_is_ours(run.config) for run in runs):
        return None
    first = runs[0].config
    drawn = any(run.config.get("images", {}).get("synthetic") for run in runs)
    warnings = edited_cells(folder)
    if drawn:
        warnings.insert(
            0, "Images are drawn, not photographed: this page shows that the tools work."
        )
    return Description(
        title=f"{first['model']} on {first['dataset']}: {_optimizers(runs)}",
        lead=_lead(runs),
        warnings=warnings,
        tiles=_tiles(runs),
        metrics=METRICS,
        hidden_keys=HIDDEN,
        key_names={"optimizer.type": "optimizer", "optimizer.lr": "learning rate"},
        sections=_summary(folder),
    )


def _comparison(folder: Path) -> Description:
    files = {name: folder / f"{name}.csv" for name in CAPTIONS}
    tables = {name: read_table(path, {}) for name, path in files.items() if path.exists()}
    return describe_comparison(tables, folder, read_json(folder / "comparison.json")["notes"])


def _optimizers(runs: Sequence[RunRecord]) -> str:
    return ", ".join(dict.fromkeys(run.config["optimizer"]["type"] for run in runs))


def _lead(runs: Sequence[RunRecord]) -> str:
    found = [(v, run.name) for run in runs if (v := run.value("val", "accuracy")) is not None]
    if not found:
        return "No epoch is finished yet."
    value, name = max(found)
    return f"Highest validation accuracy: {100 * value:.2f} % ({name})."


def _tiles(runs: Sequence[RunRecord]) -> list[Tile]:
    if len(runs) > 1:
        return []
    return [
        Tile(metric.label, f"{100 * value:.2f} %")
        for metric in METRICS[:3]
        if (value := runs[0].value(metric.split, metric.key)) is not None
    ]


def _summary(folder: Path) -> list[Section]:
    path = folder / "summary.csv"
    if not path.exists():
        return []
    rows = [
        {key.replace("_", " "): value for key, value in row.items()} for row in read_table(path, {})
    ]
    text = "Mean and standard deviation over seeds; learning rates are chosen on validation only."
    return [Section("By optimizer and learning rate", [Table(rows)], text)]


def _is_ours(config: Mapping[str, Any]) -> bool:
    return "train_val_split" in config


WATCHED = Watched(
    metrics=(
        Metric("train", "loss", "loss"),
        Metric("val", "accuracy", "validation"),
        Metric("test", "accuracy", "test"),
        Metric("train", "grad_norm", "|g|"),
    ),
    unit="epoch",
    total="num_epochs",
    key="epoch",
)
DESCRIBER = Describer(
    describe, owns=_is_ours, watched=WATCHED, redraw="optimizer_quality.figures:redraw"
)
