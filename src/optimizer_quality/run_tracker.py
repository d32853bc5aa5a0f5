"""What a run writes while it trains: rows, ``trackio_logs.json`` and the rolling checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from trainrig.checkpoint import latest_checkpoint, save_checkpoint
from trainrig.errors import CheckpointError
from trainrig.files import read_json, write_atomically
from trainrig.optim.resume import load_optimizer, optimizer_state
from trainrig.runs import RunDirectory
from trainrig.seeding import capture_rng, restore_rng
from trainrig.stopping import Interruption
from trainrig.tracking.metric_log import MetricLog
from trainrig.tracking.tracker import Tracker
from trainrig.updates import load_training_weights, weights_to_save

PROGRESS_COLUMNS = ("step", "epoch", "split", "loss", "accuracy", "grad_norm", "elapsed")


class PartialPass(Protocol):
    """A pass over the training images that stops within its epoch: ``train.EpochPass``."""

    @property
    def epoch(self) -> int: ...  # noqa: D102 - from 1
    @property
    def step(self) -> int: ...  # noqa: D102 - of this epoch, done
    @property
    def model(self) -> nn.Module: ...  # noqa: D102
    @property
    def optimizer(self) -> torch.optim.Optimizer: ...  # noqa: D102

    def state(self) -> dict[str, Any]:
        """Return the sums so far."""


class RunTracker:
    """Rows, checkpoints and resume of one run.

    Args:
        directory: the locked run directory.
        log_path: folder of ``trackio_logs.json``.
        project: of the tracker.
        config: the resolved configuration, for the tracker.
        steps_per_epoch: to number checkpoints by step.
        console_every: epochs between printed lines; 0 prints none.
        tracker: where rows are shown live, see ``trainrig.tracking.tracker``.
    """

    def __init__(
        self,
        directory: RunDirectory,
        log_path: Path,
        *,
        project: str,
        config: dict[str, Any],
        steps_per_epoch: int,
        console_every: int = 0,
        tracker: str = "trackio",
    ) -> None:
        self.directory, self.log_path, self.project, self.config = (
            directory,
            log_path,
            project,
            config,
        )
        self.steps_per_epoch, self.console_every = steps_per_epoch, console_every
        self.start_epoch, self.seconds = 0, 0.0
        self.partial: dict[str, Any] | None = None
        self.passing: Callable[[], Iterable[Any]] | None = None
        self.messages: list[str] = []
        self._log = MetricLog(directory.logs, PROGRESS_COLUMNS)
        self._kind = tracker
        self._sink: Tracker | None = None
        self._stamps: dict[str, float] = {}
        self._started = time.perf_counter()

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Continue from the newest valid checkpoint; from epoch 0 where there is none at all.

        Raises:
            CheckpointError: none is valid, or it does not fit the model or the optimizer.
        """
        device = next(model.parameters()).device
        found, self.messages = latest_checkpoint(self.directory.checkpoints, device)
        if found is None:
            self._log.truncate({})
        else:
            try:
                model.load_state_dict(found.weights)
                load_optimizer(optimizer, found.state["optimizer"])
                load_training_weights(model, found.state)
            except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise CheckpointError(
                    f"{found.path}: does not fit this model or optimizer ({reason}); "
                    "use another directory, or --overwrite to start anew"
                ) from None
            restore_rng(found.state["rng"], device)
            self._log.truncate(found.state["log_sizes"])
            self.start_epoch = int(found.state["epoch"])
            self.partial = found.state["partial"]
            self.seconds = float(found.state["seconds"])
            self._stamps = self._read_stamps()
        self._sink = Tracker(
            self.project,
            self.directory.path.name,
            self.config,
            folder=self.log_path.parent,
            rows=self._log.rows(),
            kind=self._kind,
        )
        self._started = time.perf_counter()

    def log(self, row: dict[str, Any]) -> None:
        """Append one row to every log."""
        self._log.append(row)
        self._stamps[_stamp_key(row)] = time.time()
        if self._sink is not None:
            self._sink.log(row)
        epoch = row["epoch"]
        if self.console_every and row["split"] == "val" and epoch % self.console_every == 0:
            print(  # noqa: T201 - what a person watches
                f"epoch {epoch}: validation loss {row['loss']:.4f}, "
                f"accuracy {row['accuracy']:.4f}, {row['elapsed']:.1f} s",
                flush=True,
            )

    def end_step(self, current: PartialPass) -> None:
        """If the run was asked to stop: save within the epoch, unless it is the epoch's last step.

        Raises:
            Interruption: the checkpoint is written.
        """
        if self.directory.stop.due() and current.step < self.steps_per_epoch:
            self.save_within(current)
            raise self.interruption(current.epoch, current.step)

    def save_within(self, current: PartialPass) -> None:
        """Save within the epoch."""
        self._save(current.epoch - 1, current.model, current.optimizer, current)

    def end_epoch(self, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Make the rows durable, save, and stop if asked to.

        Raises:
            Interruption: the checkpoint is written.
        """
        self._save(epoch, model, optimizer)
        if self.directory.stop.due():
            raise self.interruption(epoch, self.steps_per_epoch)

    def interruption(self, epoch: int, step: int) -> Interruption:
        """Return what to raise once the checkpoint is written."""
        where = f"{self.directory.path}: epoch {epoch}, step {step}"
        return self.directory.stop.interruption(where)

    def _save(
        self,
        epoch: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        current: PartialPass | None = None,
    ) -> None:
        sizes = self._log.sync()
        self.write_logs()
        weights, training = weights_to_save(model, optimizer, self.passing)
        state = {
            **training,
            "epoch": epoch,
            "partial": None if current is None else current.state(),
            "optimizer": optimizer_state(optimizer),
            "rng": capture_rng(next(model.parameters()).device),
            "log_sizes": sizes,
            "seconds": self.elapsed(),
        }
        save_checkpoint(
            self.directory.checkpoints,
            epoch * self.steps_per_epoch + (0 if current is None else current.step),
            weights,
            state,
            interim=current is not None,
        )
        self.directory.set_status("running", epoch=epoch)

    def elapsed(self) -> float:
        """Return the seconds of training over all processes that worked on this run."""
        return self.seconds + time.perf_counter() - self._started

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows so far."""
        return self._log.rows()

    def last_results(self) -> dict[str, dict[str, float]]:
        """Return training and validation metrics of the last logged epoch, by split."""
        keys = ("loss", "accuracy", "grad_norm")
        return {
            row["split"]: {key: row[key] for key in keys if key in row}
            for row in self._log.rows()
            if row["split"] in ("train", "val")
        }

    def write_logs(self) -> None:
        """Write ``trackio_logs.json`` from our own rows, so that it exists without trackio too."""
        logs = [{"timestamp": self._stamps.get(_stamp_key(r)), **r} for r in self._log.rows()]
        value = {
            "run": self.directory.path.name,
            "project": self.project,
            "config": self.config,
            "logs": logs,
        }
        write_atomically(self.log_path / "trackio_logs.json", json.dumps(value) + "\n")

    def close(self) -> None:
        """Close the logs and the tracker."""
        if self._sink is not None:
            self._sink.finish()
        self._log.close()

    def _read_stamps(self) -> dict[str, float]:
        try:
            logs = read_json(self.log_path / "trackio_logs.json")["logs"]
            return {_stamp_key(row): row["timestamp"] for row in logs}
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # times of day are a courtesy; the rows themselves are in metrics.jsonl


def _stamp_key(row: dict[str, Any]) -> str:
    return f"{row['epoch']} {row['split']}"
