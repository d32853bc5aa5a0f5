"""The DeepOBS cases of ``scripts/benchmark.py``: a learning-rate grid side by side.

The yardstick is an ordinary run, because runs one after the other do not slow each other. Each
timing has the published share of evaluation, two batches for every six of training.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from deepobs.pytorch import config
from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runners.pack import Pack, fuse
from deepobs.pytorch.runners.session import SaveClock, Session
from deepobs.pytorch.runners.sinks import Sinks
from roofline import count_work
from timing import Case, Cases, Loop, Options
from trainrig.optim import preset_arguments, resolve_optimizer

PROBLEM = "mnist_mlp"
OPTIMIZERS = ("SGD", "Momentum", "Adam")
ENDLESS = 2**31 - 1
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

    def make(lr: float, data: Any) -> Session:
        settings = runner.make_settings(PROBLEM, {"lr": lr}, num_epochs=ENDLESS)
        return runner.make_session(settings, _ignore, Sinks(), data)

    alone = make(1e-4, None)
    data = alone.problem.data
    # Small enough for no member to diverge: those that do would make the pack look faster.
    members = [make(1e-4 * 10 ** (-k / count), data) for k in range(count)]
    for member in members:
        fuse(member.optimizer)
    pack = Pack(members)
    batch = next(data.train.batches(0))
    parameters = list(alone.problem.net.parameters())
    state = {"SGD": 0, "Momentum": 1, "Adam": 2}[optimizer]

    def together() -> None:
        pack.evaluate(members)
        pack.train_epoch(members, SaveClock(None, 60.0))

    def single() -> None:
        alone.evaluate()
        alone.train_epoch(SaveClock(None, 60.0))

    return Case(
        loop=_epochs(data, together),
        against={"runs one after the other": _epochs(data, single)},
        steps=12,
        runs=count,
        work=count_work(
            lambda: alone.problem.objective(batch), parameters, state_per_parameter=state
        ),
        note="each timing has one batch of both evaluations for every six steps",
    )


def _epochs(data: Any, epoch: Callable[[], None]) -> Loop:
    """Make epochs as long as asked, with the evaluations in proportion."""

    def loop(steps: int) -> None:
        data.train.n_batches = steps
        data.test.n_batches = data.train_eval.n_batches = max(1, steps // 6)
        epoch()

    return loop


def _ignore(_: Any) -> None:
    """Swallow a console line."""
