"""Several ICL runs trained as one program, each in a run directory of its own.

Legend: R runs of the pack, B batch, L items, T tokens, K classes.

What concerns one run (rows, evaluation, checkpoints, status) is done by its ``Trainer``, whose
model is a view of the stack. Runs of one pack go in step: rows of all runs are durable before the
first checkpoint of a step appears, and old checkpoints go when all new ones are there, so that a
pack that is killed finds a step that all its runs can go back to.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from pathlib import Path

import torch

from pytorch_port.config.runtime import Runtime, progress_bar
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import load_inputs
from pytorch_port.sweep.pack_steps import pack_steps
from pytorch_port.train.experiment import build, pack_record, run_identity, settle_engine
from pytorch_port.train.trainer import Trainer
from trainrig.checkpoint import common_step, prune
from trainrig.device import choose_device, reuse_memory, set_precision, set_threads
from trainrig.errors import DivergedError
from trainrig.loop import StepRecord, every
from trainrig.runs import FINAL, describe_environment, open_run
from trainrig.seeding import make_deterministic
from trainrig.tracking.run_log import run_log
from trainrig.vectorized import Stack, StackedOptimizer

OUT_OF_MEMORY = "out of memory"


def run_pack(runs: Sequence[tuple[IclConfig, Path]], runtime: Runtime) -> str:
    """Train runs that ``pack_plan.pack_key`` calls alike, resuming what is there.

    A run that has ended already keeps its place and is left as it is: with another number of runs
    the others would meet other rounding.

    Returns:
        ``complete``, ``diverged`` if some run did, or ``out of memory``.

    Raises:
        ValueError, FileNotFoundError, CheckpointError, OSError: as ``experiment.run``, and members
            that stand at different steps.
    """
    try:
        return _train(runs, runtime)
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's words for the CPU
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return OUT_OF_MEMORY


def _train(runs: Sequence[tuple[IclConfig, Path]], runtime: Runtime) -> str:
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
        settled = settle_engine(config, path, inputs, model, runtime, packed=True)
        environment = describe_environment("pytorch_port", device=str(device), threads=threads)
        environment |= pack_record(path, names, runtime)
        built.append((settled, inputs, model, optimizer, environment))
    with contextlib.ExitStack() as open_files:
        trainers = []
        for (_, path), (config, inputs, model, optimizer, environment) in zip(
            runs, built, strict=True
        ):
            identity = run_identity(config, inputs)
            opened = open_run(path, identity, environment, overwrite=runtime.overwrite)
            directory = open_files.enter_context(opened)
            logger = open_files.enter_context(run_log(directory.logs / "train.log"))
            trainers.append(Trainer(config, inputs, directory, runtime, logger, model, optimizer))
        Pack(trainers).train()
        statuses = {trainer.directory.status()["status"] for trainer in trainers}
    return "diverged" if "diverged" in statuses else "complete"


class Pack:
    """The state of a pack in one process.

    Args:
        trainers: one per run, on open directories, not restored yet.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = tuple(trainers)
        self.config = trainers[0].config
        self.running = {
            r: trainer
            for r, trainer in enumerate(trainers)
            if trainer.directory.status()["status"] not in FINAL
        }
        self.start_step = _common_step(list(self.running.values()))
        for trainer in self.running.values():
            trainer.restore(self.start_step)
        models = [trainer.model for trainer in trainers]
        self.stack = Stack(models, pad=len({t.config.num_classes for t in trainers}) > 1)
        self.optimizer = StackedOptimizer(self.stack, [trainer.optimizer for trainer in trainers])
        self.optimizer.freeze(r for r in range(len(trainers)) if r not in self.running)

    def train(self) -> None:
        """Perform the remaining steps of all runs and write how each ended."""
        for trainer in self.running.values():
            trainer.begin()
        try:
            self._loop()
        except BaseException as error:
            for trainer in self.running.values():
                trainer.end(error)
            raise
        for trainer in self.running.values():
            trainer.end()

    def _loop(self) -> None:
        training, total = self.config.training, self.config.training_steps
        runtime, names = self.trainers[0].runtime, f"pack of {len(self.trainers)}"
        records = pack_steps(
            [trainer.config for trainer in self.trainers],
            [trainer.inputs for trainer in self.trainers],
            self.stack,
            self.optimizer,
            start_step=self.start_step,
            num_workers=runtime.num_workers,
        )
        with progress_bar(self.config, runtime, names, self.start_step) as bar:
            for record in records:
                saving = self.trainers[0].saves_at(record.step)
                intervals = (training.log_interval, training.eval_interval)
                if saving or any(every(n, record.step, total) for n in intervals):
                    self._record(record)
                if saving:
                    self._save(record.step)
                bar.update()
                if not self.running:
                    return
                self._stop_if_asked(record.step, saved=saving)

    def _record(self, record: StepRecord) -> None:
        """Let every run write its rows; freeze those that have diverged."""
        logits, labels = record.output  # (R, B, T, K), (R, B, L) or (B, L)
        assert isinstance(record.lr, Sequence)  # the schedule of a pack yields one for each run
        self.stack.expose_gradients()
        for r, trainer in list(self.running.items()):
            own = logits[r, ..., : trainer.config.num_classes]
            output = own, labels if labels.ndim == 2 else labels[r]
            try:
                trainer.record(StepRecord(record.step, record.loss[r], record.lr[r], output))
            except DivergedError as error:
                trainer.end(error)
                self.optimizer.freeze([r])
                del self.running[r]
        for member in self.stack.members:
            member.zero_grad()

    def _stop_if_asked(self, step: int, *, saved: bool) -> None:
        due = [t for t in self.trainers if t.directory.stop.due()]  # a signal reaches one of them
        if due and step < self.config.training_steps:
            if not saved:
                self._save(step, interim=True)
            raise due[0].directory.stop.interruption(f"{due[0].directory.path}: step {step}")

    def _save(self, step: int, *, interim: bool = False) -> None:
        self.optimizer.write_members()
        keep = self.config.training.keep_last
        sizes = {r: trainer.log.sync() for r, trainer in self.running.items()}
        for r, trainer in self.running.items():
            trainer.step = step  # also of a step without rows
            trainer.write_checkpoint(sizes[r], keep + 1, interim=interim)
        for trainer in self.running.values():
            prune(trainer.directory.checkpoints, step, keep)
            trainer.set_running()


def _common_step(trainers: Sequence[Trainer]) -> int:
    """Return the newest step of which all runs have a valid checkpoint, 0 for the beginning.

    Raises:
        CheckpointError: a run has no valid one, or would lose more than what lies between two.
    """
    folders = [trainer.directory.checkpoints for trainer in trainers]
    step, ignored = common_step(folders, trainers[0].config.training.save_interval)
    for trainer, messages in zip(trainers, ignored, strict=True):
        for message in messages:
            trainer.logger.warning(message)
    return step
