"""The record of a run: the ``for`` loop of an experiment talks to it, and stays in sight.

    with recorded(path, config, total=1000, intervals=Intervals(log=10, save=100)) as run:
        start = run.restore(model=model, optimizer=optimizer)
        for step in train_steps(model, optimizer, batches(start), loss_fn, start_step=start, ...):
            if run.logs(step.step):
                run.row("train", step.step, loss=step.loss.item())
            run.settle(step.step)
    return run.result

``recorded`` opens the run directory: lock, identity, refusals. ``restore`` continues from the
newest valid checkpoint and cuts the logs back to it. ``settle`` ends a step: rows are durable
before the checkpoint of their step appears, so a checkpoint never knows more than the logs; then
the run stops if it was asked to. Leaving the ``with`` block writes how the run ended. A run that is
killed at any instant continues by the same command and ends with the same bits as an undisturbed
one.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from trainrig.branching import Branch
from trainrig.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    load_weights,
    prune,
    save_checkpoint,
)
from trainrig.errors import CheckpointError, DivergedError
from trainrig.loop import every
from trainrig.models.batchnorm import implementation
from trainrig.optim.resume import (
    keep_settings,
    load_optimizer,
    optimizer_state,
    prepare_optimizer,
    settings_of,
)
from trainrig.run_status import FINAL, RunResult, read_result
from trainrig.runs import RunDirectory, open_run
from trainrig.seeding import capture_rng, restore_rng
from trainrig.stopping import Interruption, StopRequest
from trainrig.tracking.metric_log import MetricLog
from trainrig.tracking.run_log import run_log
from trainrig.updates import evaluated_weights, load_training_weights, weights_to_save


class Stateful(Protocol):
    """What a checkpoint can hold: an optimizer, a loader, sums of an epoch under way."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Intervals:
    """When a run logs, evaluates and saves; in steps, 0 is only at the end.

    Attributes:
        log: between rows of training.
        evaluate: between evaluations; a step that is saved by its number is evaluated as well.
        save: between checkpoints that stay.
        save_seconds: between checkpoints in time, so that a slow run never loses more; such a one
            is replaced by the next, unless there are no others (``save`` is 0). 0 keeps none, and
            they take 2 % of the time at most.
        keep_last: how many regular checkpoints stay.
    """

    log: int = 0
    evaluate: int = 0
    save: int = 0
    save_seconds: float = 600.0
    keep_last: int = 2


class Shown(Protocol):
    """Where the rows of a run are shown while they come, such as ``trainrig.tracking.tracker``."""

    def log(self, row: Mapping[str, Any], /) -> None: ...
    def finish(self) -> None: ...


#: A checkpoint by time waits this many times what the last one took: 2 % of the time.
COST_FACTOR = 50


@dataclass(frozen=True, slots=True)
class _Ending:
    """A row of the last step, and what of it is part of the result.

    ``instead`` are the two of the same step of a longer run, None where that has no such row.
    """

    row: Mapping[str, Any]
    shown: Mapping[str, Any]
    instead: tuple[Mapping[str, Any], Mapping[str, Any]] | None


