"""The DeepOBS cases of ``scripts/benchmark.py``: a learning-rate grid side by side.

The yardstick is an ordinary run, because runs one after the other do not slow each other. Each
timing has the published share of evaluation, two batches for every six of training.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from deepobs.pytorch import config
from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runners.job import Job
from deepobs.pytorch.runners.pack import Together, stack_of
from roofline import count_work
from timing import Case, Cases, Loop, Options
from trainrig.optim import preset_arguments, resolve_optimizer
from trainrig.pack_recorder import PackRecorder
from trainrig.recorder import Unrecorded
from trainrig.vectorized import StackedOptimizer

PROBLEM = "mnist_mlp"
OPTIMIZERS = ("SGD", "Momentum", "Adam")
ENDLESS = 10**6
#: Points of the published learning-rate grid.
GRID = 36


def cases(options: Options) -> Cases:
    """Return the cases by name; see ``timing``."""
    builders: dict[str, Callable[[], Case]] = {}
    for optimizer in OPTIMIZERS:
        for count in (4, GRID):
            name = f"{PROBLEM} {optimizer}, pack of {count}"
            builders[name] = partial(_pack, optimizer, count, options)
    return builders


def _pack(optimizer: str, count: int, options: Options) -> Case:
    config.set_data_dir(options.data_dir or os.environ.get("TRAINRIG_DATA_DIR", "data"))
    config.set_default_device(options.device)
    optimizer_class, preset = resolve_optimizer(optimizer), preset_arguments(optimizer)
    names: dict[str, Any] = {name: {"default": value} for name, value in preset.items()}
    runner = StandardRunner(optimizer_class, names | {"lr": {"type": float}}, optimizer)

    def make(lr: float, data: Any, pack: int) -> Job:
        settings = runner.make_settings(PROBLEM, {"lr": lr}, num_epochs=ENDLESS)
        problem, optimizer = runner.build(settings, data)
        names = ["member"] * pack if pack > 1 else []
        return Job(settings=settings, problem=problem, optimizer=optimizer, folder=None, pack=names)

    def record_of(job: Job) -> Unrecorded:
        run = Unrecorded(job.total, per_epoch=job.per_epoch, finite=False)
        run.restore(job.problem.net, **job.parts())
        return run

    alone = make(1e-4, None, 1)
    data, record = alone.problem.data, record_of(alone)
    # Small enough for no member to diverge: those that do would make the pack look faster.
    members = [make(1e-4 * 10 ** (-k / count), data, count) for k in range(count)]
    stack = stack_of(members)
    joint = StackedOptimizer(stack, [member.optimizer for member in members])
    records = PackRecorder([record_of(member) for member in members])
    pack = Together(members, range(count), records, stack, joint)
    together_steps, alone_steps = pack.steps(0), alone.steps(0)
    batch = next(data.train.batches(0))
    parameters = list(alone.problem.net.parameters())
    state = {"SGD": 0, "Momentum": 1, "Adam": 2}[optimizer]

    def together(steps: int) -> None:
        pack.evaluate(0)
        for step in islice(together_steps, steps):
            pack.take(step)

    def single(steps: int) -> None:
        alone.curves.evaluate(record, 0)
        for step in islice(alone_steps, steps):
            alone.curves.take(record, step)

    return Case(
        loop=_with_evaluation(data, together),
        against={"runs one after the other": _with_evaluation(data, single)},
        steps=12,
        runs=count,
        work=count_work(
            lambda: alone.problem.objective(batch), parameters, state_per_parameter=state
        ),
        note="each timing has one batch of both evaluations for every six steps",
    )


def _with_evaluation(data: Any, train: Callable[[int], None]) -> Loop:
    """Train as many steps as asked, with the evaluations in proportion."""

    def loop(steps: int) -> None:
        data.test.n_batches = data.train_eval.n_batches = max(1, steps // 6)
        train(steps)

    return loop
