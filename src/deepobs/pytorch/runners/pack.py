"""Many settings of one problem side by side in one program, each with its ordinary result.

All members have one seed, so that they see the same batches and the same random numbers;
hyperparameters differ. Their networks are a ``trainrig.vectorized.Stack``, and they go in step; a
member that diverges is frozen and the others continue. A member's result equals that of the
separate run within rounding. The same call after a crash resumes, with the same members in the same
places, and ends with the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepobs.pytorch import config
from deepobs.pytorch.datasets.loaders import Batch
from deepobs.pytorch.runners.job import Job, Position, work_folder
from deepobs.pytorch.runners.results import find_result
from deepobs.pytorch.runners.runner import PTRunner
from deepobs.pytorch.runners.settings import RunSettings
from deepobs.pytorch.testproblems import TestProblem
from trainrig.checkpoint import list_checkpoints
from trainrig.device import reuse_memory
from trainrig.errors import DivergedError
from trainrig.files import read_json, scratch_folder
from trainrig.loop import StepRecord, train_steps
from trainrig.optim.needs import needs_of
from trainrig.pack_recorder import PackRecorder
from trainrig.packs import OUT_OF_MEMORY, or_out_of_memory
from trainrig.recorder import Recorder, say
from trainrig.runs import LATEST
from trainrig.seeding import capture_rng, restore_rng
from trainrig.vectorized import ELEMENTWISE, Stack, StackedOptimizer

#: Largest relative difference between a problem's loss alone and in a stack.
TOLERANCE = 1e-4


def run_pack(  # noqa: PLR0913 - as PTRunner.run
    runner: PTRunner,
    testproblem: str,
    hyperparams: Sequence[Mapping[str, Any]],
    *,
    random_seed: int = 42,
    output_dir: str | Path = "./results",
    data_dir: str | Path | None = None,
    no_logs: bool = False,
    skip_if_exists: bool = True,
    checkpoint_interval_s: float = 60.0,
    since_ns: int = 0,
    keep_checkpoint: bool = False,
    **arguments: Any,
) -> list[dict[str, Any]]:
    """Run one optimizer on one problem with several settings at once.

    Where the memory does not hold them all, they are trained in two halves.

    Args:
        runner: as for single runs.
        testproblem: a problem whose network can be stacked: all but ``tolstoi_char_rnn``.
        hyperparams: one setting per member.
        random_seed: of every member.
        output_dir: root of the result files.
        data_dir: replaces ``config.get_data_dir()``.
        no_logs: leave no file.
        skip_if_exists: leave members out that have a result of this setting and seed.
        checkpoint_interval_s: least seconds between two checkpoints; 0 saves after every step.
        since_ns: results that were written before this time do not count as there.
        keep_checkpoint: keep the members' last ones.
        arguments: further ones of ``PTRunner.run`` that decide the result.

    Returns:
        Each member's result, in order, of this call or an earlier one.

    Raises:
        ValueError, KeyError, FileNotFoundError: bad arguments or data, or a problem or optimizer
            that cannot be packed.
        MemoryError: not even one member fits.
    """
    if data_dir is not None:
        config.set_data_dir(data_dir)
    every = [
        runner.make_settings(testproblem, given, random_seed=random_seed, **arguments)
        for given in hyperparams
    ]
    options = {
        "checkpoint_interval_s": checkpoint_interval_s,
        "keep_checkpoint": keep_checkpoint,
        "reuse": False,
    }
    if no_logs:
        with scratch_folder() as folder:
            outputs = _train(runner, every, folder, options)
            return [outputs[i] for i in range(len(every))]
    found = [
        find_result(settings, output_dir, since_ns) if skip_if_exists else None
        for settings in every
    ]
    outputs = {i: read_json(file) for i, file in enumerate(found) if file is not None}
    for places in _packs(runner, every, Path(output_dir), done=set(outputs)):
        members = [every[i] for i in places]
        done = {r for r, i in enumerate(places) if i in outputs}
        made = _train(runner, members, Path(output_dir), options, done)
        outputs |= {places[r]: output for r, output in made.items()}
    return [outputs[i] for i in range(len(every))]


def _packs(
    runner: PTRunner, every: Sequence[RunSettings], output_dir: Path, done: set[int]
) -> list[list[int]]:
    """Return who is trained with whom: runs that have begun keep the pack that they began in.

    A member that has ended keeps its place there: with another number of members the others would
    meet other rounding.
    """
    names = {settings.run_name: i for i, settings in enumerate(every)}
    packs: dict[tuple[str, ...], list[int]] = {}
    fresh = []
    for i, settings in enumerate(every):
        if i in done:
            continue
        work = work_folder(runner.run_folder(settings, output_dir), settings.random_seed)
        begun = list_checkpoints(work / LATEST) and (work / "environment.json").exists()
        known = read_json(work / "environment.json").get("pack", []) if begun else []
        if known and names.keys() >= set(known):
            packs[tuple(known)] = [names[name] for name in known]
        else:
            fresh.append(i)
    return [*packs.values(), *([fresh] if fresh else [])]


def _train(
    runner: PTRunner,
    members: Sequence[RunSettings],
    output_dir: Path,
    options: Mapping[str, Any],
    done: set[int] = frozenset(),  # type: ignore[assignment] # never changed
) -> dict[int, dict[str, Any]]:
    """Train the members that are not done; return their results by place."""
    outputs: dict[int, dict[str, Any]] = {}

    def work() -> str:
        with _opened(runner, members, output_dir, options, done) as jobs:
            train_together(jobs)
        outputs.update({r: job.output for r, job in enumerate(jobs) if job.output})
        return "complete"

    if or_out_of_memory(work) != OUT_OF_MEMORY:
        return outputs
    if len(members) == 1:
        raise MemoryError(f"{members[0].testproblem}: out of memory with a single member")
    half = -(-len(members) // 2)
    say(f"pack of {len(members)} runs: out of memory; continuing with halves of it")
    for first in (0, half):
        places = range(first, min(first + half, len(members)))
        ended = {r - first for r in places if r in done}
        if len(ended) < len(places):
            chosen = [members[r] for r in places]
            made = _train(runner, chosen, output_dir, options, ended)
            outputs |= {first + r: output for r, output in made.items()}
    return outputs


@contextlib.contextmanager
def _opened(
    runner: PTRunner,
    members: Sequence[RunSettings],
    output_dir: Path,
    options: Mapping[str, Any],
    done: set[int],
) -> Iterator[list[Job]]:
    """Build all members, on the data set of the first."""
    reuse_memory()
    jobs: list[Job] = []
    for r, settings in enumerate(members):
        data = jobs[0].problem.data if jobs else None
        problem, optimizer = runner.build(settings, data)
        check_packable(optimizer)
        folder = None if r in done else runner.run_folder(settings, output_dir)
        jobs.append(
            Job(
                settings=settings,
                problem=problem,
                optimizer=optimizer,
                folder=folder,
                pack=[one.run_name for one in members],
                **options,
            )
        )
    yield jobs


def check_packable(optimizer: torch.optim.Optimizer) -> None:
    """Refuse optimizers that need more than one gradient a step, or that mix a network's values.

    Raises:
        ValueError: the optimizer is one.
    """
    needs, name = needs_of(optimizer), type(optimizer).__name__
    if needs.closure or needs.hook:
        raise ValueError(f"{name}: its step re-evaluates the loss, so its runs cannot be packed")
    if needs.create_graph or needs.switches:
        does = "differentiates the gradient again" if needs.create_graph else "evaluates an average"
        raise ValueError(f"{name}: it {does}, so its runs cannot be packed")
    if type(optimizer) not in ELEMENTWISE:
        accepted = ", ".join(kind.__name__ for kind in ELEMENTWISE)
        raise ValueError(f"{name}: its runs cannot be packed; those of {accepted} can")
    if len(optimizer.param_groups) > 1:
        raise ValueError("l2 optimizer-groups: such runs cannot be packed; use l2 loss")


def train_together(jobs: Sequence[Job]) -> None:
    """Train jobs of one problem and seed, as one program; those without a folder are not."""
    with contextlib.ExitStack() as opened:
        nets = [job.problem.net for job in jobs]
        stack = stack_of(jobs)
        at_work = {r: job for r, job in enumerate(jobs) if job.folder is not None}
        records = {r: opened.enter_context(job.recorded()) for r, job in at_work.items()}
        pack = PackRecorder(list(records.values()))
        start = pack.restore([nets[r] for r in at_work], [job.parts() for job in at_work.values()])
        optimizer = StackedOptimizer(stack, [job.optimizer for job in jobs])
        Together(jobs, list(records), pack, stack, optimizer).train(start)


class Together:
    """A pack at work.

    Args:
        jobs: of all members.
        places: of those that are trained, in the order of the records.
        pack: their records, restored.
        stack: of all members' objectives.
        optimizer: of the stack.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        places: Sequence[int],
        pack: PackRecorder,
        stack: Stack,
        optimizer: StackedOptimizer,
    ) -> None:
        self.jobs, self.places, self.pack = jobs, places, pack
        self.stack, self.optimizer = stack, optimizer
        pack.optimizer = optimizer
        optimizer.freeze(r for r in range(len(jobs)) if r not in places)
        optimizer.freeze(places[k] for k in range(len(places)) if k not in pack.running)

    def train(self, start: int) -> None:
        """Perform the steps after ``start``."""
        lead = self.jobs[0]
        if start == 0 and not self.jobs[self.places[0]].curves.evaluations:
            self.evaluate(0)
            self.pack.settle(0)
        for job in self.jobs:
            job.curves.resume()
        for step in self.steps(start):
            self.take(step)
            if step.step % lead.per_epoch == 0:
                self.evaluate(step.step)
            self.pack.settle(step.step)
            for job in self.jobs:
                job.curves.resume()
            if not self.pack.running:
                return

    def steps(self, start: int) -> Iterator[StepRecord]:
        """Perform the steps of the stack."""
        lead, schedules = self.jobs[0], [job.schedule() for job in self.jobs]
        rates = [schedule for schedule in schedules if schedule is not None]
        return train_steps(
            self.stack,
            self.optimizer,
            lead.batches(start),
            lambda stack, batch: (stack(*batch, in_dims=None, randomness="same"), None),
            schedule=(lambda done: [rate(done) for rate in rates]) if rates else None,
            total_steps=lead.total,
            start_step=start,
        )

    def evaluate(self, step: int) -> None:
        """Evaluate every member, each with the batches and random numbers that it has alone."""
        where = Position(self.jobs[0].problem)
        device = self.jobs[0].device
        passes, rng = where.state_dict()["passes"], capture_rng(device)

        def act(r: int, run: Recorder) -> None:
            self.jobs[r].problem.data.load_state_dict(passes)
            restore_rng(rng, device)
            self.jobs[r].curves.evaluate(run, step)

        self._each(act)

    def take(self, step: StepRecord) -> None:
        """Give every member its part of a step of the stack."""

        def act(r: int, run: Recorder) -> None:
            self.jobs[r].curves.take(run, StepRecord(step.step, step.loss[r], None, None))

        self._each(act)

    def _each(self, act: Callable[[int, Recorder], None]) -> None:
        """Call ``act(place, record)`` for those at work; those that diverge end."""
        for k, run in list(self.pack.running.items()):
            place = self.places[k]
            try:
                act(place, run)
            except DivergedError as error:
                self.jobs[place].end(run, error)
                self.optimizer.freeze([place])
                del self.pack.running[k]


