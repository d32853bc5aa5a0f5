"""Several ICL runs trained as one program, each in a run directory of its own.

Legend: R runs of the pack, B batch, L items, T tokens, K classes.

What concerns one run (rows, evaluation, status) is done by its ``Recorder``; its model is a view of
the stack. Their checkpoints are written together, see ``trainrig.pack_recorder``.
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
from trainrig.device import choose_device, reuse_memory, set_precision, set_threads
from trainrig.loop import StepRecord
from trainrig.pack_recorder import PackRecorder, keep_length_of_diverged
from trainrig.recorder import Recorder, recorded
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
            if not runtime.overwrite:
                keep_length_of_diverged(path, identity, LENGTH)
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
        train_members(members, runtime)
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


def train_members(members: Sequence[Member], runtime: Runtime) -> None:
    """Perform the remaining steps of all members, on open records that are not restored yet."""
    configs, models = [m.config for m in members], [m.model for m in members]
    optimizers = [member.optimizer for member in members]
    pack = PackRecorder([member.record for member in members])
    start = pack.restore(models, [{"optimizer": optimizer} for optimizer in optimizers])
    stack = Stack(models, pad=len({config.num_classes for config in configs}) > 1)
    pack.follow(StackedOptimizer(stack, optimizers))
    steps = pack_steps(
        configs,
        [member.inputs for member in members],
        stack,
        pack.optimizer,
        start_step=start,
        num_workers=runtime.num_workers,
    )
    lead = members[0].record
    with progress_bar(configs[0], runtime, f"pack of {len(members)}", start) as bar:
        for step in steps:
            if lead.logs(step.step) or lead.evaluates(step.step):
                _write_rows(pack, step, members, stack)
            pack.settle(step.step)
            bar.update()
            if not pack.running:
                return


def _write_rows(
    pack: PackRecorder, step: StepRecord, members: Sequence[Member], stack: Stack
) -> None:
    """Let every run write its rows; those that have diverged end."""
    logits, labels = step.output  # (R, B, T, K), (R, B, L) or (B, L)
    assert isinstance(step.lr, Sequence)  # the schedule of a pack yields one for each run
    rates = step.lr

    def write(r: int, record: Recorder) -> None:
        member = members[r]
        own = logits[r, ..., : member.config.num_classes]
        output = own, labels if labels.ndim == 2 else labels[r]
        one = StepRecord(step.step, step.loss[r], rates[r], output)
        write_rows(record, one, member.config, member.inputs, member.model)

    stack.expose_gradients()
    pack.write(write)
    for one in stack.members:
        one.zero_grad()
