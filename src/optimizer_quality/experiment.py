"""One run from configuration to final files, and ``runs.csv`` over all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
from trainrig.locks import lock
from trainrig.run_status import FINAL, RunResult, read_result, read_status
from trainrig.runs import RunDirectory, describe_environment, open_run
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
)


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
        path: the run directory; default ``{results_dir}/{optimizer}_seed{S}``.
        log_path: folder of ``trackio_logs.json``; default ``{log_dir}/{optimizer}_seed{S}``.

    Raises:
        ValueError: a bad value, damaged data, or another configuration in ``path``.
        FileNotFoundError: no data.
        CheckpointError: the checkpoint does not fit.
    """
    if config.engine == "packed":
        raise ValueError("engine: packed trains several runs at once; use a sweep with --pack")
    runtime = runtime or Runtime()
    path = path or Path(config.results_dir) / config.run_name
    log_path = log_path or Path(config.log_dir) / config.run_name
    with opened(config, runtime, path, log_path) as (directory, loaders, device):
        if directory.status()["status"] in FINAL:
            return read_result(path)
        _train_in(directory, log_path, config, runtime, loaders, device)
    return read_result(path)


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
    with lock(folder / ".runs.csv.lock", wait=True):
        rows = [
            _row(path.parent)
            for path in sorted(folder.glob("*/config.json"))
            if read_status(path.parent)["status"] != "new" and _is_ours(path)
        ]
        write_table(rows, folder / "runs.csv", RUNS_COLUMNS)
    return folder / "runs.csv"


def _is_ours(config: Path) -> bool:
    """Say whether a run beside ours is one of this experiment."""
    return "train_val_split" in read_json(config)


def _row(path: Path) -> dict[str, Any]:
    config, status = read_json(path / "config.json"), read_status(path)
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
    }
