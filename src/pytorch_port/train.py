"""One ICL run: ``run(config, path, runtime)`` trains, logs, evaluates, checkpoints and resumes.

The order inside a step makes resuming exact: update, log rows, both evaluations, rows made durable,
checkpoint. A run that is killed at any instant continues from its newest checkpoint with its logs
cut back to that moment, and ends bit-identical to an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytorch_port.assembly import build_icl_model, load_weights, make_icl_optimizer
from pytorch_port.config import IclConfig
from pytorch_port.evaluation import evaluate
from pytorch_port.inputs import REGIMES, IclInputs, load_inputs
from pytorch_port.losses import icl_scalars, make_targets
from pytorch_port.steps import resolve_engine, training_steps
from trainrig.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    prune,
    remove_leftovers,
    save_checkpoint,
)
from trainrig.config import apply_overrides, to_dict
from trainrig.device import choose_device, reuse_memory, set_precision, set_threads
from trainrig.errors import CheckpointError, DivergedError
from trainrig.files import read_json
from trainrig.loop import StepRecord, every
from trainrig.metrics import grad_l2, weight_l2, weight_l2_all, weight_l2_head
from trainrig.runs import FINAL, RunDirectory, describe_environment, open_run
from trainrig.seeding import capture_rng, make_deterministic, restore_rng, set_seed
from trainrig.tracking.metric_log import MetricLog
from trainrig.tracking.run_log import run_log
from trainrig.tracking.trackio_sink import Tracker

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What may differ between two processes that give the same numbers.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; its type is part of a run's identity.
        threads: torch threads.
        data_dir: folder of data sets; default ``$TRAINRIG_DATA_DIR``, else ``./data``.
        download: fetch Omniglot where it is absent.
        num_workers: processes that draw sequences with the exact sampler.
        overwrite: start anew in a directory that holds a run.
        track: send rows to trackio.
        project: the trackio project.
        show_progress: draw a progress bar.
        position: line of the progress bar.
    """

    device: str = "auto"
    threads: int | None = None
    data_dir: str | None = None
    download: bool = False
    num_workers: int = 0
    overwrite: bool = False
    track: bool = True
    project: str = "icl"
    show_progress: bool = True
    position: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_workers < 0:
            raise ValueError(f"--num-workers {self.num_workers}: must be 0 or more")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads {self.threads}: must be at least 1")


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    Attributes:
        path: the run directory.
        status: ``complete`` or ``diverged``.
        step: optimizer steps completed.
        metrics: final values by split, e.g. ``metrics["holdout"]["accuracy_closed"]``.
        message: why it diverged.
    """

    path: Path
    status: str
    step: int
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    message: str = ""


def run(config: IclConfig, path: Path, runtime: Runtime) -> RunResult:
    """Train ``config`` in the directory ``path``, resuming what is there.

    Raises:
        ValueError: a bad value, another configuration in ``path``, or a run at work there.
        FileNotFoundError: no images.
        CheckpointError: the newest valid checkpoint does not fit the model.
        OSError: the directory cannot be written, or the disk is full.
    """
    make_deterministic()
    threads = set_threads(runtime.threads)
    device = choose_device(runtime.device)
    set_precision(config.training.precision)
    reuse_memory()
    inputs = load_inputs(config, device, data_dir=runtime.data_dir, download=runtime.download)
    model, optimizer = build(config, inputs)
    config = settle_engine(config, path, inputs, model, overwrite=runtime.overwrite)
    identity = run_identity(config, inputs)
    environment = {**describe_environment(), "device": str(device), "threads": threads}
    with open_run(path, identity, environment, overwrite=runtime.overwrite) as directory:
        status = directory.status()
        if status["status"] in FINAL:
            return _result(directory, status)
        with run_log(directory.logs / "train.log") as logger:
            trainer = Trainer(config, inputs, directory, runtime, logger, model, optimizer)
            return trainer.train()


def build(config: IclConfig, inputs: IclInputs) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the seeded model and its optimizer; built before anything is written.

    Raises:
        ValueError, KeyError: settings that fit neither the images nor the optimizer.
    """
    set_seed(config.seed)
    model = build_icl_model(config, inputs.example_shape).to(inputs.device)
    return model, make_icl_optimizer(config, model)


def settle_engine(
    config: IclConfig, path: Path, inputs: IclInputs, model: nn.Module, *, overwrite: bool = False
) -> IclConfig:
    """Return ``config`` with the engine that ``auto`` stands for: once chosen, a run keeps it.

    Raises:
        ValueError: a named engine that the device does not allow.
    """
    engine: str | None = None
    if config.training.engine == "auto" and not overwrite:
        with contextlib.suppress(FileNotFoundError, ValueError, LookupError, TypeError):
            engine = read_json(path / "config.json")["training"]["engine"]
    engine = engine or resolve_engine(config, inputs, model)
    return apply_overrides(config, {"training.engine": engine})


def run_identity(config: IclConfig, inputs: IclInputs) -> dict[str, Any]:
    """Return what must be equal for a run to be continued: configuration, device type, images.

    ``auto`` stands there as the source that it chose, so that naming this source continues the run.
    """
    tree, images = to_dict(config), inputs.describe()
    if tree["data"]["source"] == "auto":
        chosen = {"synthetic": "synthetic", "files": "omniglot"}
        tree["data"]["source"] = chosen.get(images["image_source"], "auto")
    return {**tree, "device": inputs.device.type, "images": images}


