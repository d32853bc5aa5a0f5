"""What a report says of a reconstruction: scores, pictures, losses and the configuration."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptycho_torch.study.runs_table import edited_cells
from trainrig.files import read_json
from trainrig.report.content import Picture, Section, Table, Tile
from trainrig.report.describers import Describer, Description, Metric, Watched
from trainrig.report.records import RunRecord, last_values, run_directories
from trainrig.run_status import observe_status

EXPERIMENT = "ptychography"
METRICS = (
    Metric("train", "loss", "training loss"),
    Metric("val", "loss", "validation loss"),
    Metric("evaluation", "ssim_amp", "SSIM, amplitude"),
    Metric("evaluation", "ssim_phase", "SSIM, phase"),
    Metric("evaluation", "mae_amp", "MAE, amplitude"),
    Metric("evaluation", "mae_phase", "MAE, phase / rad"),
    Metric("evaluation", "psnr_amp", "PSNR, amplitude / dB"),
    Metric("evaluation", "frc50_amp", "FRC = 0.5, amplitude / ring"),
    Metric("evaluation", "frc50_phase", "FRC = 0.5, phase / ring"),
)
CAPTIONS = {
    "reconstructed_amplitude.png": "Reconstructed amplitude; what no frame reached stays blank.",
    "reconstructed_phase.png": "Reconstructed phase, the constant offset removed.",
    "reconstructed_uncertainty.png": "Uncertainty: the error of simulated repetitions, or the "
    "standard deviation over the members of an ensemble.",
    "evaluation.png": "Against the truth: both parts, their errors, and ring correlations.",
}


def find_runs(folder: Path) -> list[RunRecord]:
    """Return every reconstruction, training and repetition at or below ``folder``."""
    found = {path.parent for path in folder.rglob("reconstruction.npz")}
    found |= {path.parents[1] for path in folder.rglob("logs/metrics.csv")}
    found |= {path for path in run_directories(folder) if owns(read_json(path / "config.json"))}
    return [_record(path, folder) for path in sorted(found)]


def _record(path: Path, folder: Path) -> RunRecord:
    rows = tuple(_losses(path / "logs/metrics.csv"))
    final: dict[str, Mapping[str, Any]] = {**last_values(rows)}
    status = observe_status(path)
    final |= status.get("metrics", {})
    if (path / "metrics.json").exists():
        final["evaluation"] = read_json(path / "metrics.json")
    if status["status"] == "new" and (path / "reconstruction.npz").exists():
        status["status"] = "complete"  # infer_ptycho.py makes no run directory
    return RunRecord(
        path=path,
        name=path.name if path == folder else path.relative_to(folder).as_posix(),
        status=status["status"],
        message=str(status.get("message", "")),
        step=max((int(row["step"]) for row in rows), default=int(status.get("epoch", 0))),
        config={"experiment": EXPERIMENT, **_config(path)},
        setting={**_identity(path), "epochs": status.get("epochs", status.get("epoch"))}
        | {"refinement": status.get("refinement")},
        rows=rows,
        final=final,
        counts="epoch",
    )


def _losses(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            for split in ("train", "val"):
                if line.get(f"{split}_loss"):
                    loss = float(line[f"{split}_loss"])
                    rows.append({"step": int(line["epoch"]), "split": split, "loss": loss})
    return rows


def _config(path: Path) -> dict[str, Any]:
    """Return a training's configuration, or a repetition's identity; nothing of other folders."""
    if not (path / "config.yaml").exists():
        return _identity(path)
    import yaml

    content = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _identity(path: Path) -> dict[str, Any]:
    """Return what decides the numbers of a training or repetition; nothing of other folders."""
    content = read_json(path / "config.json") if (path / "config.json").exists() else {}
    return content if isinstance(content, dict) else {}


def describe(folder: Path, runs: Sequence[RunRecord]) -> Description | None:
    """Describe one reconstruction, or a folder of several; None for anything else."""
    if not runs or not all(run.config.get("experiment") == EXPERIMENT for run in runs):
        return None
    single = len(runs) == 1
    return Description(
        title=f"Reconstruction: {runs[0].name}" if single else f"{len(runs)} reconstructions",
        lead=_lead(runs),
        warnings=edited_cells(folder),
        tiles=_tiles(runs[0]) if single else [],
        metrics=[metric for metric in METRICS if any(_has(run, metric) for run in runs)],
        hidden_keys=("experiment",),
        captions=CAPTIONS,
        sections=_scores(runs[0]) if single else _pictures(runs),
    )


def _has(run: RunRecord, metric: Metric) -> bool:
    return run.value(metric.split, metric.key) is not None


def _lead(runs: Sequence[RunRecord]) -> str:
    scored = [(v, run.name) for run in runs if (v := run.value("evaluation", "ssim_amp"))]
    if not scored:
        return "Not compared with a true object (scripts/evaluate_ptycho.py does)."
    value, name = max(scored)
    where = f" ({name})" if len(runs) > 1 else ""
    return f"Against the true object: amplitude SSIM {value:.3f}{where}."


def _tiles(run: RunRecord) -> list[Tile]:
    return [
        Tile(metric.label, f"{value:.4g}")
        for metric in METRICS
        if (value := run.value(metric.split, metric.key)) is not None
    ]


def _scores(run: RunRecord) -> list[Section]:
    scores = run.final.get("evaluation", {})
    rows = [{"score": key, "value": value} for key, value in sorted(scores.items())]
    return [Section("Scores against the truth", [Table(rows)])] if rows else []


def _pictures(runs: Sequence[RunRecord]) -> list[Section]:
    pictures = [
        Picture(path, f"{run.name}: {part}")
        for run in runs
        for part in ("amplitude", "phase")
        if (path := run.path / f"reconstructed_{part}.png").exists()
    ]
    return [Section("Pictures", pictures)] if pictures else []


def owns(config: Mapping[str, Any]) -> bool:
    """Say whether a run directory is a training or a repetition of this experiment."""
    return isinstance(config, Mapping) and config.get("experiment") == EXPERIMENT


WATCHED = Watched(
    metrics=(
        Metric("train", "loss", "loss"),
        Metric("val", "loss", "val loss"),
        Metric("refinement", "loss", "refinement loss"),
    ),
    unit="epoch",
    key="epoch",
    total="",
    splits=("train",),
)
DESCRIBER = Describer(
    describe, find_runs, owns=owns, watched=WATCHED, redraw="ptycho_torch.study.archive:redraw"
)
