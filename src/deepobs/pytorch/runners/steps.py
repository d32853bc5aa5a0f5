"""The optimizer steps of an epoch, also of optimizers that evaluate the loss themselves."""

from __future__ import annotations

import inspect
import math
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
    lr: float | None,
    *,
    first: int,
    last: int,
) -> Iterator[StepRecord]:
    """Perform steps ``first + 1 .. last``, one per batch, yielding after each.

    Args:
        problem: its objective is minimised.
        optimizer: of the problem's parameters.
        batches: those of the steps.
        lr: the learning rate of all of them; None keeps the optimizer's own.
        first: steps completed before.
        last: the last step's number.
    """
    has_lr = all("lr" in group for group in optimizer.param_groups)
    if needs_closure(optimizer) or not has_lr or lr is None:
        return _closure_steps(problem, optimizer, batches, first, lr if has_lr else None)
    return train_steps(
        problem.net,
        optimizer,
        batches,
        lambda _, batch: (problem.objective(batch), None),
        schedule=lambda _: lr,
        total_steps=last,
        start_step=first,
    )


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Say whether an optimizer's step evaluates the loss itself."""
    parameter = inspect.signature(optimizer.step).parameters.get("closure")
    return parameter is not None and parameter.default is parameter.empty


def _closure_steps(
    problem: TestProblem,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    first: int,
    lr: float | None,
) -> Iterator[StepRecord]:
    """Steps of optimizers that re-evaluate the batch, or that have no learning rate."""
    evaluates = needs_closure(optimizer)
    for step, batch in enumerate(batches, start=first + 1):
        if lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = lr
        evaluate_batch = problem.get_batch_loss_and_accuracy_func(batch, "mean")
        losses: list[Tensor] = []

        def closure(
            evaluate_batch: Callable[..., Any] = evaluate_batch, losses: list[Tensor] = losses
        ) -> Any:  # a Tensor; torch declares a float
            with torch.enable_grad():
                optimizer.zero_grad(set_to_none=True)
                loss = evaluate_batch()[0]
                loss.backward()
            losses.append(loss.detach())
            return loss

        if evaluates:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        yield StepRecord(step, losses[0], math.nan if lr is None else lr, None)
