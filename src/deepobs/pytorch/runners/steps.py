"""The optimizer steps of an epoch, also of optimizers that evaluate the loss themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from deepobs.pytorch.datasets.loaders import Batch
from deepobs.pytorch.testproblems import TestProblem
from trainrig.loop import StepRecord, train_steps


def epoch_steps(
    problem: TestProblem,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    schedule: Callable[[int], float] | None,
    *,
    first: int,
    last: int,
) -> Iterator[StepRecord]:
    """Perform steps ``first + 1 .. last``, one per batch, yielding after each.

    Args:
        problem: its objective is minimised.
        optimizer: of the problem's parameters.
        batches: those of the steps.
        schedule: steps completed → learning rate; None leaves it to the optimizer.
        first: steps completed before.
        last: the last step's number.
    """
    return train_steps(
        problem.net,
        optimizer,
        batches,
        _Objective(problem),
        schedule=schedule,
        total_steps=last,
        start_step=first,
    )


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