class Recorder:
    """One run at work. Use ``recorded``, which opens the directory and ends the record.

    Attributes:
        directory: the locked run directory.
        total: the run's last step.
        start: the step that it continues after.
        step: the last step that was recorded.
        latest: the newest scalars by split; written as the run's result.
        notes: what else the status of a complete run says.
        logger: of ``logs/train.log``.

    Args:
        finite: end the run as diverged at a row or weight that is not finite; otherwise the
            experiment decides, and raises ``DivergedError`` itself.
    """

    def __init__(  # noqa: PLR0913 - keyword options
        self,
        directory: RunDirectory,
        total: int,
        *,
        intervals: Intervals | None = None,
        columns: Sequence[str] = ("step", "split", "loss"),
        logger: logging.Logger | None = None,
        track: Callable[[Path, Iterable[Mapping[str, Any]]], Shown] | None = None,
        per_epoch: int | None = None,
        branch: Branch | None = None,
        finite: bool = True,
    ) -> None:
        self.directory, self.total, self._finite = directory, total, finite
        self.intervals = intervals or Intervals()
        self.logger = logger or logging.getLogger(__name__)
        self.start = self.step = self.last_finite_step = 0
        self.latest: dict[str, dict[str, float]] = {}
        self.notes: dict[str, Any] = {}
        self.log: MetricLog  # opened by `restore`
        self._columns, self._track, self._per_epoch = tuple(columns), track, per_epoch
        self._tracker: Shown | None = None
        self._branch = branch
        self._parts: dict[str, Stateful] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._settings: list[dict[str, Any]] = []  # of the optimizer as it was built
        self._passing: Callable[[int], Iterable[Any]] | None = None
        self._model: nn.Module | None = None
        #: The rows of the run's last step, from the first one that a longer run does not have.
        self._ending: list[_Ending] = []
        self._elapsed_before = 0.0
        self._began = self._saved = time.perf_counter()
        self._cost = 0.0
        self._ended = False

    # --- beginning ---

    @property
    def finished(self) -> bool:
        """Whether the run ended before; a complete one of fewer steps continues."""
        status = self.directory.status()
        if status["status"] == "complete":
            return self._position(status) >= self.total
        return status["status"] in FINAL

    def restore(
        self,
        model: nn.Module,
        *,
        step: int | None = None,
        passing: Callable[[int], Iterable[Any]] | None = None,
        **parts: Stateful,
    ) -> int:
        """Continue from the newest valid checkpoint; return the step to start after.

        Of a run that has ended nothing is read and ``total`` is returned, so that a loop over the
        remaining steps is empty.

        Args:
            model: gets the checkpoint's weights.
            step: pass over checkpoints of later steps; 0 is the beginning.
            passing: step → an iterable that passes one training batch after another through the
                model, for the batch statistics of averaged weights; see
                ``trainrig.updates.evaluated_weights``.
            **parts: the optimizer and whatever else has state, by the names they are saved under.

        Raises:
            CheckpointError: checkpoints, but no valid one; or one of another model or optimizer.
            ValueError: a log is shorter than the checkpoint says, or the run was begun with batch
                normalisation by another implementation.
        """
        self._take_over(model, passing, parts)
        if self.finished:
            self.start = self.step = self.total
            return self.total
        if method := implementation(model):
            self.directory.decide(batch_norm=method)
        checkpoint, ignored = latest_checkpoint(self.directory.checkpoints, not_after=step)
        if checkpoint is not None:
            self._load(checkpoint)
        elif self._branch is not None:
            self._load_branch(self._branch)
        self.log = MetricLog(self.directory.logs, self._columns)
        try:
            self._settle_files(checkpoint, ignored)
        except BaseException:
            self.log.close()
            del self.log
            raise
        return self.start

    def _take_over(
        self,
        model: nn.Module,
        passing: Callable[[int], Iterable[Any]] | None,
        parts: dict[str, Stateful],
    ) -> None:
        self._model, self._parts, self._passing = model, parts, passing
        found = (part for part in parts.values() if isinstance(part, torch.optim.Optimizer))
        self._optimizer = next(found, None)
        if self._optimizer is not None:
            prepare_optimizer(self._optimizer)
            self._settings = settings_of(self._optimizer)

    def _load(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        try:
            self._load_state(checkpoint)
            place = self._place_in_logs(checkpoint)
            self.latest = dict(place["latest"])
            self._elapsed_before = float(state["elapsed"])
            _ = {name: int(size) for name, size in place["log_sizes"].items()}
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise CheckpointError(f"{checkpoint.path}: does not fit this run ({reason})") from None
        self.start = self.step = self.last_finite_step = checkpoint.step

    def _load_state(self, checkpoint: Checkpoint) -> None:
        """Take over weights, parts and random states.

        Raises:
            CheckpointError: of another model or other parts.
        """
        assert self._model is not None  # given to `restore`
        load_weights(self._model, checkpoint)
        try:
            for name, part in self._parts.items():
                if isinstance(part, torch.optim.Optimizer):
                    load_optimizer(part, checkpoint.state[name])
                else:
                    part.load_state_dict(checkpoint.state[name])
            load_training_weights(self._model, checkpoint.state)
            restore_rng(checkpoint.state["rng"], self._device())
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise CheckpointError(f"{checkpoint.path}: does not fit this run ({reason})") from None

    def _load_branch(self, branch: Branch) -> None:
        """Begin from a checkpoint of another run.

        Raises:
            CheckpointError: of another model or other parts.
            ValueError: its step lies beyond the end of this run.
        """
        assert self._model is not None  # given to `restore`
        checkpoint = branch.checkpoint
        if not branch.state:
            load_weights(self._model, checkpoint)
        elif checkpoint.step >= self.total:
            raise ValueError(
                f"{checkpoint.path}: step {checkpoint.step}, and this run ends after {self.total}; "
                "give it more steps, or take the weights alone"
            )
        else:
            self._load_state(checkpoint)
            if self._optimizer is not None:  # another rate or decay is what a branch may be for
                keep_settings(self._optimizer, self._settings, checkpoint.state.get("settings"))
            self.start = self.step = self.last_finite_step = checkpoint.step
        what = "weights and state" if branch.state else "weights"
        self.logger.info("begins with the %s of %s", what, checkpoint.path)

    def _place_in_logs(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Return the logs' lengths and the newest scalars that a checkpoint goes with.

        The rows of an earlier end are not part of a run that has become longer.
        """
        longer = checkpoint.step < self.total
        return checkpoint.state.get("before_ending" if longer else "", checkpoint.state)

    def _settle_files(self, checkpoint: Checkpoint | None, ignored: Sequence[str]) -> None:
        """Leave nothing in the directory that is later than the checkpoint."""
        folder = self.directory.checkpoints
        for number, path in list_checkpoints(folder):
            if number > self.step and not ignored:  # passed over, though whole: see `restore`
                shutil.rmtree(path)
        place = {} if checkpoint is None else self._place_in_logs(checkpoint)
        self.log.truncate(place.get("log_sizes", {}))
        for row in place.get("rows", ()):
            self.log.append(row)
        if checkpoint is not None:
            self._keep_as_interim(checkpoint)
            self.logger.info("resumed from %s", checkpoint.path)
        prune(folder, self.start, self.intervals.keep_last)  # if killed in between
        for message in ignored:
            self.logger.warning(message)
            say(f"{message}; continuing from step {self.step}")
        self._begin()

    def _keep_as_interim(self, checkpoint: Checkpoint) -> None:
        """Let the end of a run that continues take no regular checkpoint's place."""
        path = checkpoint.path
        regular = not self.intervals.save or every(self.intervals.save, checkpoint.step)
        if not regular and checkpoint.step < self.total and not path.name.endswith("_interim"):
            os.rename(path, path.with_name(f"{path.name}_interim"))

    def _begin(self) -> None:
        """Say in the status that the run is at work, and show its earlier rows live."""
        if self._track is not None:
            self._tracker = self._track(self.directory.path, self.log.rows())
        self.set_running()
        self._began = self._saved = time.perf_counter()

    # --- a step ---

    def logs(self, step: int) -> bool:
        """Say whether training is logged at ``step``."""
        return every(self.intervals.log, step, self.total)

    def evaluates(self, step: int) -> bool:
        """Say whether the model is evaluated after ``step``."""
        return self.saves(step) or every(self.intervals.evaluate, step, self.total)

    def saves(self, step: int) -> bool:
        """Say whether a regular checkpoint is due after ``step``."""
        return every(self.intervals.save, step, self.total)

    def due(self, step: int) -> bool:
        """Say whether anything is written after ``step``, or the run was asked to stop.

        After any other step there is nothing to do but to remember its number.
        """
        self.step = step
        written = self.logs(step) or self.evaluates(step) or self.save_is_due()
        return written or self.directory.stop.due()

    def row(self, split: str, step: int, **scalars: Any) -> None:
        """Record scalars of training.

        Raises:
            DivergedError: one of them is not finite.
        """
        row, shown = self._row(split, step, scalars), self._shown(scalars)
        self._record(row, shown, (row, shown) if every(self.intervals.log, step) else None)

    def evaluation(self, split: str, step: int, **scalars: Any) -> None:
        """Record scalars of an evaluation.

        Raises:
            DivergedError: one of them is not finite.
        """
        row = self._row(split, step, scalars)
        due = every(self.intervals.evaluate, step) or every(self.intervals.save, step)
        self._record(row, scalars, (row, scalars) if due else None)

    def last(
        self, split: str, step: int, *, instead: Mapping[str, Any] | None = None, **scalars: Any
    ) -> None:
        """Record scalars that only the run's last step has.

        Args:
            split: of the row.
            step: the last one.
            instead: scalars that a longer run has there; None where it has no such row.
            **scalars: of the row.

        Raises:
            DivergedError: one of them is not finite.
        """
        longer = None
        if instead is not None:
            longer = self._row(split, step, instead), self._shown(instead)
        self._record(self._row(split, step, scalars), self._shown(scalars), longer)

    def _row(self, split: str, step: int, scalars: Mapping[str, Any]) -> dict[str, Any]:
        self.step = step
        epoch = {} if self._per_epoch is None else {"epoch": step // self._per_epoch}
        return {"step": step, **epoch, "split": split, **scalars, **self._timing()}

    def _shown(self, scalars: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in scalars.items() if key in self._columns}

    def _record(
        self,
        row: Mapping[str, Any],
        shown: Mapping[str, Any],
        longer: tuple[Mapping[str, Any], Mapping[str, Any]] | None,
    ) -> None:
        """Append a row; ``shown`` are those of its scalars that become part of the result.

        ``longer`` are the two of a longer run.
        """
        step = row["step"]
        if step < self.total or (longer == (row, shown) and not self._ending):
            self._append(row, shown)
        else:  # kept last, where it can be cut off again
            self._ending.append(_Ending(row, shown, longer))
        broken = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
        if broken and self._finite:
            self._append_ending()
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            since = self.last_finite_step + 1
            raise DivergedError(
                f"{', '.join(broken[:3])}{more} not finite between steps {since} and {step}"
            )
        self.last_finite_step = step

    def _append(self, row: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
        self.log.append(row)
        if self._tracker is not None:
            self._tracker.log(row)
        self.latest[row["split"]] = dict(shown)

    def _append_ending(self) -> None:
        for ending in self._ending:
            self._append(ending.row, ending.shown)
        self._ending.clear()

    def settle(self, step: int) -> None:
        """End a step: save if it is time, stop if the run was asked to.

        Raises:
            DivergedError: a weight is not finite where a checkpoint is due.
            Interruption: the run was asked to stop, and its state is saved.
        """
        self.step = step
        saving = self.saves(step)
        saved = saving or self.save_is_due()
        if saved:
            self.save(interim=not saving)
        if step < self.total and self.directory.stop.due():
            if not saved:
                self.save(interim=True)
            raise self.directory.stop.interruption(f"{self.directory.path}: step {step}")

    def save_is_due(self) -> bool:
        """Say whether it is time for a checkpoint by the clock."""
        seconds = self.intervals.save_seconds
        wait = max(seconds, COST_FACTOR * self._cost)
        return seconds > 0 and time.perf_counter() - self._saved >= wait

    def save(self, *, interim: bool = False) -> None:
        """Make the rows durable, then save a checkpoint: it never knows more than the logs."""
        began = time.perf_counter()
        self.check_weights()
        self.write_checkpoint(self.sync(), self.intervals.keep_last, interim=interim)
        self.saved(began)

    def saved(self, began: float) -> None:
        """Note that a checkpoint is whole whose writing began at ``time.perf_counter()``."""
        self.set_running()
        self._saved = time.perf_counter()
        self._cost = self._saved - began

    def check_weights(self) -> None:
        """Refuse to save a model that is no longer finite.

        Raises:
            DivergedError: a weight is not.
        """
        if not self._finite:
            return
        assert self._model is not None  # given to `restore`
        tensors = [p.detach() for p in self._model.parameters() if p.is_floating_point()]
        if tensors and not bool(torch.stack([t.isfinite().all() for t in tensors]).all()):
            since = min(self.last_finite_step + 1, self.step)  # a row is of before its update
            raise DivergedError(f"weights not finite between steps {since} and {self.step}")

    def sync(self) -> dict[str, Any]:
        """Make all rows durable; return the logs' lengths, also those before the last rows."""
        if not self._ending:
            return self._lengths()
        before, longer = self._lengths(), [e.instead for e in self._ending if e.instead]
        before["rows"] = [dict(row) for row, _ in longer]
        before["latest"] |= {row["split"]: dict(shown) for row, shown in longer}
        self._append_ending()
        return {**self._lengths(), "before_ending": before}

    def _lengths(self) -> dict[str, Any]:
        latest = {split: dict(scalars) for split, scalars in self.latest.items()}
        return {"log_sizes": self.log.sync(), "latest": latest}

    def write_checkpoint(
        self, synced: Mapping[str, Any], keep_last: int, *, interim: bool = False
    ) -> None:
        """Save weights and state with what ``sync`` returned; keep the newest checkpoints."""
        assert self._model is not None  # given to `restore`
        passing = self._passing_after(self.step)
        weights, training = weights_to_save(self._model, self._optimizer, passing)
        state = {
            **training,
            "step": self.step,
            **{name: self._state_of(part) for name, part in self._parts.items()},
            "rng": capture_rng(self._device()),
            "settings": self._settings,
            **synced,
            "elapsed": self._timing()["elapsed"],
        }
        save_checkpoint(
            self.directory.checkpoints,
            self.step,
            weights,
            state,
            keep_last=keep_last,
            interim=interim and self.intervals.save > 0,
        )

    def _state_of(self, part: Stateful) -> Any:
        return (
            optimizer_state(part) if isinstance(part, torch.optim.Optimizer) else part.state_dict()
        )

    def _device(self) -> torch.device:
        assert self._model is not None  # given to `restore`
        return next(self._model.parameters()).device

    def evaluated(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Return a context within which the model has the weights to evaluate.

        They are others than those of training for optimizers with ``train()`` and ``eval()``.
        """
        assert self._model is not None  # given to `restore`
        return evaluated_weights(self._model, self._optimizer, self._passing_after(step))

    def _passing_after(self, step: int) -> Callable[[], Iterable[Any]] | None:
        return None if self._passing is None else partial(self._passing, step)

    def set_running(self) -> None:
        """Let the status say how far the newest checkpoint is."""
        self.directory.set_status("running", **self._place(), **self._end())

    def _place(self) -> dict[str, int]:
        if self._per_epoch is None:
            return {"step": self.step}
        return {"epoch": self.step // self._per_epoch}

    def _end(self) -> dict[str, int]:
        if self._per_epoch is None:
            return {"steps": self.total}
        return {"epochs": self.total // self._per_epoch}

    def _position(self, status: Mapping[str, Any]) -> int:
        """Return the step that a status speaks of."""
        if self._per_epoch is None:
            return int(status.get("step", self.total))
        return int(status.get("epoch", self.total)) * self._per_epoch

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, over all processes that worked on the run."""
        return self._timing()["elapsed"]

    def _timing(self) -> dict[str, float]:
        here = time.perf_counter() - self._began
        rate = (self.step - self.start) / max(here, 1e-9)
        return {
            "elapsed": round(self._elapsed_before + here, 3),
            "steps_per_second": round(rate, 3),
        }

    # --- end ---

    def end(self, error: BaseException | None = None) -> None:
        """Write how the run ended: complete, diverged, or stopped by an error; close its logs.

        Only the first call counts: one run of a pack ends before the others.
        """
        if self._ended:
            return
        self._ended = True
        directory, place = self.directory, self._place()
        try:
            if error is None:
                self.logger.info("complete at step %d", self.step)
                metrics = {split: _finite(scalars) for split, scalars in self.latest.items()}
                directory.set_status("complete", **place, metrics=metrics, **self.notes)
            elif isinstance(error, DivergedError):
                self.log.sync()
                self.logger.warning("diverged: %s", error)
                metrics = {split: _finite(scalars) for split, scalars in self.latest.items()}
                directory.set_status("diverged", **place, message=str(error), metrics=metrics)
            else:
                self.logger.error("stopped at step %d: %r", self.step, error)
                directory.record_stop(error, **place)
        finally:
            if self._tracker is not None:
                self._tracker.finish()
            self.log.close()

    def check_end(self) -> None:
        """Raise ``RuntimeError`` where a loop ended before the run's last step."""
        if not self._ended and self.step < self.total:
            raise RuntimeError(f"the loop ended after step {self.step} of {self.total}")

    @property
    def result(self) -> RunResult:
        """How the run ended, from its status."""
        return read_result(self.directory.path)


class Unrecorded(Recorder):
    """The same for a loop that writes nothing: rows are checked, and the newest ones are kept.

    Args:
        total: the last step.
        **options: of ``Recorder``.
    """

    def __init__(self, total: int, **options: Any) -> None:
        super().__init__(RunDirectory(Path(), StopRequest()), total, **options)

    @property
    def finished(self) -> bool:
        """A loop without a record begins at its first step."""
        return False

    def restore(
        self,
        model: nn.Module,
        *,
        step: int | None = None,
        passing: Callable[[int], Iterable[Any]] | None = None,
        **parts: Stateful,
    ) -> int:
        """Take over what ``evaluated`` needs; return 0."""
        del step
        self._take_over(model, passing, parts)
        if self._track is not None:
            self._tracker = self._track(self.directory.path, [])
        return 0

    def _append(self, row: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
        if self._tracker is not None:
            self._tracker.log(row)
        self.latest[row["split"]] = dict(shown)

    def settle(self, step: int) -> None:
        """End a step."""
        self.step = step
        self._append_ending()


@contextlib.contextmanager
def recorded(
    path: Path,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    total: int,
    length: str | None = None,
    overwrite: bool = False,
    start_over: str = "--overwrite",
    **options: Any,
) -> Iterator[Recorder]:
    """Open a run for one writer, and write how it ended when the block is left.

    A divergence is an outcome and is not raised; everything else is. The block calls ``restore``
    first; if the run has ended before, there is nothing left to do in it.

    Args:
        path: the run directory.
        config: the run's identity as plain data; must equal the one already there.
        environment: what ``describe_environment`` returns, plus device and threads.
        total: the run's last step.
        length: dotted key of ``config`` that says how long the run is. A finished run whose
            configuration differs in a larger value of it alone is continued.
        overwrite: remove an earlier run's files first.
        start_over: what to do to start over, for messages.
        **options: of ``Recorder``.

    Raises:
        ValueError: another configuration, another process at work on the run, or an unfinished
            run that was begun under other code, versions, threads or kind of device.
        Interruption: the run was asked to stop, and its state is saved.
    """
    how: dict[str, Any] = {"overwrite": overwrite, "start_over": start_over}
    opened = open_run(path, config, environment, length=length, **how)
    with opened as directory, run_log(directory.logs / "train.log") as logger:
        run = Recorder(directory, total, logger=logger, **options)
        if run.finished:
            yield run
            return
        with recording(run):
            yield run


@contextlib.contextmanager
def recording(run: Recorder) -> Iterator[None]:
    """Begin at the first step, and write how the work inside ended."""
    try:
        yield
        run.check_end()
    except DivergedError as error:
        run.end(error)
    except BaseException as error:
        if hasattr(run, "log"):  # else refused before anything was restored, and left as it was
            run.end(error)
        raise
    else:
        run.end()


def say(message: str) -> None:
    """Print a line to standard error, above any progress bar."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


def _finite(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what strict JSON cannot hold by None."""
    broken = (k for k, v in scalars.items() if isinstance(v, float) and not math.isfinite(v))
    return {**scalars, **dict.fromkeys(broken)}


__all__ = ["Interruption", "Intervals", "Recorder", "Unrecorded", "recorded", "recording"]
