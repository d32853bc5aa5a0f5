"""What a report says of a reconstruction: scores, pictures, losses and the configuration."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainrig.files import read_json
from trainrig.report.content import Picture, Section, Table, Tile
from trainrig.report.describers import Describer, Description, Metric
from trainrig.report.records import RunRecord, last_values
from trainrig.run_status import Progress, is_alive
from trainrig.tracking.progress import last_rows, speed

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
    "reconstructed_uncertainty.png": "Error expected from simulated repetitions.",
    "evaluation.png": "Against the truth: both parts, their errors, and ring correlations.",
}


def find_runs(folder: Path) -> list[RunRecord]:
    """Return every reconstruction and every training at or below ``folder``."""
    found = {path.parent for path in folder.rglob("reconstruction.npz")}
    found |= {path.parents[1] for path in folder.rglob("logs/metrics.csv")}
    return [_record(path, folder) for path in sorted(found)]


def _record(path: Path, folder: Path) -> RunRecord:
    rows = tuple(_losses(path / "logs/metrics.csv"))
    final: dict[str, Mapping[str, Any]] = {**last_values(rows)}
    if (path / "metrics.json").exists():
        final["evaluation"] = read_json(path / "metrics.json")
    config = _config(path / "config.yaml")
    step = max((int(row["step"]) for row in rows), default=0)
    return RunRecord(
        path=path,
        name=path.name if path == folder else path.relative_to(folder).as_posix(),
        status=_status(path, step, config),
        step=step,
        config={"experiment": EXPERIMENT, **config},
        rows=rows,
        final=final,
        counts="epoch",
    )


def _status(path: Path, done: int, config: Mapping[str, Any]) -> str:
    """Return how a run stands; Lightning writes no ``status.json``.

    Args:
        path: its folder.
        done: epochs completed.
        config: ``config.yaml``; that of a reconstruction alone has no epochs.
    """
    if is_alive(path):
        return "running"
    results = ("reconstruction.npz", "wts.h5.zip")
    ended = done == _epochs(config) or any((path / name).exists() for name in results)
    return "complete" if ended else "stopped"


def _epochs(config: Mapping[str, Any]) -> int | None:
    return config.get("training", {}).get("nepochs")


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
    if not path.exists():
        return {}
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def describe(folder: Path, runs: Sequence[RunRecord]) -> Description | None:
    """Describe one reconstruction, or a folder of several; None for anything else."""
    if not runs or not all(run.config.get("experiment") == EXPERIMENT for run in runs):
        return None
    single = len(runs) == 1
    return Description(
        title=f"Reconstruction: {runs[0].name}" if single else f"{len(runs)} reconstructions",
        lead=_lead(runs),
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


def find_progress(folder: Path) -> list[Progress]:
    """Return where every training at or below ``folder`` is."""
    found = sorted(path.parent for path in folder.rglob("config.yaml"))
    begun = [path for path in found if (path / ".lock").exists() or (path / "logs").is_dir()]
    return [_progress(path, folder) for path in begun]


def _progress(path: Path, folder: Path) -> Progress:
    rows = list(last_rows(path / "logs/progress.txt")) or _losses(path / "logs/metrics.csv")
    done = max((int(row["step"]) for row in rows), default=0)
    config = _config(path / "config.yaml")
    final = last_values(tuple(rows))
    return Progress(
        path=path,
        name=path.name if path == folder else path.relative_to(folder).as_posix(),
        status=_status(path, done, config),
        done=done,
        total=_epochs(config),
        unit="epoch",
        per_second=speed([row for row in rows if row["split"] == "train"], "step"),
        values={
            label: values["loss"]
            for split, label in (("train", "loss"), ("val", "val loss"))
            if "loss" in (values := final.get(split, {}))
        },
    )


def _redraw(folder: Path) -> list[Path]:
    from ptycho_torch.archive import redraw  # watching draws nothing

    return redraw(folder)


DESCRIBER = Describer(describe, find_runs, find_progress=find_progress, redraw=_redraw)
