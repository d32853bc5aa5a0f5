"""The training loop: a generator that performs optimizer steps; the caller's ``for`` is the hook.

Logging, evaluation and checkpoints belong in the body of that ``for``. Gradients stay in ``.grad``
until the next step begins, so that a caller who wants their norm computes it there, when logging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one optimizer step leaves.

    Attributes:
        step: optimizer steps completed, from 1.
        loss: the loss before the update, a scalar on the device; ``.item()`` only when logging.
            Of a ``trainrig.vectorized.Stack``, the members' losses (R,).
        lr: the learning rate of this update, or those of the optimizer's groups.
        output: whatever else the loss function returned, e.g. logits and batch, for metrics.
    """

    step: int
    loss: Tensor
    lr: float | Sequence[float]
    output: Any


def train_steps(
    model: Model,
    optimizer: Any,
    batches: Iterable[Any],
    loss_fn: Callable[[Model, Any], tuple[Tensor, Any]],
    *,
    schedule: Callable[[int], float | Sequence[float]],
    total_steps: int,
    start_step: int = 0,
    accumulate: int = 1,
) -> Iterator[StepRecord]:
    """Perform steps ``start_step + 1 .. total_steps``, yielding after each.

    Args:
        model: trained in place.
        optimizer: its groups' ``lr`` is set to ``schedule(completed) * group.get("lr_scale", 1)``;
            a ``trainrig.vectorized.StackedOptimizer`` for a stack.
        batches: yields ``accumulate`` micro-batches for each step, starting at the first one of
            step ``start_step + 1``.
        loss_fn: ``(model, batch) -> (loss, anything)``, the loss a scalar or, of a stack, (R,);
            with ``accumulate`` > 1 the step's loss is the mean over its micro-batches and
            ``output`` that of the last one.
        schedule: completed updates → learning rate, or one for each of the optimizer's groups; a
            pure function, so nothing to checkpoint.
        total_steps: the last step's number.
        start_step: steps completed before.
        accumulate: micro-batches per optimizer step.

    Raises:
        ValueError: the batches end before ``total_steps``.
    """
    stream = iter(batches)
    for step in range(start_step + 1, total_steps + 1):
        lr = schedule(step - 1)
        groups = optimizer.param_groups
        rates = lr if isinstance(lr, Sequence) else [lr] * len(groups)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * group.get("lr_scale", 1.0)
        model.train()
        optimizer.zero_grad(set_to_none=True)
        total, output = None, None
        for _ in range(accumulate):
            batch = next(stream, None)
            if batch is None:
                ended = f"data ended after step {step - 1} of {total_steps}"
                raise ValueError(f"{ended}; cycle the loader or lower the number of steps")
            loss, output = loss_fn(model, batch)
            (loss / accumulate if accumulate > 1 else loss).sum().backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None  # accumulate is at least 1
        optimizer.step()
        yield StepRecord(step, total / accumulate if accumulate > 1 else total, lr, output)


def every(interval: int, step: int, total_steps: int | None = None) -> bool:
    """Say whether ``step`` is due: each ``interval`` steps (0 = never), and at the last step.

    >>> [s for s in range(1, 8) if every(3, s, total_steps=7)]
    [3, 6, 7]
    """
    if interval > 0 and step % interval == 0:
        return True
    return total_steps is not None and step == total_steps
