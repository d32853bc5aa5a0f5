"""The smoke tier: every problem for a few steps on generated data, no downloads.

For each problem: finite losses, a nonzero gradient on every trainable parameter, parameters that
change, and one evaluation. VGG and Inception take one step, each in a process of its own, so that
their memory goes back.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from deepobs.pytorch import config, testproblems
from deepobs.pytorch.datasets.generated import write_generated_data
from deepobs.pytorch.runners.settings import check_testproblem
from deepobs.pytorch.testproblems import TESTPROBLEMS, TestProblem
from trainrig.files import scratch_folder
from trainrig.processes import alone, process_count
from trainrig.seeding import set_seed

BIG = ("vgg", "inception")
#: The largest change that a step makes. Two-dimensional surfaces have gradients of 1e5, networks of
#: about 1, so a fixed learning rate would blow up the ones or leave the others as they were.
LARGEST_CHANGE = 1e-2


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """One problem's outcome; ``problem`` is empty where all is well."""

    name: str
    steps: int
    loss: float
    seconds: float
    problem: str = ""


def is_big(name: str) -> bool:
    """Say whether a problem gets a process of its own."""
    return any(part in name for part in BIG)


def batch_size_of(name: str) -> int:
    """Return 2 for the big networks, 8 for the others."""
    return 2 if is_big(name) else 8


def smoke_all(
    names: Iterable[str] = (), say: Callable[[str], None] = lambda line: None
) -> list[SmokeResult]:
    """Run the smoke tier.

    Args:
        names: problems; all that are registered where empty.
        say: receives one line per problem.

    Raises:
        ValueError: ``torchrun`` started several processes.
    """
    if process_count() > 1:
        raise ValueError(alone("the smoke tier"))
    names = list(names)
    for name in names:
        check_testproblem(name)
    outcomes = []
    with scratch_folder() as folder:
        write_generated_data(folder, examples=32)
        for name in names or TESTPROBLEMS:
            outcome = _in_process_of_its_own(name, folder) if is_big(name) else smoke(name, folder)
            outcomes.append(outcome)
            verdict = outcome.problem or "ok"
            say(f"{name:24} {outcome.steps} steps  loss {outcome.loss:<10.4g} {verdict}")
    return outcomes


def smoke(name: str, data_dir: str | Path) -> SmokeResult:
    """Train one problem for a few steps on the data in ``data_dir``."""
    start, before = time.perf_counter(), config.get_data_dir()
    config.set_data_dir(data_dir)
    try:
        set_seed(0)
        problem: TestProblem = getattr(testproblems, name)(batch_size_of(name))
        problem.set_up()
        steps = 1 if is_big(name) else 3
        loss, message = _train(problem, steps)
        return SmokeResult(name, steps, loss, time.perf_counter() - start, message)
    finally:
        config.set_data_dir(before)


def _train(problem: TestProblem, steps: int) -> tuple[float, str]:
    named = dict(problem.net.named_parameters())
    optimizer = torch.optim.SGD(problem.net.parameters(), lr=LARGEST_CHANGE)
    problem.train_init_op()
    for _ in range(steps):
        optimizer.zero_grad()
        losses, _ = problem.get_batch_loss_and_accuracy(reduction="none")
        if losses.shape != (problem.batch_size,):
            return float("nan"), f"per-example losses have shape {tuple(losses.shape)}"
        loss = losses.mean() + problem.get_regularization_loss()
        loss.backward()
        sizes = {}
        for key, parameter in named.items():
            if parameter.grad is None or not bool(parameter.grad.any()):
                return loss.item(), f"no gradient on {key}"
            sizes[key] = parameter.grad.abs()
        where = {key: size.argmax() for key, size in sizes.items()}
        before = {key: named[key].view(-1)[i].item() for key, i in where.items()}
        largest = max(float(size.max()) for size in sizes.values())
        optimizer.param_groups[0]["lr"] = LARGEST_CHANGE / max(1.0, largest)
        optimizer.step()
    for key, i in where.items():
        if named[key].view(-1)[i].item() == before[key]:
            return loss.item(), f"{key} did not change"
    if not bool(torch.isfinite(loss)):
        return loss.item(), "loss is not finite"
    if not is_big(type(problem).__name__):
        problem.test_init_op()
        loss, _ = problem.get_batch_loss_and_accuracy()
        if not bool(torch.isfinite(loss)):
            return loss.item(), "test loss is not finite"
    return loss.item(), ""


_CHILD = """
import sys
import torch
torch.set_num_threads(int(sys.argv[3]))
from deepobs.pytorch.runners.smoke import smoke
from trainrig.files import scratch_folder
outcome = smoke(sys.argv[1], sys.argv[2])
print(f"{outcome.steps}|{outcome.loss}|{outcome.seconds}|{outcome.problem}")
"""


def _in_process_of_its_own(name: str, data_dir: Path) -> SmokeResult:
    command = [sys.executable, "-c", _CHILD, name, str(data_dir), str(torch.get_num_threads())]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        return SmokeResult(name, 0, float("nan"), 0.0, last)
    steps, loss, seconds, problem = child.stdout.strip().splitlines()[-1].split("|", 3)
    return SmokeResult(name, int(steps), float(loss), float(seconds), problem)
