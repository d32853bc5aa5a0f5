"""A grid of ICL runs carried out: checked as a whole, trained, and listed in ``runs.csv``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pytorch_port.config import IclConfig
from pytorch_port.figure3_tables import RUNS_COLUMNS, shrink_factor
from pytorch_port.grid import SweepRun
from pytorch_port.inputs import load_inputs
from pytorch_port.train import Runtime, build, run_identity, settle_engine
from pytorch_port.train import run as train
from trainrig.checkpoint import list_checkpoints
from trainrig.device import choose_device
from trainrig.files import read_json
from trainrig.launch.launcher import carry_out
from trainrig.launch.options import LaunchOptions
from trainrig.optim.schedules import total_lr, warmup_rsqrt
from trainrig.runs import LATEST, check_config, read_status
from trainrig.sweep import Outcome, Task
from trainrig.tracking.tables import write_table


def check_runs(runs: Sequence[SweepRun], base_dir: Path, runtime: Runtime) -> set[str]:
    """Check every run against the data, the device and what ``base_dir`` holds, writing nothing.

    Returns:
        Where the runs' images come from.

    Raises:
        ValueError, KeyError: class counts that the data cannot serve, settings that the optimizer
            or the model refuses, or a run directory that holds another configuration (unless it is
            to be overwritten).
        FileNotFoundError: no images.
    """
    device = choose_device(runtime.device)
    sources = set()
    for run in runs:
        inputs = load_inputs(
            run.config, device, data_dir=runtime.data_dir, download=runtime.download
        )
        model, _ = build(run.config, inputs)
        path = base_dir / run.name
        config = settle_engine(run.config, path, inputs, model, overwrite=runtime.overwrite)
        if not runtime.overwrite:
            check_config(path, run_identity(config, inputs))
        sources.add(inputs.describe()["image_source"])
    return sources


def execute(
    runs: Sequence[SweepRun], base_dir: Path, runtime: Runtime, options: LaunchOptions
) -> Iterator[Outcome]:
    """Train what is not finished yet, by the launcher of ``options``; yield each outcome."""
    base_dir = base_dir.resolve()  # a job may start in another folder
    tasks = []
    for run in runs:
        path = base_dir / run.name
        arguments = {"config": run.config, "path": path, "runtime": runtime}
        tasks.append(Task(name=run.name, path=path, work=train_run, arguments=arguments))
    yield from carry_out(tasks, options, base_dir, overwrite=runtime.overwrite)


def train_run(config: IclConfig, path: Path, runtime: Runtime, position: int) -> str:
    """Train one run of a sweep in this process and return its status."""
    return train(config, path, dataclasses.replace(runtime, position=position + 1)).status


def write_runs_csv(runs: Sequence[SweepRun], base_dir: Path, config_path: Path) -> Path:
    """Write ``runs.csv`` from the run directories: every run with a checkpoint, or diverged.

    A run that diverged before its first checkpoint names the folder where that would be. The table
    is rebuilt from the directories each time, so no crash can leave it wrong.
    """
    rows = []
    for run in runs:
        path = base_dir / run.name
        checkpoints, status = list_checkpoints(path / LATEST), read_status(path)
        if checkpoints:
            step, newest = checkpoints[-1][0], checkpoints[-1][1] / "weights.pt"
        elif status["status"] == "diverged":
            step, newest = 0, path / LATEST
        else:
            continue
        config = run.config
        generator, optimizer = config.data.generator_config, config.optimizer
        summed = total_lr(warmup_rsqrt(optimizer.max_lr, optimizer.warmup_steps), step)
        decoupled = optimizer.l2_mode == "decoupled"
        rows.append(
            {
                **run_facts(run, base_dir),
                "class_count": run.class_count,
                "weight_decay": optimizer.weight_decay,
                "checkpoint": str(newest.relative_to(base_dir)),
                "backend": "torch",
                "optimizer": optimizer.name,
                "completed_steps": step,
                "n_rare_classes": generator.n_rare_classes,
                "n_common_classes": generator.n_common_classes,
                "config_module": config_path.stem,
                "l2_mode": optimizer.l2_mode,
                "status": status["status"],
                "sum_lr": summed,
                "shrink": shrink_factor(optimizer.weight_decay, summed) if decoupled else None,
            }
        )
    write_table(rows, base_dir / "runs.csv", list(RUNS_COLUMNS))
    return base_dir / "runs.csv"


def train_grid(
    runs: Sequence[SweepRun],
    base_dir: Path,
    runtime: Runtime,
    *,
    config_path: Path,
    launch: LaunchOptions | None = None,
) -> list[Outcome]:
    """Check, then train the grid, keeping ``runs.csv`` current.

    Args:
        runs: from ``grid.plan_runs``.
        base_dir: holds the run folders and ``runs.csv``.
        runtime: see ``train.Runtime``.
        config_path: where the configuration came from, for ``runs.csv``.
        launch: who carries the runs out; default worker processes, one per core or GPU.

    Raises:
        ValueError, FileNotFoundError: as ``check_runs``, before anything is written.
    """
    options = (launch or LaunchOptions()).resolved(choose_device(runtime.device), runtime.threads)
    sources = check_runs(runs, base_dir, runtime)
    if not options.dry_run:
        base_dir.mkdir(parents=True, exist_ok=True)
    outcomes = []
    with _sweep_bar(len(runs), runtime.show_progress) as bar:
        if "synthetic" in sources and runtime.show_progress:
            bar.write("images: SYNTHETIC GLYPHS, procedural drawings, not Omniglot (see --source)")
        for outcome in execute(runs, base_dir, runtime, options):
            outcomes.append(outcome)
            bar.update()
            if runtime.show_progress or outcome.status != "complete":
                bar.write(f"{outcome.name}: {outcome.status} {outcome.message}".rstrip())
            write_runs_csv(runs, base_dir, config_path)
    return outcomes


def run_facts(run: SweepRun, base_dir: Path) -> dict[str, Any]:
    """Return what a figure must say about a run besides its numbers."""
    images = read_json(base_dir / run.name / "config.json").get("images", {})
    return {
        "seed": run.config.seed,
        "source": images.get("image_source", run.config.data.source),
        "example_type": run.config.data.example_type,
        "n_holdout_classes": run.config.data.generator_config.n_holdout_classes,
    }


def _sweep_bar(total: int, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total, desc="sweep", unit="run", position=0, dynamic_ncols=True, disable=not shown
    )
