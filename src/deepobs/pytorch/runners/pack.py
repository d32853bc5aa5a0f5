"""Many settings of one problem side by side in one program, each with its ordinary result.

All members have one seed, so that they see the same batches; hyperparameters differ. They advance
epoch by epoch; a member that diverges is frozen and the others continue. A member's result equals
that of the separate run within rounding. After a crash the same call continues from the last
checkpoints, which were written between epochs; one that is asked to stop saves after its step.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepobs.pytorch import config
from deepobs.pytorch.datasets import DataSet
from deepobs.pytorch.runners.dense import DenseChain, SharedBatch
from deepobs.pytorch.runners.earlier import find_result
from deepobs.pytorch.runners.run_folder import OpenSession, make_output, open_session
from deepobs.pytorch.runners.runner import PTRunner
from deepobs.pytorch.runners.session import SaveClock, Session
from deepobs.pytorch.runners.settings import RunSettings
from deepobs.pytorch.runners.sinks import Sinks
from trainrig.device import reuse_memory
from trainrig.files import read_json
from trainrig.optim.needs import needs_of
from trainrig.stopping import StopRequest

#: Optimizers whose update torch can do in one pass over the memory.
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)


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
    **arguments: Any,
) -> list[dict[str, Any]]:
    """Run one optimizer on one problem with several settings at once.

    Args:
        runner: as for single runs.
        testproblem: a dense network without L2 term.
        hyperparams: one setting per member.
        random_seed: of every member.
        output_dir: root of the result files.
        data_dir: replaces ``config.get_data_dir()``.
        no_logs: write nothing.
        skip_if_exists: leave members out that have a result of this setting and seed.
        checkpoint_interval_s: least seconds between two checkpoints.
        since_ns: results that were written before this time do not count as there.
        arguments: further ones of ``PTRunner.run`` that decide the result.

    Returns:
        Each member's result, in order, of this call or an earlier one.

    Raises:
        ValueError, KeyError, FileNotFoundError: bad arguments or data, or a problem or optimizer
            that cannot be packed.
    """
    if data_dir is not None:
        config.set_data_dir(data_dir)
    every = [
        runner.make_settings(testproblem, given, random_seed=random_seed, **arguments)
        for given in hyperparams
    ]
    folders = [runner.run_folder(settings, output_dir) for settings in every]
    reuse = skip_if_exists and not no_logs
    found = [find_result(settings, output_dir, since_ns) if reuse else None for settings in every]
    outputs: dict[int, dict[str, Any]] = {
        i: read_json(file) for i, file in enumerate(found) if file is not None
    }
    chosen = [i for i in range(len(every)) if i not in outputs]
    with contextlib.ExitStack() as stack:
        members: list[OpenSession] = []
        reuse_memory()
        for i in chosen:
            data = members[0].session.problem.data if members else None
            members.append(stack.enter_context(_open(runner, every[i], folders[i], data, no_logs)))
        if members:
            pack = Pack([member.session for member in members])
            save = None if no_logs else partial(_save_all, members)
            pack.run(SaveClock(save, checkpoint_interval_s))
        for i, member in zip(chosen, members, strict=True):
            outputs[i] = member.finish()
    return [outputs[i] for i in range(len(every))]


def _save_all(members: Sequence[OpenSession]) -> None:
    for member in members:
        member.save()


def _silent(_: Any) -> None:
    """Swallow a line or row."""


@contextlib.contextmanager
def _open(
    runner: PTRunner, settings: RunSettings, folder: Path, data: DataSet | None, no_logs: bool
) -> Iterator[OpenSession]:
    session = runner.make_session(settings, _silent, Sinks(), data)
    fuse(session.optimizer)
    if not no_logs:
        with open_session(settings, folder, session, _silent, engine="pack") as opened:
            yield opened
        return
    yield OpenSession(session, lambda: None, lambda: make_output(settings, session))


def fuse(optimizer: torch.optim.Optimizer) -> None:
    """Let torch's optimizers update in one pass, and refuse those that evaluate the loss again.

    Raises:
        ValueError: the optimizer needs more than the gradient and ``step()``.
    """
    needs, name = needs_of(optimizer), type(optimizer).__name__
    if needs.closure or needs.hook:
        raise ValueError(f"{name}: its step re-evaluates the loss, so its runs cannot be packed")
    if needs.create_graph or needs.switches:
        does = "differentiates the gradient again" if needs.create_graph else "evaluates an average"
        raise ValueError(f"{name}: it {does}, so its runs cannot be packed")
    if type(optimizer) in FUSED:
        for group in optimizer.param_groups:
            group |= {"fused": True, "foreach": False}


class Pack:
    """Sessions of one problem and one seed in lockstep, on the data set of the first.

    Args:
        sessions: at their start, or where checkpoints left them, between two epochs.

    Raises:
        ValueError: a problem that cannot be packed.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions, self.data = list(sessions), sessions[0].problem.data
        for session in sessions:
            session.pack = len(sessions)
        self.chain = DenseChain(sessions[0].problem)
        self.layers = {id(s): self.chain.adopt(s.problem, s.optimizer) for s in sessions}
        self.chain.verify(sessions[0].problem, next(self.data.test.batches(0)))

    def run(self, clock: SaveClock) -> None:
        """Train all members to their ends.

        Raises:
            Interruption: it was asked for; the checkpoints are written.
        """
        while going := [s for s in self.sessions if s.status == "running"]:
            # After a crash between two members' checkpoints, some are an epoch ahead of others.
            first = min((s.epoch, s.evaluated, s.step) for s in going)
            group = [s for s in going if (s.epoch, s.evaluated, s.step) == first]
            if first[1] < first[0]:
                self.evaluate(group)
            else:
                self.train_epoch(group, clock)
            clock.tick()
            self._stop_if_asked(clock)

    def _asked(self) -> list[StopRequest]:
        """Return the requests to stop; a signal reaches one member's."""
        return [s.stop for s in self.sessions if s.stop is not None and s.stop.due()]

    def _stop_if_asked(self, clock: SaveClock) -> None:
        requests = self._asked()
        running = [s for s in self.sessions if s.status == "running"]
        if requests and running and clock.save is not None:
            clock.save()
            where = f"{running[0].settings.testproblem}: pack, epoch {running[0].epoch}"
            where += f", step {running[0].step}"
            raise requests[0].interruption(where)

    def evaluate(self, group: Sequence[Session]) -> None:
        """Append one value to each curve of each member."""
        measured: dict[int, dict[str, tuple[float, float | None]]] = {id(s): {} for s in group}
        seconds: dict[str, float] = {}
        for phase in group[0].phases:
            start = time.perf_counter()
            for s, value in zip(group, self._measure(group, phase), strict=True):
                measured[id(s)][phase] = value
            seconds[phase] = (time.perf_counter() - start) / len(group)
        for session in group:
            session.evaluate(measured[id(session)].__getitem__)
            for phase, share in seconds.items():
                session.timing[f"{phase}_seconds"][-1] = share
            session.advance()

    def _measure(self, group: Sequence[Session], phase: str) -> list[tuple[float, float | None]]:
        losses: list[list[Tensor]] = [[] for _ in group]
        hits: list[list[Tensor]] = [[] for _ in group]
        loader = self.data.loaders[phase]
        # Every evaluation is one pass, so a member's pass has the number of its evaluation.
        for batch in loader.batches(group[0].epoch):
            shared = SharedBatch.of(batch)
            for i, session in enumerate(group):
                loss, hit = self.chain.loss_and_accuracy(self.layers[id(session)], shared)
                losses[i].append(loss)
                hits[i].append(hit)
        means = [[float(torch.stack(v).double().mean()) for v in both] for both in (losses, hits)]
        return list(zip(*means, strict=True))

    def train_epoch(self, group: Sequence[Session], clock: SaveClock) -> None:
        """Train each member for the rest of an epoch; one that diverges stops at once.

        Raises:
            Interruption: it was asked for; the checkpoints are written.
        """
        start = time.perf_counter()
        for session in group:
            lr = session.learning_rate()
            session.begin_epoch(lr)
            for parameters in session.optimizer.param_groups if lr is not None else ():
                parameters["lr"] = lr
        going = list(group)
        for batch in self.data.train.batches(group[0].epoch, start=group[0].step):
            shared = SharedBatch.of(batch)
            for session in tuple(going):
                layers = self.layers[id(session)]
                loss = self.chain.gradients(layers, shared)
                self.chain.update(layers, session.optimizer)
                if not session.take(loss):
                    going.remove(session)
            if going and going[0].step < len(self.data.train) and self._asked():
                for session in group:
                    session.pause((time.perf_counter() - start) / len(group))
                self._stop_if_asked(clock)
        for session in group:
            session.end_epoch(lambda: (time.perf_counter() - start) / len(group))
