"""Train one network with one optimizer: ``train``, and the functions it is made of.

An epoch is the unit: its order, crops and flips follow from (seed, epoch), its rows are recorded,
then a checkpoint is written. A killed run continues from its last checkpoint and ends bit-identical
to an uninterrupted one. The test set is evaluated once, after the last epoch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optimizer_quality.config import CifarConfig
from optimizer_quality.epoch import EpochSums, gradient_norms, layers_of, weight_norms
from trainrig.engine import check_compilable
from trainrig.errors import DivergedError
from trainrig.loop import StepRecord, every, train_steps
from trainrig.recorder import Intervals, Recorder, Unrecorded
from trainrig.updates import keep_evaluated_weights, make_update

Metrics = dict[str, Any]
PROGRESS_COLUMNS = ("step", "epoch", "split", "loss", "accuracy", "grad_norm", "elapsed")


def train_one_epoch(
    model: nn.Module,
    train_loader: Any,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[[Tensor, Tensor], Tensor],
    device: torch.device | str,
    epoch: int,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Metrics:
    """Perform one pass of optimizer steps.

    Optimizers that evaluate the loss several times (LBFGS) or at another point (SAM) run as well;
    loss, accuracy and gradients are those of a step's first evaluation.

    Args:
        model: trained in place.
        train_loader: yields (images, labels); its ``set_epoch(epoch)`` is called if it has one.
        optimizer: what it needs is found by ``trainrig.optim.needs``.
        criterion: (logits (B, K), labels (B,)) → mean loss.
        device: where the model is.
        epoch: from 1.
        forward: images → logits of ``model``, see ``training_forward``; default the model.

    Returns:
        ``loss`` and ``accuracy`` (means over images), ``steps``, ``grad_norm`` (mean over steps of
        the global norm) and ``grad_norm_by_layer``.

    Raises:
        DivergedError: the mean loss is not finite.
    """
    loader = train_loader if hasattr(train_loader, "__len__") else list(train_loader)
    sums = EpochSums(model, len(loader))
    steps = training_steps(
        model,
        optimizer,
        batches(loader, (epoch - 1) * len(loader)),
        partial(_loss, criterion=criterion, device=device, forward=forward),
        start=(epoch - 1) * len(loader),
        total=epoch * len(loader),
    )
    for step in steps:
        sums.add(step.loss, step.output, step.measured)
    result = sums.result()
    if not math.isfinite(result["loss"]):
        raise DivergedError(f"epoch {epoch}: the training loss is {result['loss']}")
    return result


def training_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: Iterable[Any],
    loss_fn: Callable[[nn.Module, Any], tuple[Tensor, Any]],
    *,
    start: int,
    total: int,
) -> Iterator[StepRecord]:
    """Perform steps ``start + 1 .. total``; records measure the gradient's norms (L + 1,)."""
    layers = list(layers_of(model).values())
    return train_steps(
        model,
        optimizer,
        stream,
        loss_fn,
        schedule=None,  # the rate is the optimizer's
        total_steps=total,
        start_step=start,
        update=make_update(optimizer, measure=lambda: gradient_norms(layers)),
    )


def batches(loader: Any, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch after another, beginning after ``start`` steps."""
    epoch, skipped = divmod(start, len(loader))
    while True:
        epoch += 1
        set_epoch(loader, epoch)
        yield from itertools.islice(loader, skipped, None)
        skipped = 0


def set_epoch(loader: Any, epoch: int) -> None:
    """Choose a loader's epoch, if it has any."""
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)


