"""Train one network with one optimizer: ``run(config, ...)``, and the functions it is made of.

An epoch is the unit: its order, crops and flips follow from (seed, epoch), its rows are logged,
then a checkpoint is written. A killed run continues from its last whole epoch and ends
bit-identical to an uninterrupted one. The test set is evaluated once, after the last epoch.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optimizer_quality.config import CifarConfig
from optimizer_quality.norms import GradientNorms, weight_norms
from trainrig.engine import check_compilable
from trainrig.errors import DivergedError
from trainrig.loop import train_steps
from trainrig.updates import evaluated_weights, keep_evaluated_weights, make_update

Metrics = dict[str, Any]


class NullTracker:
    """Where rows go when nobody asked for them; also the interface of ``RunTracker``."""

    start_epoch = 0
    partial: Mapping[str, Any] | None = None
    #: Passes training batches through the model, for the batch statistics of averaged weights.
    passing: Callable[[], Iterable[Any]] | None = None

    def end_step(self, current: EpochPass) -> None:
        """Save and stop here, if asked to."""

    def log(self, row: Metrics) -> None:
        """Take one row of one epoch and split."""

    def end_epoch(self, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Make everything up to ``epoch`` durable."""

    def last_results(self) -> dict[str, Metrics]:
        """Return the training and validation metrics of the last logged epoch, by split."""
        return {}


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
    current = EpochPass(model, optimizer, criterion, epoch, forward)
    for _ in current.steps(train_loader, device):
        pass
    return current.result()


