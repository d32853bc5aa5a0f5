"""One run from configuration to final files, and ``runs.csv`` over all of them."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import Loaders, make_loaders, save_split_indices
from optimizer_quality.models import ResNet, build_model, count_parameters
from optimizer_quality.run_tracker import RunTracker
from optimizer_quality.train import train
from optimizer_quality.utils import get_optimizer, save_final_model, set_seed, setup_logging
from trainrig.config import to_dict
from trainrig.device import choose_device, set_threads
from trainrig.errors import DivergedError
from trainrig.files import read_json, write_json
from trainrig.runs import FINAL, RunDirectory, describe_environment, open_run, read_status
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What may differ between two processes that give the same numbers.

    Attributes:
        threads: torch threads; None is one.
        overwrite: start anew in a directory that holds a run.
        track: send rows to trackio.
        quiet: print nothing.
    """

    threads: int | None = None
    overwrite: bool = False
    track: bool = True
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended; ``metrics`` by split, e.g. ``metrics["test"]["accuracy"]``."""

    run_dir: Path
    status: str
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    message: str = ""


def run(
    config: CifarConfig,
    runtime: Runtime,
    *,
    path: Path | None = None,
    log_path: Path | None = None,
) -> RunSummary:
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
    path = path or Path(config.results_dir) / config.run_name
    log_path = log_path or Path(config.log_dir) / config.run_name
    threads = set_threads(runtime.threads)
    device = resolve_device(config.device, quiet=runtime.quiet)
    set_seed(config.seed)
    loaders = make_loaders(config, device)
    identity = {**config.identity(), "device": device.type, "images": loaders.description}
    environment = {**describe_environment(), "device": str(device), "threads": threads}
    with open_run(path, identity, environment, overwrite=runtime.overwrite) as directory:
        if runtime.overwrite:
            _remove_final_files(path, log_path)
        if directory.status()["status"] in FINAL:
            return _summary(directory)
        _train_in(directory, log_path, config, runtime, loaders, device)
        summary = _summary(directory)
    write_runs_csv(path.parent)
    return summary


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
    path = directory.path
    logger = setup_logging(directory.logs / "train.log")
    model = make_model(config, loaders.images.train_images.shape[1]).to(device)
    optimizer = get_optimizer(model, config.optimizer)
    tracker = RunTracker(
        directory,
        log_path,
        project=config.experiment_name,
        config=to_dict(config),
        steps_per_epoch=len(loaders.train),
        console_every=0 if runtime.quiet else max(config.eval_every, 1),
        track=runtime.track,
    )
    save_split_indices(
        loaders.train_indices,
        loaders.val_indices,
        path / "split_indices.json",
        source=loaders.description["source"],
        sha256=loaders.description["content_sha256"],
    )
    try:
        tracker.restore(model, optimizer)
        for message in tracker.messages:
            logger.warning(message)
        logger.info("starts after epoch %d of %d", tracker.start_epoch, config.num_epochs)
        directory.set_status("running", epoch=tracker.start_epoch)
        results = train(model, loaders.train, loaders.val, loaders.test, optimizer, config, tracker)
        tracker.log(
            {
                "step": config.num_epochs * len(loaders.train),
                "epoch": config.num_epochs,
                "split": "test",
                **results["test"],
            }
        )
        _finish(directory, config, model, optimizer, tracker, results)
        logger.info("complete: test accuracy %.4f", results["test"]["accuracy"])
    except DivergedError as error:
        logger.warning("diverged: %s", error)
        tracker.write_logs()
        directory.set_status("diverged", message=str(error))
    except BaseException as error:
        logger.error("stopped: %r", error)
        directory.record_stop(error)
        raise
    finally:
        tracker.close()


def _finish(
    directory: RunDirectory,
    config: CifarConfig,
    model: ResNet,
    optimizer: torch.optim.Optimizer,
    tracker: RunTracker,
    results: dict[str, dict[str, float]],
) -> None:
    """Write the final files; the checkpoint goes only when they are durable."""
    tracker.write_logs()
    rows = tracker.rows()
    metrics = {
        "final": results,
        "history": [
            {key: row.get(key) for key in ("epoch", "split", "loss", "accuracy", "grad_norm")}
            for row in rows
        ],
        "epochs": config.num_epochs,
        "parameters": count_parameters(model),
        "optimizer": {
            "class": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
            "lr": float(optimizer.param_groups[0].get("lr", 0.0)),
            "arguments": {k: str(v) for k, v in config.optimizer.keywords().items()},
        },
        "timing": {"seconds": tracker.elapsed()},
    }
    save_final_model(model, directory.path / "final_model.pt", {"final": results})
    write_json(directory.path / "metrics.json", metrics)
    directory.set_status("complete", epoch=config.num_epochs, metrics=results)
    shutil.rmtree(directory.path / "checkpoints", ignore_errors=True)


def make_model(config: CifarConfig, in_channels: int) -> ResNet:
    """Return the configured network with the initial weights that ``config.seed`` determines."""
    set_seed(config.seed)
    return build_model(
        config.model,
        config.num_classes,
        in_channels=in_channels,
        precision=config.precision,
        channels_last=config.channels_last,
    )


def _remove_final_files(path: Path, log_path: Path) -> None:
    for file in [*(path / name for name in FINAL_FILES), log_path / "trackio_logs.json"]:
        file.unlink(missing_ok=True)


def _summary(directory: RunDirectory) -> RunSummary:
    status = directory.status()
    return RunSummary(
        directory.path, status["status"], status.get("metrics", {}), status.get("message", "")
    )


def write_runs_csv(folder: Path) -> Path:
    """Rebuild ``folder/runs.csv`` from the run directories in it, safely beside other writers."""
    with _csv_lock(folder):
        rows = [
            _row(path.parent)
            for path in sorted(folder.glob("*/config.json"))
            if read_status(path.parent)["status"] != "new"
        ]
        write_table(rows, folder / "runs.csv", RUNS_COLUMNS)
    return folder / "runs.csv"


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


@contextlib.contextmanager
def _csv_lock(folder: Path) -> Iterator[None]:
    with (folder / ".runs.csv.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
