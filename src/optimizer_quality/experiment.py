"""One run from configuration to final files, and ``runs.csv`` over all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import Loaders, make_loaders
from optimizer_quality.session import Runtime, prepare
from optimizer_quality.train import train
from optimizer_quality.utils import set_seed
from trainrig.device import choose_device, set_threads
from trainrig.files import read_json
from trainrig.repeats import setting_key
from trainrig.run_status import FINAL, RunResult, read_result, read_status
from trainrig.runs import RunDirectory, describe_environment, open_run
from trainrig.summaries import differences, names_in, run_configs, summary_lock, warn
from trainrig.tracking.tables import write_table

FINAL_FILES = ("final_model.pt", "metrics.json", "split_indices.json")
RUNS_COLUMNS = (
    "run",
    "optimizer",
    "lr",
    "seed",
    "dataset",
    "model",
    "parameters",
    "epochs",
    "batch_size",
    "precision",
    "engine",
    "pipeline",
    "device",
    "status",
    "train_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "synthetic",
    "in_grid",
    "differs",
)
#: What a comparison of runs tells apart, or what changes no number but its rounding.
FREE = ("seed", "optimizer.type", "optimizer.lr", "device", "engine")


def run(
    config: CifarConfig,
    runtime: Runtime | None = None,
    *,
    path: Path | None = None,
    log_path: Path | None = None,
) -> RunResult:
    """Train ``config`` in ``path``, resuming what is there.

    Args:
        config: the run.
        runtime: what does not change its numbers.
        path: the run directory; default ``{results_dir}/{run_name}``.
        log_path: folder of ``trackio_logs.json``; default ``{log_dir}`` and the name of ``path``.

    Raises:
        ValueError: a bad value, damaged data, or another configuration in ``path``.
        FileNotFoundError: no data.
        CheckpointError: the checkpoint does not fit.
    """
    if config.engine == "packed":
        raise ValueError("engine: packed trains several runs at once; use a sweep with --pack")
    runtime = runtime or Runtime()
    path = path or place_of(config)
    log_path = log_path or Path(config.log_dir) / path.name
    with opened(config, runtime, path, log_path) as (directory, loaders, device):
        if directory.status()["status"] in FINAL:
            return read_result(path)
        _train_in(directory, log_path, config, runtime, loaders, device)
    return read_result(path)


def place_of(config: CifarConfig, base: CifarConfig | None = None) -> Path:
    """Return the directory of a run: named by what differs from ``base``, see ``run_name``.

    A run of the same configuration that lies in the folder under another name is that run.
    """
    folder, name = Path(config.results_dir), config.run_name(base)
    return folder / names_in(folder, {name: config.identity()})[name]


@contextlib.contextmanager
def opened(
    config: CifarConfig, runtime: Runtime, path: Path, log_path: Path
) -> Iterator[tuple[RunDirectory, Loaders, torch.device]]:
    """Read a run's images, then lock its directory; raises as ``run`` does."""
    threads = set_threads(runtime.threads)
    device = resolve_device(config.device, quiet=runtime.quiet)
    set_seed(config.seed)
    loaders = make_loaders(config, device)
    identity = {**config.identity(), "device": device.type, "images": loaders.description}
    environment = describe_environment("optimizer_quality", device=str(device), threads=threads)
    with open_run(path, identity, environment, overwrite=runtime.overwrite) as directory:
        if runtime.overwrite:
            _remove_final_files(path, log_path)
        yield directory, loaders, device


def resolve_device(name: str, *, quiet: bool = False) -> torch.device:
    """Return the device; plain ``cuda`` falls back to the CPU where torch sees no CUDA device."""
    if name == "cuda" and not torch.cuda.is_available():
        if not quiet:
            print("device: cuda asked for, none seen by torch; running on the CPU")  # noqa: T201
        return torch.device("cpu")
    return choose_device(name)