def _result(directory: RunDirectory, status: dict[str, Any]) -> RunResult:
    return RunResult(
        directory.path,
        status["status"],
        status.get("step", 0),
        status.get("metrics", {}),
        status.get("message", ""),
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
        self.log = MetricLog(directory.logs, PROGRESS_COLUMNS)
        self.start_step, self.elapsed_before = 0, 0.0
        self.last_finite_step = 0
        self.latest: dict[str, dict[str, float]] = {}
        try:
            self._restore()
        except BaseException:
            self.log.close()
            raise

    def train(self) -> RunResult:
        """Perform the remaining steps and return how the run ended."""
        config, directory = self.config, self.directory
        self._announce()
        tracker = Tracker(
            self.runtime.project,
            f"{directory.path.parent.name}/{directory.path.name}",
            to_dict(config),
            folder=directory.path.parent / "trackio",
            rows=self.log.rows(),
            enabled=self.runtime.track,
        )
        directory.set_status("running", step=self.start_step, steps=config.training_steps)
        try:
            self._loop(tracker)
        except DivergedError as error:
            self.log.sync()
            message, step = str(error), self.step
            self.logger.warning("diverged: %s", message)
            metrics = {split: _finite(scalars) for split, scalars in self.latest.items()}
            directory.set_status("diverged", step=step, message=message, metrics=metrics)
        except BaseException as error:
            self.logger.error("stopped at step %d: %r", self.step, error)
            directory.record_stop(error, step=self.step)
            raise
        else:
            self.logger.info("complete at step %d", self.step)
            directory.set_status("complete", step=self.step, metrics=self.latest)
        finally:
            tracker.finish()
            self.log.close()
        return _result(directory, directory.status())

    def _loop(self, tracker: Tracker) -> None:
        training, total = self.config.training, self.config.training_steps
        self.step, self.started = self.start_step, time.perf_counter()
        records = training_steps(
            self.config,
            self.inputs,
            self.model,
            self.optimizer,
            engine=self.config.training.engine,
            start_step=self.start_step,
            num_workers=self.runtime.num_workers,
        )
        with _progress_bar(self) as bar:
            for record in records:
                self.step = record.step
                rows = []
                if every(training.log_interval, record.step, total):
                    rows.append(self._training_row(record))
                saving = every(training.save_interval, record.step, total)
                if saving or every(training.eval_interval, record.step, total):
                    rows += [self._evaluation_row(regime) for regime in REGIMES]
                for row in rows:
                    self._append(row, tracker, bar)
                if saving:
                    self._save()
                bar.update()
                if self.directory.stop.due() and self.step < total:
                    if not saving:
                        self._save(interim=True)
                    raise self.directory.stop.interruption(
                        f"{self.directory.path}: step {self.step}"
                    )

    def _training_row(self, record: StepRecord) -> dict[str, Any]:
        """The scalars of the step's batch (before the update), the norms after it."""
        config = self.config
        logits, labels = record.output
        concatenated = config.embedding.concatenate_labels
        scalars = icl_scalars(
            logits,
            make_targets(labels, concatenate_labels=concatenated),
            self.inputs.label_sets,
            config.data.train_seqs,
            w_interim=config.training.w_interim_predictions,
            concatenate_labels=concatenated,
        )
        norms = {
            "weight_l2": weight_l2(self.model),
            "weight_l2_all": weight_l2_all(self.model),
            "weight_l2_head": weight_l2_head(self.model),
            "grad_l2": grad_l2(self.model),
        }
        row = {"step": record.step, "split": "train"}
        row |= {key: float(value) for key, value in (scalars | norms).items()}
        if config.optimizer.l2_mode != "decoupled":
            row["penalized_loss"] = float(record.loss)
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

    def _append(self, row: dict[str, Any], tracker: Tracker, bar: Any) -> None:
        self.log.append(row)
        tracker.log(row)
        if row["split"] == "train":
            self.latest["train"] = {k: v for k, v in row.items() if k in PROGRESS_COLUMNS[2:9]}
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
        broken = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
        if broken:
            raise DivergedError(
                f"{', '.join(broken)} not finite between steps {self.last_finite_step + 1} and "
                f"{self.step}"
            )
        self.last_finite_step = self.step

    def _save(self, *, interim: bool = False) -> None:
        sizes = self.log.sync()  # rows first: a checkpoint never knows more than the log
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
            keep_last=self.config.training.keep_last,
            interim=interim,
        )
        self.directory.set_status("running", step=self.step, steps=self.config.training_steps)

    def _restore(self) -> None:
        folder = self.directory.checkpoints
        checkpoint, ignored = latest_checkpoint(folder)
        self.step = 0
        if checkpoint is None and ignored:
            raise CheckpointError(
                f"{folder}: holds no valid checkpoint ({'; '.join(ignored)}); restore one, or "
                "--overwrite to start anew"
            )
        if checkpoint is not None:
            self._restore_from(checkpoint)
        self.log.truncate(checkpoint.state["log_sizes"] if checkpoint else {})
        remove_leftovers(folder)
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


def _progress_bar(trainer: Trainer) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=trainer.config.training_steps,
        initial=trainer.start_step,
        desc=trainer.directory.path.name,
        unit="step",
        position=trainer.runtime.position,
        disable=not trainer.runtime.show_progress,
        leave=trainer.runtime.position == 0,
        mininterval=0.5,
        dynamic_ncols=True,
    )
