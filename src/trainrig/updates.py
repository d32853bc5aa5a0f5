"""One optimizer step as a function, whatever the optimizer needs.

``train_steps`` draws batches and calls an update; an update computes the gradient and lets the
optimizer step: after the gradient (``eager_update``), or with a closure, with a gradient that can
be differentiated again, with gradients stored row by row (``make_update`` chooses by
``trainrig.optim.needs``), or as a replayed CUDA graph (``trainrig.engine.GraphedUpdate``). A
compiled step is an eager one of a compiled model.

Here too: evaluating and saving the weights of optimizers that train others than they evaluate.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from trainrig.models.batchnorm import DebiasedBatchNorm
from trainrig.optim.needs import Needs, needs_of
from trainrig.optim.replica import make_contiguous
from trainrig.seeding import capture_rng, restore_rng

#: Training batches from which statistics of batch normalisation are estimated for averaged weights,
#: as the authors of schedule-free optimizers advise.
RECALIBRATION_BATCHES = 50


class Updated(NamedTuple):
    """What an update leaves.

    Attributes:
        loss: before the update, a scalar; of a stack the members' (R,).
        output: what else the loss function returned, of the last micro-batch.
        measured: what ``measure`` returned of the gradient, None without one.
    """

    loss: Tensor
    output: Any
    measured: Any = None


class Batches(Protocol):
    """The micro-batches of a step, in order; they may be passed once."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


LossFunction = Callable[[Any, Any], tuple[Tensor, Any]]
#: ``(step, model, optimizer, loss_fn, micro-batches) -> Updated``; performs one optimizer step.
Update = Callable[[int, Any, Any, LossFunction, Batches], Updated]


def make_update(
    optimizer: Any,
    *,
    measure: Callable[[], Any] | None = None,
    finish: Callable[[], None] | None = None,
) -> Update:
    """Return the update that an optimizer needs.

    Args:
        optimizer: asked once what it needs.
        finish: called whenever a gradient is complete, before it is measured or used: clips it.
        measure: called once a step, when the gradient is complete and before it is used: the only
            moment at which its norm can be known of an optimizer that changes or clears it.

    Raises:
        ValueError: a trial of its step fails.
    """
    needs = needs_of(optimizer)
    if needs.closure or needs.create_graph or needs.contiguous or needs.hook:
        return partial(closure_update, needs=needs, measure=measure, finish=finish)
    if measure is None and finish is None:
        return eager_update
    return partial(eager_update, measure=measure, finish=finish)


def eager_update(
    step: int,
    model: nn.Module,
    optimizer: Any,
    loss_fn: LossFunction,
    batches: Batches,
    *,
    measure: Callable[[], Any] | None = None,
    finish: Callable[[], None] | None = None,
) -> Updated:
    """Compute the gradient of the mean loss of the micro-batches, then step."""
    optimizer.zero_grad(set_to_none=True)
    loss, output = backward(model, loss_fn, batches)
    if finish is not None:
        finish()
    measured = None if measure is None else measure()
    optimizer.step()
    return Updated(loss, output, measured)


def backward(
    model: nn.Module, loss_fn: LossFunction, batches: Batches, *, create_graph: bool = False
) -> tuple[Tensor, Any]:
    """Add the gradient of the mean loss of the micro-batches; return the loss and last output."""
    count, output, total = len(batches), None, None
    for batch in batches:
        loss, output = loss_fn(model, batch)
        part = loss / count if count > 1 else loss
        part.sum().backward(create_graph=create_graph)
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None  # there is at least one
    return (total / count if count > 1 else total), output


def closure_update(
    step: int,
    model: nn.Module,
    optimizer: Any,
    loss_fn: LossFunction,
    batches: Batches,
    *,
    needs: Needs,
    measure: Callable[[], Any] | None = None,
    finish: Callable[[], None] | None = None,
) -> Updated:
    """Step an optimizer that is not content with a gradient.

    Loss, output and ``measured`` are those of the first evaluation. Later ones see its random
    numbers and leave the model's buffers (averages of batch normalisation) alone, so that equal
    weights give equal losses.
    """
    batches = list(batches)  # they are passed again
    device = next(model.parameters()).device
    rng = capture_rng(device)
    first: list[Updated] = []

    def evaluate() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
            loss, output = backward(model, loss_fn, batches, create_graph=needs.create_graph)
        if needs.contiguous:
            make_contiguous(list(model.parameters()))
        if finish is not None:
            finish()
        if not first:
            first.append(Updated(loss, output, None if measure is None else measure()))
        return loss

    def again() -> Tensor:
        with repeating(model, rng):
            return evaluate()

    take_step(optimizer, needs, evaluate, again)
    for p in model.parameters():
        if p.grad is not None and p.grad.requires_grad:
            p.grad = p.grad.detach()  # it holds the graph of the whole evaluation
    if needs.hook:
        optimizer.after_step(step, again)
    return first[0]