def _train_in(
    directory: RunDirectory,
    log_path: Path,
    config: CifarConfig,
    runtime: Runtime,
    loaders: Loaders,
    device: torch.device,
) -> None:
    session = prepare(directory, log_path, config, runtime, loaders, device)
    with session.watched():
        session.start()
        parts = (session.model, loaders.train, loaders.val, loaders.test, session.optimizer)
        session.finish(train(*parts, config, session.tracker))


def _remove_final_files(path: Path, log_path: Path) -> None:
    for file in [*(path / name for name in FINAL_FILES), log_path / "trackio_logs.json"]:
        file.unlink(missing_ok=True)


def write_runs_csv(folder: Path) -> Path:
    """Rebuild ``folder/runs.csv`` from the run directories in it, safely beside other writers."""
    with summary_lock(folder):
        listed, unread = list_runs(folder)
        write_table(table_rows(folder, listed), folder / "runs.csv", RUNS_COLUMNS)
    warn(unread)
    return folder / "runs.csv"


def table_rows(folder: Path, listed: Iterable[Listed]) -> list[dict[str, Any]]:
    """Return the rows of ``runs.csv``."""
    return [_row(folder / run.name, run) for run in listed]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One run of a folder.

    Attributes:
        name: of its directory.
        config: its ``config.json``.
        in_grid: whether it belongs to the grid in question; None without a grid.
        differs: why it cannot be compared with the grid's runs; empty if it can.
    """

    name: str
    config: dict[str, Any]
    in_grid: bool | None
    differs: str


def list_runs(folder: Path, grid: Iterable[str] | None = None) -> tuple[list[Listed], list[str]]:
    """Return every run of ``folder`` that has begun, the grid's first, and what cannot be read.

    Of equal runs under two names one is compared: the grid's, else the one that ended last.
    """
    configs, unread = run_configs(folder, lambda config: "train_val_split" in config)
    names = [name for name in configs if read_status(folder / name)["status"] != "new"]
    if grid is None:
        plain = [Listed(name=n, config=configs[n], in_grid=None, differs="") for n in names]
        return plain, unread
    planned = set(grid)
    own = [name for name in names if name in planned]
    others = sorted(set(names) - planned, key=lambda name: _ended(folder / name), reverse=True)
    listed: list[Listed] = []
    seen: dict[str, str] = {}
    for name in (*own, *others):
        config = configs[name]
        twin = seen.setdefault(setting_key(config) or name, name)
        if twin != name:
            differs = f"the same run as {twin}"
        else:
            differs = differences(configs[own[0]], config, FREE) if own else ""
        listed.append(Listed(name=name, config=config, in_grid=name in planned, differs=differs))
    return listed, unread


def _ended(path: Path) -> int:
    return (path / "status.json").stat().st_mtime_ns


def _row(path: Path, run: Listed) -> dict[str, Any]:
    config, status = run.config, read_status(path)
    metrics = read_json(path / "metrics.json") if status["status"] == "complete" else {}
    final = metrics.get("final", {})
    return {
        "run": path.name,
        "optimizer": config["optimizer"]["type"],
        "lr": metrics.get("optimizer", {}).get("lr", config["optimizer"]["lr"]),
        "seed": config["seed"],
        "dataset": config["dataset"],
        "model": config["model"],
        "parameters": metrics.get("parameters"),
        "epochs": config["num_epochs"],
        "batch_size": config["batch_size"],
        "precision": config["precision"],
        "engine": config.get("engine", "eager"),
        "pipeline": config["pipeline"],
        "device": config["device"],
        "status": status["status"],
        "train_loss": final.get("train", {}).get("loss"),
        "val_accuracy": final.get("val", {}).get("accuracy"),
        "test_loss": final.get("test", {}).get("loss"),
        "test_accuracy": final.get("test", {}).get("accuracy"),
        "seconds": metrics.get("timing", {}).get("seconds"),
        "synthetic": int(config["images"]["synthetic"]),
        "in_grid": None if run.in_grid is None else int(run.in_grid),
        "differs": run.differs or None,
    }
