"""Several ICL runs trained as one program, each in a run directory of its own.

Legend: R runs of the pack, B batch, L items, T tokens, K classes.

What concerns one run (rows, evaluation, checkpoints, status) is done by its ``Recorder``; its model
is a view of the stack. Runs of one pack go in step: rows of all runs are durable before the
first checkpoint of a step appears, and old checkpoints go when all new ones are there, so that a
pack that is killed finds a step that all its runs can go back to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pytorch_port.config.runtime import Runtime, progress_bar
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import IclInputs, load_inputs
from pytorch_port.sweep.pack_steps import pack_steps
from pytorch_port.train.experiment import build, pack_record, run_identity, settle_engine
from pytorch_port.train.rows import LENGTH, record_options, write_rows
from trainrig.checkpoint import common_step, prune
from trainrig.device import choose_device, reuse_memory, set_precision, set_threads
from trainrig.errors import DivergedError
from trainrig.files import read_json
from trainrig.loop import StepRecord, every
from trainrig.recorder import Recorder, recorded
from trainrig.run_status import read_status
from trainrig.runs import describe_environment
from trainrig.seeding import make_deterministic
from trainrig.vectorized import Stack, StackedOptimizer


def run_pack(runs: Sequence[tuple[IclConfig, Path]], runtime: Runtime) -> str:
    """Train runs that ``pack_plan.pack_key`` calls alike, resuming what is there.

    A run that has ended already keeps its place and is left as it is: with another number of runs
    the others would meet other rounding.

    Returns:
        ``complete``, or ``diverged`` if some run did.

    Raises:
        ValueError, FileNotFoundError, CheckpointError, OSError: as ``experiment.run``, and members
            that stand at different steps.
        RuntimeError, MemoryError: out of memory; see ``trainrig.packs.or_out_of_memory``.
    """
    make_deterministic()
    threads = set_threads(runtime.threads)
    device = choose_device(runtime.device)
    set_precision(runs[0][0].training.precision)
    reuse_memory()
    names = [path.name for _, path in runs]
    built = []
    for config, path in runs:  # all that can be refused, before anything is written
        inputs = load_inputs(config, device, data_dir=runtime.data_dir, download=runtime.download)
        model, optimizer = build(config, inputs)
        settled, chosen = settle_engine(config, path, inputs, model, runtime, packed=True)
        environment = describe_environment("pytorch_port", device=str(device), threads=threads)
        environment |= {"engine": chosen.describe(device), "optimizer": {}}
        environment |= pack_record(path, names, config, runtime)
        built.append((settled, inputs, model, optimizer, environment))
    with contextlib.ExitStack() as open_runs:
        members = []
        for (_, path), (config, inputs, model, optimizer, environment) in zip(
            runs, built, strict=True
        ):
            identity, branch = run_identity(path, config, inputs, overwrite=runtime.overwrite)
            if read_status(path)["status"] == "diverged" and not runtime.overwrite:
                # It keeps its place in a pack that becomes longer, and its length.
                identity[LENGTH] = read_json(path / "config.json")[LENGTH]
            opened = recorded(
                path,
                identity,
                environment,
                overwrite=runtime.overwrite,
                branch=branch,
                **record_options(config, runtime),
            )
            record = open_runs.enter_context(opened)
            members.append(Member(config, inputs, model, optimizer, record))
        Pack(members, runtime).train()
    statuses = {member.record.result.status for member in members}
    return "diverged" if "diverged" in statuses else "complete"


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a pack: what is trained, and its record."""

    config: IclConfig
    inputs: IclInputs
    model: nn.Module
    optimizer: torch.optim.Optimizer
    record: Recorder


class Pack:
    """The state of a pack in one process.

    Args:
        members: one per run, on open records, not restored yet.
        runtime: what does not change the numbers.
    """

    def __init__(self, members: Sequence[Member], runtime: Runtime) -> None:
        self.members, self.runtime = tuple(members), runtime
        self.config = members[0].config
        self.running = {r: member for r, member in enumerate(members) if not member.record.finished}
        common, starts = _common_step(list(self.running.values())), set[int]()
        for member in self.running.values():
            record, optimizer = member.record, member.optimizer
            starts.add(record.restore(member.model, step=common, optimizer=optimizer))
        (self.start_step,) = starts  # not ``common`` where they begin with the state of another run
        models = [member.model for member in members]
        self.stack = Stack(models, pad=len({m.config.num_classes for m in members}) > 1)
        self.optimizer = StackedOptimizer(self.stack, [member.optimizer for member in members])
        self.optimizer.freeze(r for r in range(len(members)) if r not in self.running)

    def train(self) -> None:
        """Perform the remaining steps of all runs."""
        training, total = self.config.training, self.config.training_steps
        names = f"pack of {len(self.members)}"
        steps = pack_steps(
            [member.config for member in self.members],
            [member.inputs for member in self.members],
            self.stack,
            self.optimizer,
            start_step=self.start_step,
            num_workers=self.runtime.num_workers,
        )
        lead = self.members[0].record
        with progress_bar(self.config, self.runtime, names, self.start_step) as bar:
            for step in steps:
                saving = lead.saves(step.step)
                intervals = (training.log_interval, training.eval_interval)
                if saving or any(every(n, step.step, total) for n in intervals):
                    self._write_rows(step)
                if saving:
                    self._save(step.step)
                bar.update()
                if not self.running:
                    return
                self._stop_if_asked(step.step, saved=saving)

    def _write_rows(self, step: StepRecord) -> None:
        """Let every run write its rows; freeze those that have diverged."""
        logits, labels = step.output  # (R, B, T, K), (R, B, L) or (B, L)
        assert isinstance(step.lr, Sequence)  # the schedule of a pack yields one for each run
        self.stack.expose_gradients()
        for r, member in list(self.running.items()):
            own = logits[r, ..., : member.config.num_classes]
            output = own, labels if labels.ndim == 2 else labels[r]
            record = StepRecord(step.step, step.loss[r], step.lr[r], output)
            try:
                write_rows(member.record, record, member.config, member.inputs, member.model)
            except DivergedError as error:
                member.record.end(error)
                self.optimizer.freeze([r])
                del self.running[r]
        for one in self.stack.members:
            one.zero_grad()

    def _stop_if_asked(self, step: int, *, saved: bool) -> None:
        # A signal reaches one of them.
        due = [m.record.directory for m in self.members if m.record.directory.stop.due()]
        if due and step < self.config.training_steps:
            if not saved:
                self._save(step, interim=True)
            raise due[0].stop.interruption(f"{due[0].path}: step {step}")

    def _save(self, step: int, *, interim: bool = False) -> None:
        self.optimizer.write_members()
        keep = self.config.training.keep_last
        records = [member.record for member in self.running.values()]
        synced = [record.sync() for record in records]
        for record, logs in zip(records, synced, strict=True):
            record.step = step  # also of a step without rows
            record.write_checkpoint(logs, keep + 1, interim=interim)
        for record in records:
            prune(record.directory.checkpoints, step, keep)
            record.set_running()


def _common_step(members: Sequence[Member]) -> int:
    """Return the newest step of which all runs have a valid checkpoint, 0 for the beginning.

    Raises:
        CheckpointError: a run has no valid one, or would lose more than what lies between two.
    """
    records = [member.record for member in members]
    folders = [record.directory.checkpoints for record in records]
    step, ignored = common_step(folders, members[0].config.training.save_interval)
    for record, messages in zip(records, ignored, strict=True):
        for message in messages:
            record.logger.warning(message)
    return step
