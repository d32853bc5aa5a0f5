"""The state of one ICL run while it trains: rows, evaluations, checkpoints and resuming.

The order inside a step makes resuming exact: update, log rows, both evaluations, rows made durable,
checkpoint. A run that is killed at any instant continues from its newest checkpoint with its logs
cut back to that moment, and ends bit-identical to an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from pytorch_port.config.runtime import Runtime, progress_bar
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.batch import SequenceBatch
from pytorch_port.data.inputs import REGIMES, IclInputs
from pytorch_port.model.assembly import load_weights
from pytorch_port.train.evaluation import evaluate, step_scalars
from pytorch_port.train.steps import training_steps
from trainrig.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    prune,
    save_checkpoint,
)
from trainrig.config import to_dict
from trainrig.distributed import Team
from trainrig.errors import CheckpointError, DivergedError
from trainrig.loop import StepRecord, every
from trainrig.run_status import RunResult, read_result
from trainrig.runs import RunDirectory
from trainrig.seeding import capture_rng, restore_rng
from trainrig.stopping import Interruption
from trainrig.tracking.metric_log import MetricLog
from trainrig.tracking.tracker import Tracker

#: What a line of progress.txt shows, where its row has it; metrics.jsonl holds everything.
PROGRESS_COLUMNS = (
    "step",
    "split",
    "loss",
    "accuracy_query",
    "accuracy_closed",
    "weight_l2",
    "weight_l2_all",
    "weight_l2_head",
    "grad_l2",
    "lr",
    "elapsed",
    "steps_per_second",
)


class Trainer:
    """The state of one run in one process: model, optimizer, logs, and where it stands."""

    def __init__(
        self,
        config: IclConfig,
        inputs: IclInputs,
        directory: RunDirectory,
        runtime: Runtime,
        logger: logging.Logger,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.config, self.inputs, self.directory = config, inputs, directory
        self.runtime, self.logger = runtime, logger
        self.model, self.optimizer = model, optimizer
        self.step = self.start_step = self.last_finite_step = 0
        self.elapsed_before = 0.0
        self.latest: dict[str, dict[str, float]] = {}
        self.log: MetricLog  # opened by `restore`
        self.tracker: Tracker | None = None
        self.team: Team | None = None

    def train(self) -> RunResult:
        """Perform the remaining steps and return how the run ended."""
        self.begin()
        engine = self.config.training.engine
        assert engine != "auto"  # settled before
        records = training_steps(
            self.config,
            self.inputs,
            self.model,
            self.optimizer,
            engine=engine,
            start_step=self.start_step,
            num_workers=self.runtime.num_workers,
            batches=self._shares(),
        )
        name = self.directory.path.name
        try:
            with progress_bar(self.config, self.runtime, name, self.start_step) as bar:
                for record in records:
                    self.record(record)
                    saving = self.saves_at(record.step)
                    if saving:
                        self.save()
                    bar.set_postfix(self.shown(), refresh=False)
                    bar.update()
                    if self.directory.stop.due() and self.step < self.config.training_steps:
                        if not saving:
                            self.save(interim=True)
                        raise self.interruption()
        except DivergedError as error:
            self._dismiss()
            self.end(error)
        except Interruption as error:
            self._dismiss()
            self.end(error)
            raise
        except BaseException as error:
            self.end(error)
            raise
        else:
            self.end()
        return read_result(self.directory.path)

    def _shares(self) -> Iterator[SequenceBatch] | None:
        """Return this process's rows of the batches; None where it is alone."""
        if self.team is None:
            return None
        self.team.equalise(self.model, self.optimizer, self.start_step)
        first = self.start_step * self.config.training.accumulate
        return self.team.shares(
            self.inputs.training_batches(first, num_workers=self.runtime.num_workers)
        )

    def _dismiss(self) -> None:
        """Between two steps: end the processes that follow this one."""
        if self.team is not None and self.step < self.config.training_steps:
            self.team.dismiss()

    def begin(self) -> None:
        """Announce the run in its log, on the dashboard and in its status."""
        directory, steps = self.directory, self.config.training_steps
        self._announce()
        self.tracker = Tracker(
            self.runtime.project,
            f"{directory.path.parent.name}/{directory.path.name}",
            to_dict(self.config),
            folder=directory.path.parent,
            rows=self.log.rows(),
            kind=self.runtime.tracker,
        )
        directory.set_status("running", step=self.start_step, steps=steps)
        self.started = time.perf_counter()

    def end(self, error: BaseException | None = None) -> None:
        """Write how the run ended, complete, diverged or stopped by an error; close its logs."""
        directory, step = self.directory, self.step
        try:
            if error is None:
                self.logger.info("complete at step %d", step)
                directory.set_status("complete", step=step, metrics=self.latest)
            elif isinstance(error, DivergedError):
                self.log.sync()
                self.logger.warning("diverged: %s", error)
                metrics = {split: _finite(scalars) for split, scalars in self.latest.items()}
                directory.set_status("diverged", step=step, message=str(error), metrics=metrics)
            else:
                self.logger.error("stopped at step %d: %r", step, error)
                directory.record_stop(error, step=step)
        finally:
            if self.tracker is not None:
                self.tracker.finish()
            self.log.close()

    def saves_at(self, step: int) -> bool:
        """Say whether a checkpoint is due after ``step``."""
        return every(self.config.training.save_interval, step, self.config.training_steps)

    def record(self, record: StepRecord) -> None:
        """Write the rows that are due after a step.

        Raises:
            DivergedError: a number of a row is not finite.
        """
        training, total = self.config.training, self.config.training_steps
        self.step, rows = record.step, []
        if every(training.log_interval, record.step, total):
            rows.append(self._training_row(record))
        if self.saves_at(record.step) or every(training.eval_interval, record.step, total):
            rows += [self._evaluation_row(regime) for regime in REGIMES]
        for row in rows:
            self._append(row)

    def _training_row(self, record: StepRecord) -> dict[str, Any]:
        """The scalars of the step's batch (before the update), the norms after it."""
        row: dict[str, Any] = {"step": record.step, "split": "train"}
        row |= step_scalars(self.config, self.inputs, self.model, record)
        return row | {"lr": record.lr, **self._timing()}

    def _evaluation_row(self, regime: str) -> dict[str, Any]:
        scalars = evaluate(self.model, self.inputs, self.config, regime, step=self.step)
        self.latest[regime] = scalars
        return {"step": self.step, "split": regime, **scalars, **self._timing()}

    def _timing(self) -> dict[str, float]:
        here = time.perf_counter() - self.started
        rate = (self.step - self.start_step) / max(here, 1e-9)
        return {
            "elapsed": round(self.elapsed_before + here, 3),
            "steps_per_second": round(rate, 3),
        }

    def shown(self) -> dict[str, str]:
        """Return what the progress bar says of the run."""
        return {"loss": f"{self.latest['train']['loss']:.3f}"} if "train" in self.latest else {}

    def _append(self, row: dict[str, Any]) -> None:
        self.log.append(row)
        if self.tracker is not None:
            self.tracker.log(row)
        if row["split"] == "train":
            self.latest["train"] = {k: v for k, v in row.items() if k in PROGRESS_COLUMNS[2:9]}
        broken = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
        if broken:
            raise DivergedError(
                f"{', '.join(broken)} not finite between steps {self.last_finite_step + 1} and "
                f"{self.step}"
            )
        self.last_finite_step = self.step

    def interruption(self) -> Interruption:
        """Return what to raise when the run was asked to stop and has saved its state."""
        return self.directory.stop.interruption(f"{self.directory.path}: step {self.step}")

    def save(self, *, interim: bool = False) -> None:
        """Make the rows durable, then save a checkpoint: it never knows more than the log."""
        keep = self.config.training.keep_last
        self.write_checkpoint(self.log.sync(), keep, interim=interim)
        self.set_running()

    def set_running(self) -> None:
        """Let the status say how far the newest checkpoint is."""
        self.directory.set_status("running", step=self.step, steps=self.config.training_steps)

    def write_checkpoint(
        self, sizes: dict[str, int], keep_last: int, *, interim: bool = False
    ) -> None:
        """Save weights and state with logs of these lengths; keep the newest checkpoints."""
        state = {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "next_batch": self.step * self.config.training.accumulate,
            "rng": capture_rng(),
            "log_sizes": sizes,
            "latest": self.latest,
            "elapsed": self._timing()["elapsed"],
        }
        save_checkpoint(
            self.directory.checkpoints,
            self.step,
            self.model.state_dict(),
            state,
            keep_last=keep_last,
            interim=interim,
        )

    def restore(self, step: int | None = None) -> None:
        """Go back to the newest valid checkpoint, or to that of ``step`` (0: the beginning).

        Raises:
            CheckpointError: checkpoints, but no valid one; or one of another model.
            ValueError: a log is shorter than the checkpoint says.
        """
        folder = self.directory.checkpoints
        checkpoint, ignored = latest_checkpoint(folder, not_after=step)
        if checkpoint is not None:
            self._restore_from(checkpoint)
        self.log = MetricLog(self.directory.logs, PROGRESS_COLUMNS)
        try:
            self._settle(checkpoint, ignored)
        except BaseException:
            self.log.close()
            raise

    def _settle(self, checkpoint: Checkpoint | None, ignored: list[str]) -> None:
        """Leave nothing in the directory that is later than the checkpoint."""
        folder = self.directory.checkpoints
        for step, path in list_checkpoints(folder):
            if step > self.step and not ignored:  # passed over, though whole: see `restore`
                shutil.rmtree(path)
        self.log.truncate(checkpoint.state["log_sizes"] if checkpoint else {})
        prune(folder, self.start_step, self.config.training.keep_last)  # if killed in between
        if checkpoint is not None:
            self.logger.info("resumed from %s", checkpoint.path)
        for message in ignored:
            from tqdm import tqdm

            self.logger.warning(message)
            tqdm.write(f"{message}; continuing from step {self.step}", file=sys.stderr)

    def _restore_from(self, checkpoint: Checkpoint) -> None:
        load_weights(self.model, checkpoint)
        state = checkpoint.state
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            restore_rng(state["rng"])
            self.latest = dict(state["latest"])
            self.elapsed_before = float(state["elapsed"])
            _ = {name: int(size) for name, size in state["log_sizes"].items()}
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise CheckpointError(f"{checkpoint.path}: does not fit this run ({reason})") from None
        self.start_step = self.step = self.last_finite_step = checkpoint.step

    def _announce(self) -> None:
        counts = sum(p.numel() for p in self.model.parameters())
        images = self.inputs.describe()
        self.logger.info(
            "%d parameters, %d classes, images: %s", counts, self.config.num_classes, images
        )


def _finite(scalars: dict[str, float]) -> dict[str, float | None]:
    """Replace what strict JSON cannot hold by None."""
    return {key: value if math.isfinite(value) else None for key, value in scalars.items()}