def _loss(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    *,
    criterion: Callable[[Tensor, Tensor], Tensor],
    device: torch.device | str,
    forward: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    images, labels = batch[0].to(device), batch[1].to(device)
    logits = (forward or model)(images)
    return criterion(logits, labels), (logits.detach(), labels)


@torch.no_grad()
def validate(
    model: nn.Module,
    val_loader: Iterable[tuple[Tensor, Tensor]],
    criterion: Callable[[Tensor, Tensor], Tensor],
    device: torch.device | str,
) -> Metrics:
    """Return mean ``loss`` and ``accuracy`` over a loader, in evaluation mode."""
    model.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for images, labels in val_loader:
        logits, labels = model(images.to(device)), labels.to(device)
        loss, correct = criterion(logits, labels), (logits.argmax(dim=1) == labels).sum()
        count = torch.full_like(correct, len(labels))
        sums += torch.stack([loss.double() * len(labels), correct.double(), count.double()])
    loss, correct, count = sums.tolist()
    return {"loss": loss / count, "accuracy": correct / count}


def train(
    model: nn.Module,
    train_loader: Any,
    val_loader: Any,
    test_loader: Any,
    optimizer: torch.optim.Optimizer,
    config: CifarConfig,
    tracker: Recorder | None = None,
) -> Mapping[str, Metrics]:
    """Train for ``config.num_epochs`` epochs and evaluate the test set once, at the end.

    Args:
        model: on its device already; ends with the weights to evaluate.
        train_loader: see ``train_one_epoch``.
        val_loader: evaluated after every epoch.
        test_loader: touched once.
        optimizer: over the model's parameters.
        config: ``num_epochs``, ``eval_every``, ``engine`` and ``batch_size`` are used.
        tracker: the run's record, not restored yet; None writes nothing.

    Returns:
        The last epoch's train and validation metrics and the test metrics, by split.

    Raises:
        DivergedError: a loss, a norm or a weight is not finite.
        Interruption: the run was asked to stop, and its state is saved.
    """
    device, per_epoch = next(model.parameters()).device, len(train_loader)
    record = tracker or Unrecorded(**record_options(config, per_epoch))
    forward = training_forward(model, optimizer, config)
    sums, criterion = EpochSums(model, per_epoch), nn.CrossEntropyLoss()

    def passing(step: int) -> Iterator[None]:
        set_epoch(train_loader, -(-step // per_epoch))
        for images, _ in train_loader:
            model(images.to(device))
            yield

    start = record.restore(model, passing=passing, optimizer=optimizer, epoch=sums)
    steps = training_steps(
        model,
        optimizer,
        batches(train_loader, start),
        partial(_loss, criterion=criterion, device=device, forward=forward),
        start=start,
        total=record.total,
    )
    for step in steps:
        sums.add(step.loss, step.output, step.measured)
        if record.logs(step.step):
            write_rows(record, step.step, sums, model, (val_loader, test_loader), config)
        record.settle(step.step)
    keep_evaluated_weights(model, optimizer, partial(passing, record.total))
    return record.latest


def record_options(config: CifarConfig, per_epoch: int) -> dict[str, Any]:
    """Return how long a run is and what it records when, for ``trainrig.recorder.recorded``."""
    return {
        "total": config.num_epochs * per_epoch,
        "per_epoch": per_epoch,
        "columns": PROGRESS_COLUMNS,
        "intervals": Intervals(log=per_epoch, evaluate=per_epoch, save=per_epoch),
    }


def write_rows(
    record: Recorder,
    step: int,
    sums: EpochSums,
    model: nn.Module,
    loaders: tuple[Any, Any],
    config: CifarConfig,
) -> None:
    """Record an epoch that is over: training, validation and, after the last one, the test set.

    Args:
        record: of the run.
        step: the epoch's last one.
        sums: of the epoch; begin the next one.
        model: trained.
        loaders: of validation and test.
        config: ``eval_every`` is used.

    Raises:
        DivergedError: a number is not finite.
    """
    trained = sums.result()
    sums.reset()
    row = {key: trained[key] for key in ("loss", "accuracy", "grad_norm")}
    row |= {f"grad_norm/{name}": value for name, value in trained["grad_norm_by_layer"].items()}
    last = step == record.total
    if every(config.eval_every, step // trained["steps"]):
        record.row("train", step, **row, **weight_norms(model))
    elif last and config.eval_every:
        record.last("train", step, instead=row, **row, **weight_norms(model))
    else:
        record.row("train", step, **row)
    device, criterion = next(model.parameters()).device, nn.CrossEntropyLoss()
    with record.evaluated(step):
        record.evaluation("val", step, **validate(model, loaders[0], criterion, device))
        if last:
            record.last("test", step, **validate(model, loaders[1], criterion, device))


def training_forward(
    model: nn.Module, optimizer: torch.optim.Optimizer, config: CifarConfig
) -> Callable[[Tensor], Tensor]:
    """Return what computes training logits: the model, or its compiled twin for full batches.

    One shape is compiled, that of nearly all steps: an epoch's smaller last batch and evaluation
    stay eager. So a run needs one compilation, and which code sees a batch depends on its size
    alone, not on what the process ran before; a resumed run repeats the same bits.

    Raises:
        ValueError: the optimizer differentiates gradients again, which compiled code cannot.
    """
    if config.engine != "compile":
        return model
    check_compilable(optimizer)
    compiled = torch.compile(model, dynamic=False)
    return lambda images: (compiled if len(images) == config.batch_size else model)(images)
