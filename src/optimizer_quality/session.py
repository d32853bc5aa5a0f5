"""One run in work: network, optimizer, logs and checkpoints, and how it begins and ends."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import Loaders, save_split_indices
from optimizer_quality.models import ResNet, build_model, count_parameters
from optimizer_quality.run_tracker import RunTracker
from optimizer_quality.utils import save_final_model, set_seed, setup_logging
from trainrig.config import to_dict
from trainrig.errors import DivergedError
from trainrig.files import write_json
from trainrig.runs import FINAL, RunDirectory
from trainrig.tracking.tracker import check_tracker


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What may differ between two processes that give the same numbers.

    Attributes:
        threads: torch threads; None is one.
        overwrite: start anew in a directory that holds a run.
        tracker: where rows are shown live, see ``trainrig.tracking.tracker``.
        quiet: print nothing.
    """

    threads: int | None = None
    overwrite: bool = False
    tracker: str = "trackio"
    quiet: bool = False

    def __post_init__(self) -> None:
        """Refuse a tracker that is unknown, or asked for and absent."""
        check_tracker(self.tracker)


@dataclass(frozen=True, slots=True)
class Session:
    """One run in work: what it is made of, and how it begins and ends.

    Attributes:
        directory: the locked run directory.
        config: the run.
        loaders: its images.
        model: on its device.
        optimizer: over the model's parameters.
        tracker: rows and checkpoints.
        logger: of ``train.log``.
    """

    directory: RunDirectory
    config: CifarConfig
    loaders: Loaders
    model: ResNet
    optimizer: torch.optim.Optimizer
    tracker: RunTracker
    logger: logging.Logger

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record how the work inside ends: divergence is an outcome, anything else is raised."""
        try:
            yield
        except DivergedError as error:
            self.diverge(str(error))
        except BaseException as error:
            self.logger.error("stopped: %r", error)
            if self.directory.status()["status"] not in FINAL:  # another member of a pack stopped
                self.directory.record_stop(error)
            raise
        finally:
            self.tracker.close()
            for handler in tuple(self.logger.handlers):
                self.logger.removeHandler(handler)
                handler.close()

    def start(self) -> None:
        """Continue from the newest checkpoint, if there is one."""
        self.tracker.restore(self.model, self.optimizer)
        self.warn(self.tracker.messages)
        done = self.tracker.start_epoch
        self.logger.info("starts after epoch %d of %d", done, self.config.num_epochs)
        self.directory.set_status("running", epoch=done)

    def warn(self, messages: Sequence[str]) -> None:
        """Name checkpoints that are damaged."""
        for message in messages:
            self.logger.warning(message)
            print(f"{message}; continuing from the one before", file=sys.stderr)  # noqa: T201

    def diverge(self, message: str) -> None:
        """Record that a loss is no longer finite."""
        self.logger.warning("diverged: %s", message)
        self.tracker.write_logs()
        rows = self.tracker.rows()
        epoch = rows[-1]["epoch"] if rows else self.tracker.start_epoch
        self.directory.set_status("diverged", epoch=epoch, message=message)

    def finish(self, results: dict[str, dict[str, float]]) -> None:
        """Log the test metrics and write the final files."""
        epochs = self.config.num_epochs
        step = epochs * len(self.loaders.train)
        row = {"step": step, "epoch": epochs, "split": "test", **results["test"]}
        self.tracker.log(row)
        _finish(self.directory, self.config, self.model, self.optimizer, self.tracker, results)
        self.logger.info("complete: test accuracy %.4f", results["test"]["accuracy"])


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of; all that can be refused has been.

    Attributes:
        directory: the locked run directory.
        loaders: its images.
        model: on its device.
        optimizer: over the model's parameters.
    """

    directory: RunDirectory
    loaders: Loaders
    model: ResNet
    optimizer: torch.optim.Optimizer


def prepare(parts: Parts, log_path: Path, config: CifarConfig, runtime: Runtime) -> Session:
    """Make a run's tracker, and save its split."""
    directory, loaders = parts.directory, parts.loaders
    logger = setup_logging(directory.logs / "train.log")
    tracker = RunTracker(
        directory,
        log_path,
        project=config.experiment_name,
        config=to_dict(config),
        steps_per_epoch=len(loaders.train),
        console_every=0 if runtime.quiet else max(config.eval_every, 1),
        tracker=runtime.tracker,
    )
    save_split_indices(
        loaders.train_indices,
        loaders.val_indices,
        directory.path / "split_indices.json",
        source=loaders.description["source"],
        sha256=loaders.description["content_sha256"],
    )
    return Session(directory, config, loaders, parts.model, parts.optimizer, tracker, logger)


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
