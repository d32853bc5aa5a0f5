"""One run made ready: what is trained, where its result goes, what it begins from."""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepobs.pytorch.datasets.loaders import Batch
from deepobs.pytorch.runners.curves import Curves
from deepobs.pytorch.runners.results import make_output, strict, write_output
from deepobs.pytorch.runners.settings import RunSettings, learning_rates, result_name
from deepobs.pytorch.testproblems import TestProblem
from trainrig.branching import Branch
from trainrig.checkpoint import last_checkpoint, list_checkpoints, prune
from trainrig.distributed import Team
from trainrig.errors import CheckpointError, DivergedError
from trainrig.files import read_json
from trainrig.loop import StepRecord, set_rate, train_steps
from trainrig.models.batchnorm import implementation
from trainrig.optim.needs import needs_of
from trainrig.recorder import Interruption, Intervals, Recorder, Shown, Unrecorded, recorded
from trainrig.run_status import FINAL, read_status
from trainrig.runs import LATEST, check_environment, describe_environment

logger = logging.getLogger(__name__)
#: Columns of ``logs/progress.txt``.
COLUMNS = ("step", "epoch", "split", "loss", "accuracy", "elapsed")


@dataclass(kw_only=True, slots=True)
class Job:
    """A run in this process.

    Attributes:
        settings: what decides its result.
        problem: set up.
        optimizer: of the problem's parameters.
        folder: where the result goes; None writes nothing.
        curves: of the result.
        say: receives console lines.
        show: rows so far → where rows are shown live.
        checkpoint_interval_s: least seconds between two checkpoints; 0 saves after every step.
        keep_checkpoint: whether the last one stays, so that the run can be trained longer.
        reuse: whether a shorter run of the same setting is continued.
        branch: what it begins from.
        pack: names of the runs that are trained with it as one program.
        team: processes that train it; None for this one alone.
        output: the result, once there is one.
    """

    settings: RunSettings
    problem: TestProblem
    optimizer: torch.optim.Optimizer
    folder: Path | None
    say: Callable[[str], None] = lambda line: None
    show: Callable[[Path, Any], Shown] | None = None
    checkpoint_interval_s: float = 60.0
    keep_checkpoint: bool = True
    reuse: bool = True
    branch: Branch | None = None
    pack: Sequence[str] = ()
    team: Team | None = None
    output: dict[str, Any] = field(default_factory=dict)
    curves: Curves = field(init=False)
    #: The hidden folder of the shorter run that this one continues.
    continued: Path | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        pack = max(len(self.pack), 1)
        self.curves = Curves(self.settings, self.problem, say=self.say, pack=pack)

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.curves.per_epoch

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.settings.num_epochs * self.per_epoch

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.problem.net.parameters()).device

    # --- the record ---

    @contextlib.contextmanager
    def recorded(self) -> Iterator[Recorder]:
        """Open the run's hidden folder; leave its result beside it, complete or diverged."""
        options: dict[str, Any] = {"per_epoch": self.per_epoch, "finite": False}
        if self.folder is None:
            with self._ending(Unrecorded(self.total, track=self.show, **options)) as run:
                yield run
            return
        work = work_folder(self.folder, self.settings.random_seed)
        identity = strict(self.settings.to_dict() | ({"engine": "pack"} if self.pack else {}))
        threads = torch.get_num_threads()
        environment = describe_environment("deepobs", device=str(self.device), threads=threads)
        environment |= {"optimizer": needs_of(self.optimizer).describe()}
        environment |= {"pack": list(self.pack)} if self.pack else {}
        if method := implementation(self.problem.net):
            environment |= {"batch_norm": method}
        overwrite, shorter = _starts_anew(work), None
        if overwrite and self.reuse and self.branch is None and not self.pack:
            shorter, environment = self._shorter(work, identity, environment)
        every, seconds = int(self.checkpoint_interval_s == 0), self.checkpoint_interval_s
        with (
            recorded(
                work,
                identity,
                environment,
                total=self.total,
                overwrite=overwrite,
                intervals=Intervals(
                    log=1, evaluate=self.per_epoch, save=every, save_seconds=seconds
                ),
                columns=COLUMNS,
                track=self.show,
                branch=shorter or self.branch,
                **options,
            ) as record,
            self._ending(record) as run,
        ):
            yield run
        checkpoints = work / LATEST
        if run.result.status == "complete" and self.keep_checkpoint:
            prune(checkpoints, self.total, 1)
        else:
            shutil.rmtree(checkpoints, ignore_errors=True)

    @contextlib.contextmanager
    def _ending(self, run: Recorder) -> Iterator[Recorder]:
        """Write the result before the record ends; let other processes of the run end too."""
        try:
            yield run
            if not run.finished:
                run.check_end()
                self._write_result("complete")
        except DivergedError:
            self._write_result("diverged")
            if self.folder is not None:
                raise
        except Interruption:
            if self.team is not None and run.step < self.total:
                self.team.dismiss()
            raise

    def _write_result(self, status: str) -> None:
        if self.output:
            return
        timing: dict[str, Any] = dict(self.curves.timing)
        timing["total_seconds"] = sum(sum(values) for values in timing.values())
        timing["pack"] = max(len(self.pack), 1)
        timing["peak_memory_bytes"] = peak_memory_bytes(self.device)
        output = make_output(self.settings, self.curves.lists, status, timing, self.device)
        if self.folder is not None:
            output = strict(output)
            write_output(self.folder / result_name(self.settings.random_seed), output)
        self.output = output

    def end(self, record: Recorder, error: DivergedError) -> None:
        """Write the result of a run that diverged before the others of its pack."""
        self._write_result("diverged")
        record.end(error)

    def _shorter(
        self, work: Path, identity: Mapping[str, Any], environment: dict[str, Any]
    ) -> tuple[Branch | None, dict[str, Any]]:
        """Return the end of the longest finished run of fewer epochs, and what is recorded of it.

        Nothing of a run depends on how long it is to be, so that it continues bit for bit. Where it
        cannot be continued, a warning says why, and the run begins at its first step.
        """
        assert self.folder is not None  # a run without files looks for nothing
        found = []
        for folder in self.folder.parent.iterdir() if self.folder.parent.is_dir() else ():
            one = work_folder(folder, self.settings.random_seed)
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                epochs = read_json(one / "config.json")["num_epochs"]
                same = read_json(one / "config.json") == {**identity, "num_epochs": epochs}
                if same and 0 < epochs < self.settings.num_epochs:
                    found.append((epochs, one))
        for epochs, one in sorted(found, reverse=True):
            if read_status(one)["status"] != "complete" or not list_checkpoints(one / LATEST):
                continue
            try:
                known = check_environment(one, environment)
                checkpoint = last_checkpoint(one / LATEST)
                if checkpoint.step != epochs * self.per_epoch:
                    raise CheckpointError(f"{checkpoint.path}: is not the end of {epochs} epochs")
            except (ValueError, CheckpointError) as error:
                logger.warning("not continued, trained from the beginning: %s", error)
                continue
            logger.info("%s: continued from %d to %d epochs", one, epochs, self.settings.num_epochs)
            record = {"from": epochs, "to": self.settings.num_epochs}
            known = {**known, "lengthened": [*known.get("lengthened", []), record]}
            self.continued = one
            return Branch(checkpoint, True, ()), known
        return None, environment

    # --- the training ---

    def restore(self, run: Recorder) -> int:
        """Continue where the record, a shorter run or a branch ends; return the steps completed.

        Of several processes, this one, the first, then gives the others its state.
        """
        begun = bool(list_checkpoints(run.directory.checkpoints))
        start = run.restore(self.problem.net, passing=self.passing, **self.parts())
        if begun and start:
            self.say(f"Resuming in epoch {start // self.per_epoch} after step {start}")
        elif start and not run.finished:
            self._begin_from(run, start)
        return self._equalise(start)

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides the network, by name."""
        return {
            "optimizer": self.optimizer,
            "curves": self.curves,
            "position": Position(self.problem),
        }

    def _begin_from(self, run: Recorder, start: int) -> None:
        """Complete the beginning of a run from another's state: its rows, its learning rate."""
        if self.continued is not None:
            text = (self.continued / "logs/metrics.jsonl").read_text(encoding="utf-8")
            for line in text.splitlines():
                run.log.append(json.loads(line))
        elif self.branch is not None and (schedule := self.schedule()) is not None:
            source = self.branch.checkpoint.path.parents[3] / "config.json"
            if _rate_at(read_json(source), start // self.per_epoch) != schedule(start):
                set_rate(self.optimizer, schedule(start))

    def steps(self, start: int) -> Iterator[StepRecord]:
        """Perform the steps after ``start``, yielding after each."""
        batches = self.batches(start)
        if self.team is not None:
            batches = self.team.orders(batches)
        return train_steps(
            self.problem.net,
            self.optimizer,
            batches,
            _Objective(self.problem),
            schedule=self.schedule(),
            total_steps=self.total,
            start_step=start,
        )

    def schedule(self) -> Callable[[int], float] | None:
        """Return steps completed → learning rate; None leaves it to the optimizer."""
        rates, per_epoch = self.settings.schedule, self.per_epoch
        if rates is None:
            return None
        return lambda done: rates[max(epoch for epoch in rates if epoch <= done // per_epoch)]

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield the training batches from a step on, each epoch from a pass of its own."""
        train, within = self.problem.data.train, start % self.per_epoch
        for epoch in range(start // self.per_epoch, self.settings.num_epochs):
            if within == 0:
                self.problem.train_init_op()
                rates = self.settings.schedule or {}
                if epoch in rates:
                    self.say("*" * 32)
                    self.say(f"Setting learning rate to {rates[epoch]:f}")
            yield from train.batches(train.passes - 1, start=within)
            within = 0

    def passing(self, step: int) -> Iterator[None]:
        """Pass the batches of the present epoch through the network, for its statistics."""
        del step  # the loader knows its pass
        carried, train = self.problem.carried_state(), self.problem.data.train
        try:
            for batch in train.batches(max(train.passes - 1, 0)):
                self.problem.forward_losses(batch, accuracy=False)
                yield
        finally:
            self.problem.restore_carried_state(carried)

    def _equalise(self, start: int) -> int:
        """Put the first process's run, as it stands, into the others; return its step."""
        if self.team is None:
            return start
        parts = [part for name, part in self.parts().items() if name != "optimizer"]
        states = self.team.told([part.state_dict() for part in parts])
        for part, state in zip(parts, states, strict=True):
            if not self.team.leads:
                part.load_state_dict(state)
        return self.team.equalise(self.problem.net, self.optimizer, start)


def work_folder(folder: Path, random_seed: int) -> Path:
    """Return the hidden folder of a run at work, beside its result."""
    return folder / f".random_seed__{random_seed}"


def _rate_at(config: Mapping[str, Any], epoch: int) -> float | None:
    """Return the learning rate that a run's ``config.json`` gives an epoch."""
    given = config["hyperparams"]
    lr = given.get("lr", given.get("learning_rate"))
    if lr is None:
        return None
    rates = learning_rates(lr, config["lr_sched_epochs"], config["lr_sched_factors"])
    return rates[max(first for first in rates if first <= epoch)]


def _starts_anew(work: Path) -> bool:
    """Say whether earlier work is finished, or has nothing yet to go on from."""
    return read_status(work)["status"] in FINAL or not list_checkpoints(work / LATEST)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory used so far: on the device for CUDA, else resident in this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


class Position:
    """Where a problem stands: passes over its data, and what is carried from batch to batch."""

    def __init__(self, problem: TestProblem) -> None:
        self.problem = problem

    def state_dict(self) -> dict[str, Any]:
        """Return both."""
        problem = self.problem
        return {"passes": problem.data.state_dict(), "carried": problem.carried_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there, within a training pass."""
        problem, carried = self.problem, state["carried"]
        device = next(problem.net.parameters()).device
        problem.data.load_state_dict(state["passes"])
        problem.begin("train", None)
        if carried is not None:
            carried = [tuple(part.to(device) for part in pair) for pair in carried]
        problem.restore_carried_state(carried)


class _Objective:
    """The objective of a batch; of the same batch again, from the same recurrent state."""

    def __init__(self, problem: TestProblem) -> None:
        self.problem, self.carried = problem, None
        self.batch: Any = None

    def __call__(self, _: Any, batch: Any) -> tuple[Tensor, None]:
        problem = self.problem
        if batch is not self.batch:
            self.batch, self.carried = batch, problem.carried_state()
            return problem.objective(batch), None
        after = problem.carried_state()
        problem.restore_carried_state(self.carried)
        try:
            return problem.objective(batch), None
        finally:
            problem.restore_carried_state(after)