def take_step(
    optimizer: Any, needs: Needs, evaluate: Callable[[], Any], again: Callable[[], Any]
) -> None:
    """Let an optimizer step once.

    Args:
        optimizer: with what ``needs`` says.
        needs: of the optimizer.
        evaluate: computes loss and gradient for the first time.
        again: computes them at other weights.

    Raises:
        ValueError: the optimizer called its closure in the trial of its step, and not here.
    """
    if not needs.closure:
        evaluate()
        optimizer.step()
        return
    called = needs.gradient_first
    if called:
        evaluate()

    def closure() -> Any:
        nonlocal called
        if called:
            return again()
        called = True
        return evaluate()

    optimizer.step(closure)
    if not called:
        raise ValueError(
            f"optimizer {type(optimizer).__name__}: its step did not call the closure, which it "
            "needs at other steps; such an optimizer cannot be used"
        )


@contextlib.contextmanager
def repeating(model: nn.Module, rng: dict[str, Any]) -> Iterator[None]:
    """Within, random numbers are those that followed ``rng``; buffers end as they began.

    The gradient may be computed afterwards: buffers that the model only reads are not touched.
    """
    device = next(model.parameters()).device
    after = capture_rng(device)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    buffers = [(buffer, buffer.clone(), buffer._version) for buffer in model.buffers()]
    restore_rng(rng, device)
    try:
        for norm in norms:
            norm.momentum = 0.0  # its averages may be part of the graph
        yield
    finally:
        restore_rng(after, device)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        with torch.no_grad():
            for buffer, value, version in buffers:
                if buffer._version != version and not torch.equal(buffer, value):
                    buffer.copy_(value)


# --- optimizers that evaluate other weights than they train ---


@contextlib.contextmanager
def evaluated_weights(
    model: nn.Module, optimizer: Any, forward: Callable[[], Iterable[Any]] | None = None
) -> Iterator[None]:
    """Within, the model has the weights to evaluate and to keep; afterwards exactly those before.

    Only optimizers with ``train()`` and ``eval()`` have two kinds of weights (schedule-free ones:
    the point of the gradient, and the average). For the average the statistics of batch
    normalisation are estimated from training batches.

    Args:
        model: of the optimizer.
        optimizer: of the run; None where there is none any more.
        forward: returns an iterable that passes one training batch through the model at each
            step, without gradient; without it the statistics stay.
    """
    if optimizer is None or not needs_of(optimizer).switches:
        yield
        return
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.eval()
    try:
        if forward is not None:
            estimate_statistics(model, forward)
        yield
    finally:
        optimizer.train()
        load_in_place(model, trained)


def keep_evaluated_weights(
    model: nn.Module, optimizer: Any, forward: Callable[[], Iterable[Any]] | None = None
) -> None:
    """Give the model of a training that is over the weights to evaluate; see ``evaluated_weights``.

    The optimizer can still be stepped: its ``train()`` goes back, to within rounding.
    """
    if needs_of(optimizer).switches:
        optimizer.eval()
        if forward is not None:
            estimate_statistics(model, forward)


def load_in_place(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a state into a model, whose tensors stay the same objects."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(state[name])


def estimate_statistics(model: nn.Module, forward: Callable[[], Iterable[Any]]) -> None:
    """Set the running statistics of batch normalisation to those of training batches.

    The random states and the model's mode end as they began.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    averages = [m for m in model.modules() if isinstance(m, DebiasedBatchNorm)]
    if not norms and not averages:
        return
    device, training = next(model.parameters()).device, model.training
    rng, momenta = capture_rng(device), [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    for average in averages:
        for buffer in average.buffers():
            buffer.zero_()
    try:
        model.train()
        with torch.no_grad():
            for _ in islice(forward(), RECALIBRATION_BATCHES):
                pass
    finally:
        model.train(training)
        restore_rng(rng, device)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def weights_to_save(
    model: nn.Module, optimizer: Any, forward: Callable[[], Iterable[Any]] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a checkpoint holds of a model: ``weights`` to evaluate, and more to resume from.

    Args:
        model: of the run.
        optimizer: of the run.
        forward: as for ``evaluated_weights``.

    Returns:
        The weights, and ``{"training_weights": ...}`` where training continues from others.
    """
    if not needs_of(optimizer).switches:
        return model.state_dict(), {}
    training = {name: value.clone() for name, value in model.state_dict().items()}
    with evaluated_weights(model, optimizer, forward):
        weights = {name: value.clone() for name, value in model.state_dict().items()}
    return weights, {"training_weights": training}


def load_training_weights(model: nn.Module, state: dict[str, Any]) -> None:
    """Go back to the weights that training continues from, after those to evaluate were loaded."""
    if "training_weights" in state:
        load_in_place(model, state["training_weights"])
