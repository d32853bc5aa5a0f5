"""One step of a training: optimizer, learning rate, arithmetic, gradient, batches."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ptycho_torch.model import PtychoPINN_Lightning
from trainrig.device import send
from trainrig.distributed import Team, average_gradients, mean
from trainrig.optim import accepts, make_optimizer, preset_arguments, resolve_optimizer
from trainrig.optim.needs import check_shared, needs_of
from trainrig.optim.resume import prepare_optimizer
from trainrig.updates import Update, Updated, make_update

logger = logging.getLogger(__name__)

ADAM_FAMILY = (torch.optim.Adam, torch.optim.AdamW)
EXPONENTIAL_DECAY = 0.95  # per epoch, scheduler "Exponential"

Batch = dict[str, Any]


class OptimizerSettings(Protocol):
    """What both training configurations say of an optimizer."""

    optimizer: str
    weight_decay: float
    momentum: float
    adam_beta1: float
    adam_beta2: float


def build_optimizer(
    t: OptimizerSettings, parameters: list[nn.Parameter], *, lr: float, accum_steps: int
) -> torch.optim.Optimizer:
    """Build the configured optimizer; one that has no rate or decay is given none.

    Args:
        t: a training configuration.
        parameters: trained.
        lr: learning rate.
        accum_steps: batches per step.

    Raises:
        ValueError: unknown, a setting that it cannot apply, or a step that fails.
    """
    name = t.optimizer
    options: dict[str, Any] = {}
    try:
        kind = resolve_optimizer(name)
    except KeyError as error:
        raise ValueError(f"TrainingConfig.optimizer: {error.args[0]}") from None
    if accepts(name, "lr"):
        options["lr"] = lr
    if accepts(name, "weight_decay"):
        options["weight_decay"] = t.weight_decay
    elif t.weight_decay:
        raise ValueError(
            f"TrainingConfig.weight_decay: {t.weight_decay}, but {name} takes no weight decay; "
            "use 0"
        )
    if kind is torch.optim.SGD and not preset_arguments(name):
        options["momentum"] = t.momentum
    if kind in ADAM_FAMILY:
        options["betas"] = (t.adam_beta1, t.adam_beta2)
    optimizer = make_optimizer(name, parameters, fuse=False, **options)
    needs = prepare_optimizer(optimizer)
    if needs.closure and accum_steps > 1:
        raise ValueError(
            f"accum_steps {accum_steps}: {name} evaluates the loss within its step, of one batch "
            "alone; use 1"
        )
    return optimizer


def schedule_of(t: Any, lr: float, per_epoch: int) -> Callable[[int], float] | None:
    """Return completed steps → learning rate; None where the optimizer keeps its own.

    Args:
        t: torch-side training configuration.
        lr: highest rate.
        per_epoch: steps in an epoch, within which the rate does not change.
    """
    if t.scheduler in ("Default", "ReduceLROnPlateau"):
        return None

    def factor(epoch: int) -> float:
        if t.scheduler == "Exponential":
            return EXPONENTIAL_DECAY**epoch
        if epoch < t.warmup_epochs:
            return (epoch + 1) / (t.warmup_epochs + 1)
        done = (epoch - t.warmup_epochs) / max(1, t.epochs - t.warmup_epochs)
        return t.min_lr_ratio + (1 - t.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done))

    return lambda completed: lr * factor(completed // per_epoch)


def plateau_of(
    t: Any, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.ReduceLROnPlateau | None:
    """Return what lowers the rate where the validation loss stays, if that is configured."""
    if t.scheduler != "ReduceLROnPlateau":
        return None
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=t.plateau_factor,
        patience=t.plateau_patience,
        min_lr=t.plateau_min_lr,
        threshold=t.plateau_threshold,
    )


class Arithmetic:
    """In which precision a training computes: context of a forward pass, and scale of the loss.

    Args:
        precision: one of ``execution.PRECISIONS``.
        device: of the model.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        if precision == "16-mixed" and device.type == "cpu":
            logger.warning("--precision 16-mixed: not on a CPU; computing in bf16-mixed")
            precision = "bf16-mixed"
        halves = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
        self.device, self._half = device, halves.get(precision)
        self.double = precision == "64-true"
        #: float16 has so small a range that the loss is scaled up for the gradient.
        self.scaler = torch.amp.GradScaler(device.type) if precision == "16-mixed" else None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute the loss within."""
        if self._half is not None:
            with torch.autocast(self.device.type, dtype=self._half):
                yield
            return
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64 if self.double else before)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    def moved(self, batch: Batch) -> Batch:
        """Return a batch on the device."""
        found = {k: send(v, self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        if self.double:
            found["images"] = found["images"].double()
        return found


def loss_of(
    arithmetic: Arithmetic, seen: Callable[[Tensor, int], None]
) -> Callable[[PtychoPINN_Lightning, Batch], tuple[Tensor, None]]:
    """Return the loss function of a step.

    Args:
        arithmetic: of the training.
        seen: told of each batch, once: its mean loss over all processes, and how many rows it has.
    """

    def loss(model: PtychoPINN_Lightning, batch: Batch) -> tuple[Tensor, None]:
        with arithmetic():
            value = model.loss(batch) * batch["weight"]
        if "seen" not in batch:  # else an optimizer evaluates it again
            batch["seen"] = True
            seen(mean(value.detach()), batch["count"])
        if "share" in batch:
            value = value * batch["share"]
        scaler = arithmetic.scaler
        return (value if scaler is None else scaler.scale(value)), None

    return loss


def update_of(
    model: PtychoPINN_Lightning,
    optimizer: torch.optim.Optimizer,
    arithmetic: Arithmetic,
    team: Team | None,
) -> Update:
    """Return the update of a step, whose one batch is the list of its micro-batches.

    Raises:
        ValueError: several processes, or 16-mixed, and an optimizer that evaluates the loss itself.
    """
    t, scaler = model.training_config, arithmetic.scaler
    needs = needs_of(optimizer)
    if team is not None:
        check_shared(optimizer)
    if scaler is not None and (needs.closure or needs.create_graph or needs.hook):
        raise ValueError(
            f"--precision 16-mixed: not with {t.optimizer}, which evaluates the loss within its "
            "step; use bf16-mixed or 32-true"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def finish() -> None:
        if team is not None:
            average_gradients(optimizer)
        if scaler is not None:
            scaler.unscale_(optimizer)
        if t.gradient_clip_val is not None:
            clip(parameters, t.gradient_clip_val, t.gradient_clip_algorithm)

    inner = make_update(optimizer, finish=finish)

    def update(
        step: int, model: Any, optimizer: Any, loss_fn: Callable[..., Any], batches: Any
    ) -> Updated:
        (parts,) = batches
        stepped = optimizer if scaler is None else _Scaled(optimizer, scaler)
        return inner(step, model, stepped, loss_fn, parts)

    return update


class _Scaled:
    """An optimizer whose step is left out where a gradient has overflowed."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        self.zero_grad, self._optimizer, self._scaler = optimizer.zero_grad, optimizer, scaler

    def step(self) -> None:
        """Step, and adapt the scale."""
        self._scaler.step(self._optimizer)
        self._scaler.update()