class EpochPass:
    """One pass of optimizer steps, which may stop between two steps and go on in another process.

    Args: as ``train_one_epoch``.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Callable[[Tensor, Tensor], Tensor],
        epoch: int,
        forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.optimizer, self.criterion = model, optimizer, criterion
        self.epoch, self.forward = epoch, forward or model
        self.totals = _Totals(next(model.parameters()).device)
        self.norms = GradientNorms(model)

    @property
    def step(self) -> int:
        """Steps of this epoch done."""
        return self.totals.steps

    def steps(self, train_loader: Any, device: torch.device | str) -> Iterator[int]:
        """Perform the remaining steps, yielding ``step`` after each."""
        if hasattr(train_loader, "set_epoch"):
            train_loader.set_epoch(self.epoch)
        loader = train_loader if hasattr(train_loader, "__len__") else list(train_loader)

        def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
            images, labels = batch[0].to(device), batch[1].to(device)
            logits = self.forward(images)
            return self.criterion(logits, labels), (logits.detach(), labels)

        before = (self.epoch - 1) * len(loader)
        for record in train_steps(
            self.model,
            self.optimizer,
            itertools.islice(loader, self.step, None),
            loss_fn,
            schedule=None,  # the rate is the optimizer's
            total_steps=before + len(loader),
            start_step=before + self.step,
            update=make_update(self.optimizer, measure=self.norms.add),
        ):
            self.totals.add(record.loss, *record.output)
            yield self.step

    def result(self) -> Metrics:
        """Return what ``train_one_epoch`` returns, of the steps done."""
        result = self.totals.result()
        check_finite(result["loss"], self.epoch, "training")
        return {**result, "steps": self.step, **self.norms.result()}

    def state(self) -> dict[str, Any]:
        """Return the sums so far, for a checkpoint within the epoch."""
        return {"steps": self.step, "sums": self.totals.sums, "norms": self.norms.sum}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        self.totals.steps, self.totals.sums = int(state["steps"]), state["sums"]
        self.norms.steps, self.norms.sum = self.totals.steps, state["norms"]


@torch.no_grad()
def validate(
    model: nn.Module,
    val_loader: Iterable[tuple[Tensor, Tensor]],
    criterion: Callable[[Tensor, Tensor], Tensor],
    device: torch.device | str,
) -> Metrics:
    """Return mean ``loss`` and ``accuracy`` over a loader, in evaluation mode."""
    model.eval()
    totals = _Totals(device)
    for images, labels in val_loader:
        logits, labels = model(images.to(device)), labels.to(device)
        totals.add(criterion(logits, labels), logits, labels)
    return totals.result()


def train(
    model: nn.Module,
    train_loader: Any,
    val_loader: Any,
    test_loader: Any,
    optimizer: torch.optim.Optimizer,
    config: CifarConfig,
    tracker: Any = None,
) -> Metrics:
    """Train for ``config.num_epochs`` epochs and evaluate the test set once, at the end.

    Args:
        model: on its device already.
        train_loader: see ``train_one_epoch``.
        val_loader: evaluated after every epoch.
        test_loader: touched once.
        optimizer: over the model's parameters.
        config: ``num_epochs``, ``eval_every``, ``engine`` and ``batch_size`` are used.
        tracker: a ``RunTracker`` (rows, checkpoints, resume), or None.

    Returns:
        The last epoch's train and validation metrics and the test metrics, by split.

    Raises:
        DivergedError: a loss is not finite.
    """
    tracker = NullTracker() if tracker is None else tracker
    device = next(model.parameters()).device
    criterion = nn.CrossEntropyLoss()
    forward = training_forward(model, optimizer, config)
    results: Metrics = {"train": {}, "val": {}, **tracker.last_results()}

    def passing() -> Iterator[None]:
        for images, _ in train_loader:
            model(images.to(device))
            yield

    tracker.passing = passing
    for epoch in range(tracker.start_epoch + 1, config.num_epochs + 1):
        started = time.perf_counter()
        current = EpochPass(model, optimizer, criterion, epoch, forward)
        if tracker.partial is not None:
            current.restore(tracker.partial)
            tracker.partial = None
        for _ in current.steps(train_loader, device):
            tracker.end_step(current)
        parts = (epoch, model, val_loader, optimizer, config, tracker)
        results = close_epoch(current.result(), started, *parts)
    keep_evaluated_weights(model, optimizer, passing)
    return {**results, "test": validate(model, test_loader, criterion, device)}


def close_epoch(
    trained: Metrics,
    started: float,
    epoch: int,
    model: nn.Module,
    val_loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    config: CifarConfig,
    tracker: Any,
) -> Metrics:
    """Log what ``train_one_epoch`` returned, validate, and let the tracker save.

    Args:
        trained: of ``train_one_epoch``.
        started: ``time.perf_counter()`` at the epoch's begin.
        epoch: from 1.
        model: trained.
        val_loader: evaluated.
        optimizer: says which weights are validated.
        config: ``num_epochs`` and ``eval_every`` are used.
        tracker: takes the rows.

    Returns:
        Metrics of this epoch by split, ``train`` and ``val``.

    Raises:
        DivergedError: the validation loss is not finite.
    """
    device = next(model.parameters()).device
    shown = {key: trained[key] for key in ("loss", "accuracy", "grad_norm")}
    step = epoch * trained["steps"]
    row = {"step": step, "epoch": epoch, "split": "train", **shown}
    row |= {f"grad_norm/{name}": value for name, value in trained["grad_norm_by_layer"].items()}
    if config.eval_every and (epoch % config.eval_every == 0 or epoch == config.num_epochs):
        row |= weight_norms(model)
    tracker.log({**row, "elapsed": time.perf_counter() - started})
    with evaluated_weights(model, optimizer, tracker.passing):
        measured = validate(model, val_loader, nn.CrossEntropyLoss(), device)
    elapsed = time.perf_counter() - started
    tracker.log({"step": step, "epoch": epoch, "split": "val", **measured, "elapsed": elapsed})
    check_finite(measured["loss"], epoch, "validation")
    tracker.end_epoch(epoch, model, optimizer)
    return {"train": shown, "val": measured}


def check_finite(loss: float, epoch: int, kind: str) -> None:
    """Raise ``DivergedError`` where a mean loss is not finite."""
    if not math.isfinite(loss):
        raise DivergedError(f"epoch {epoch}: the {kind} loss is {loss}")


class _Totals:
    """Sums over an epoch, kept on the device: no wait for it inside the loop."""

    def __init__(self, device: torch.device | str) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, images
        self.steps = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        correct = (logits.argmax(dim=1) == labels).sum()
        count = torch.full_like(correct, len(labels))
        self.sums += torch.stack([loss.double() * len(labels), correct.double(), count.double()])
        self.steps += 1

    def result(self) -> dict[str, float]:
        loss, correct, count = self.sums.tolist()
        return {"loss": loss / count, "accuracy": correct / count}


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
