"""The training loop: a generator that performs optimizer steps; the caller's ``for`` is the hook.

Logging, evaluation and checkpoints belong in the body of that ``for``. Gradients stay in ``.grad``
until the next step begins, so that a caller who wants their norm computes it there, when logging;
unless the optimizer changes or clears them (``Needs.keeps_gradient``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from trainrig.optim.needs import needs_of
from trainrig.updates import Update, make_update

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one optimizer step leaves.

    Attributes:
        step: optimizer steps completed, from 1.
        loss: the loss before the update, a scalar on the device; ``.item()`` only when logging.
            Of a ``trainrig.vectorized.Stack``, the members' losses (R,).
        lr: the learning rate of this update, or those of the optimizer's groups; None where it has
            none.
        output: whatever else the loss function returned, e.g. logits and batch, for metrics.
        measured: what the update measured of the gradient, see ``trainrig.updates.make_update``.
    """

    step: int
    loss: Tensor
    lr: float | Sequence[float] | None
    output: Any
    measured: Any = None


def train_steps(  # noqa: PLR0913 - what a step depends on
    model: Model,
    optimizer: Any,
    batches: Iterable[Any],
    loss_fn: Callable[[Model, Any], tuple[Tensor, Any]],
    *,
    schedule: Callable[[int], float | Sequence[float]] | None,
    total_steps: int,
    start_step: int = 0,
    accumulate: int = 1,
    update: Update | None = None,
) -> Iterator[StepRecord]:
    """Perform steps ``start_step + 1 .. total_steps``, yielding after each.

    Args:
        model: trained in place.
        optimizer: its groups' ``lr`` is set to ``schedule(completed) * group.get("lr_scale", 1)``
            before the first step and wherever the schedule's value changes; in between the
            optimizer may set its own. A ``trainrig.vectorized.StackedOptimizer`` for a stack.
        batches: yields ``accumulate`` micro-batches for each step, starting at the first one of
            step ``start_step + 1``.
        loss_fn: ``(model, batch) -> (loss, anything)``, the loss a scalar or, of a stack, (R,);
            with ``accumulate`` > 1 the step's loss is the mean over its micro-batches and
            ``output`` that of the last one.
        schedule: completed updates → learning rate, or one for each of the optimizer's groups; a
            pure function, so nothing to checkpoint. None leaves the rate to the optimizer.
        total_steps: the last step's number.
        start_step: steps completed before.
        accumulate: micro-batches per optimizer step.
        update: performs one step, see ``trainrig.updates``; by default what the optimizer needs.

    Raises:
        ValueError: the batches end before ``total_steps``, or the optimizer cannot be stepped.
    """
    update = update or make_update(optimizer)
    switches = needs_of(optimizer).switches
    before = None if schedule is None or start_step == 0 else schedule(start_step - 1)
    stream, modules = iter(batches), list(model.modules())
    for step in range(start_step + 1, total_steps + 1):
        rate = None if schedule is None else schedule(step - 1)
        if rate is not None and rate != before:
            set_rate(optimizer, rate)
        before = rate
        if switches:
            optimizer.train()
        if not all(module.training for module in modules):  # some were evaluated in between
            model.train()
        lr = _rate_in_force(optimizer, rate)
        ended = f"data ended after step {step - 1} of {total_steps}"
        parts = MicroBatches(stream, accumulate, ended)
        loss, output, measured = update(step, model, optimizer, loss_fn, parts)
        yield StepRecord(step, loss, lr, output, measured)


class MicroBatches:
    """The micro-batches of one step, each drawn from the stream when it is wanted; to pass once."""

    def __init__(self, stream: Iterator[Any], count: int, ended: str) -> None:
        self._stream, self._count, self._ended = stream, count, ended

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        """Yield them.

        Raises:
            ValueError: the stream has ended.
        """
        for _ in range(self._count):
            batch = next(self._stream, None)
            if batch is None:
                raise ValueError(f"{self._ended}; cycle the loader or lower the number of steps")
            yield batch


def set_rate(optimizer: Any, rate: float | Sequence[float]) -> None:
    """Set the learning rate of all groups, or of each its own, where they have one."""
    groups = optimizer.param_groups
    rates = rate if isinstance(rate, Sequence) else [rate] * len(groups)
    for group, value in zip(groups, rates, strict=True):
        scaled = value * group.get("lr_scale", 1.0)
        if isinstance(group.get("lr"), Tensor):
            group["lr"].fill_(scaled)  # a captured graph reads this very tensor
        elif "lr" in group:
            group["lr"] = scaled


def _rate_in_force(
    optimizer: Any, rate: float | Sequence[float] | None
) -> float | Sequence[float] | None:
    """Return the learning rate of the next update, also where the optimizer has set its own."""
    group = optimizer.param_groups[0]
    own = group.get("lr")
    if own is None or isinstance(rate, Sequence) or isinstance(own, Tensor):
        return None if own is None else rate
    scale = group.get("lr_scale", 1.0)
    return rate if rate is not None and own == rate * scale else own / (scale or 1.0)


def every(interval: int, step: int, total_steps: int | None = None) -> bool:
    """Say whether ``step`` is due: each ``interval`` steps (0 = never), and at the last step.

    >>> [s for s in range(1, 8) if every(3, s, total_steps=7)]
    [3, 6, 7]
    """
    if interval > 0 and step % interval == 0:
        return True
    return total_steps is not None and step == total_steps