class _StackedObjective(nn.Module):
    """A problem's objective as a module: of the parameters that ``functional_call`` puts in."""

    def __init__(self, problem: TestProblem) -> None:
        super().__init__()
        self.net, self._problem = problem.net, [problem]  # no submodule

    def forward(self, *batch: Tensor) -> Tensor:
        """Return the mean loss of a batch with the L2 term."""
        (problem,) = self._problem
        loss = problem.forward_losses(batch, accuracy=False)[0].mean()
        kernels = problem.regularized_parameters()
        if problem.l2_in_loss and problem.weight_decay and kernels:
            squares = torch.stack([kernel.square().sum() for kernel in kernels])
            loss = loss + 0.5 * problem.weight_decay * squares.sum()
        return loss


def stack_of(jobs: Sequence[Job]) -> Stack:
    """Return the members' objectives as a stack whose loss is that of the first alone.

    Raises:
        ValueError: the problem cannot be stacked.
    """
    problem, name = jobs[0].problem, jobs[0].settings.testproblem
    batch: Batch = next(problem.data.test.batches(0))
    rng = capture_rng(jobs[0].device)
    problem.begin("test", None)  # averages of batch normalisation stay
    try:
        stack = Stack([_StackedObjective(job.problem) for job in jobs])
        with torch.no_grad():
            ours = float(stack(*batch, in_dims=None, randomness="same")[0])
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{name}: runs of this problem cannot be packed ({reason}); run them one by one"
        ) from None
    finally:
        restore_rng(rng, jobs[0].device)
    with torch.no_grad():
        theirs = float(problem.objective(batch))
    restore_rng(rng, jobs[0].device)
    problem.begin("train", None)
    if not abs(ours - theirs) <= TOLERANCE * max(abs(theirs), 1.0):
        raise ValueError(
            f"{name}: its loss is {theirs:g} alone and {ours:g} in a pack; run it without packing"
        )
    return stack
