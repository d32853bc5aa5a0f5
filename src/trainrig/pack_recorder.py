"""The records of runs that are trained as one program and go in step.

    pack = PackRecorder(records)
    start = pack.restore(models, [{"optimizer": optimizer} for optimizer in optimizers])
    stack = Stack(models)
    pack.follow(StackedOptimizer(stack, optimizers))
    for step in train_steps(stack, pack.optimizer, ...):
        pack.write(lambda r, record: record.row("train", step.step, loss=step.loss[r].item()))
        pack.settle(step.step)

Rows of all runs are durable before the first checkpoint of a step appears, and old checkpoints go
when all new ones are there, so that a pack that is killed finds a step that all its runs can go
back to. A run that has ended keeps its place: with another number of runs the others would meet
other rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from trainrig.checkpoint import common_step, prune
from trainrig.errors import DivergedError
from trainrig.files import read_json
from trainrig.recorder import Recorder
from trainrig.run_status import read_status
from trainrig.vectorized import StackedOptimizer


class PackRecorder:
    """The records of a pack.

    Attributes:
        records: of the runs, by their places.
        running: those that have not ended, by place.
        optimizer: of the stack of their models, see ``follow``.
    """

    optimizer: StackedOptimizer

    def __init__(self, records: Sequence[Recorder]) -> None:
        self.records = tuple(records)
        self.running = {r: record for r, record in enumerate(records) if not record.finished}

    def restore(self, models: Sequence[nn.Module], parts: Sequence[Mapping[str, Any]]) -> int:
        """Continue from the newest step of which all running members have a valid checkpoint.

        Args:
            models: of all members.
            parts: of all members: the optimizer and whatever else has state, as for
                ``Recorder.restore``.

        Raises:
            CheckpointError: a run has no valid one, would lose more than what lies between two, or
                is of another model or optimizer.
        """
        running = list(self.running.values())
        folders = [record.directory.checkpoints for record in running]
        least = running[0].intervals.save or running[0].total if running else 0
        common, ignored = common_step(folders, least) if running else (0, [])
        for record, messages in zip(running, ignored, strict=True):
            for message in messages:
                record.logger.warning(message)
        starts = {
            record.restore(models[r], step=common, **parts[r]) for r, record in self.running.items()
        }
        if not starts:
            return self.records[0].total
        (start,) = starts  # not ``common`` where they begin with the state of another run
        return start

    def follow(self, optimizer: StackedOptimizer) -> None:
        """Take the optimizer whose state is saved; runs that have ended are not updated."""
        self.optimizer = optimizer
        optimizer.freeze(r for r in range(len(self.records)) if r not in self.running)

    def write(self, write: Callable[[int, Recorder], None]) -> None:
        """Let every running member write its rows; those that have diverged end."""
        self._each(self.running, write)

    def _each(self, places: Iterable[int], act: Callable[[int, Recorder], None]) -> None:
        for r in tuple(places):
            try:
                act(r, self.records[r])
            except DivergedError as error:
                self.records[r].end(error)
                self.optimizer.freeze([r])
                del self.running[r]

    def settle(self, step: int) -> None:
        """End a step of all members, as ``Recorder.settle`` does for one.

        Raises:
            Interruption: a member was asked to stop, and the state of all is saved.
        """
        for record in self.running.values():
            record.step = step
        lead = next(iter(self.running.values()), None)
        if lead is None:
            return
        saving = lead.saves(step)
        saved = saving or lead.save_is_due()
        if saved:
            self._save(step, interim=not saving)
        # A signal reaches one of them.
        due = [record.directory for record in self.records if record.directory.stop.due()]
        if due and step < lead.total:
            if not saved:
                self._save(step, interim=True)
            raise due[0].stop.interruption(f"{due[0].path}: step {step}")

    def _save(self, step: int, *, interim: bool) -> None:
        began = time.perf_counter()
        self._each(self.running, lambda _, record: record.check_weights())
        self.optimizer.write_members()
        records = list(self.running.values())
        synced: list[dict[str, Any]] = [record.sync() for record in records]
        for record, logs in zip(records, synced, strict=True):
            keep = record.intervals.keep_last
            record.write_checkpoint(logs, keep + 1, interim=interim)
        for record in records:
            prune(record.directory.checkpoints, step, record.intervals.keep_last)
            record.saved(began)


def keep_length_of_diverged(path: Path, identity: dict[str, Any], length: str) -> None:
    """Let a run that has diverged keep its place in a pack that becomes longer, and its length.

    Args:
        path: the run directory.
        identity: of the run; changed.
        length: its key that says how long the run is.
    """
    if read_status(path)["status"] == "diverged":
        identity[length] = read_json(path / "config.json")[length]


__all__ = ["PackRecorder", "keep_length_of_diverged"]