def clip(parameters: list[nn.Parameter], limit: float, algorithm: str) -> None:
    """Clip gradients by norm, by value, or each tensor to a share of its weight's norm (agc)."""
    if algorithm == "norm":
        nn.utils.clip_grad_norm_(parameters, limit)
    elif algorithm == "value":
        nn.utils.clip_grad_value_(parameters, limit)
    else:
        for p in parameters:
            if p.grad is not None:
                most = limit * p.detach().norm().clamp_min(1e-3)
                p.grad.mul_((most / p.grad.norm().clamp_min(1e-6)).clamp_max(1.0))


def step_batches(
    loader: Any, arithmetic: Arithmetic, *, accum_steps: int, per_epoch: int, start: int
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of each step after ``start``, epoch after epoch.

    The last step of an epoch has what is left; its micro-batches count as those of any other.
    """
    epoch, done = divmod(start, per_epoch)
    loader.sampler.skip = done * accum_steps * loader.batch_size
    for number in itertools.count(epoch):
        loader.sampler.set_epoch(number)
        stream = map(arithmetic.moved, loader)
        while parts := list(itertools.islice(stream, accum_steps)):
            if len(parts) < accum_steps:
                for part in parts:
                    part["share"] = len(parts) / accum_steps
            yield parts


@torch.no_grad()
def evaluate(
    model: PtychoPINN_Lightning, loader: Any, arithmetic: Arithmetic, *, say_patches: bool = False
) -> float:
    """Return the mean loss of held groups, over all processes.

    Args:
        model: with the weights to evaluate.
        loader: of this process's shares.
        arithmetic: of the training.
        say_patches: log mean and spread of the first patches: a constant network is seen at once.
    """
    model.eval()
    total, items = torch.zeros((), device=arithmetic.device), 0
    for batch in map(arithmetic.moved, loader):
        with arithmetic():
            value = model.loss(batch) * batch["weight"]
        total, items = total + mean(value) * batch["count"], items + batch["count"]
        if say_patches:
            patches = model.net.centres(batch["images"])
            for name, part in (("amplitude", patches.abs()), ("phase", patches.angle())):
                logger.info("held %s: %.3f (std %.3f)", name, part.mean(), part.std())
            say_patches = False
    return float(total / items)
