"""The optimizer steps of a run: what is minimised, on which batches, at which learning rates.

The run (``train.py``) and the measurements (``benchmark.py``) go through the same iterator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pytorch_port.config import IclConfig
from pytorch_port.inputs import IclInputs
from pytorch_port.losses import icl_loss
from trainrig.device import autocast
from trainrig.loop import StepRecord, train_steps
from trainrig.optim.penalties import l2_penalty
from trainrig.optim.schedules import warmup_rsqrt

LossFunction = Callable[[nn.Module, Any], tuple[Tensor, Any]]


def make_loss(config: IclConfig, device: torch.device) -> LossFunction:
    """Return ``(model, batch) -> (loss, (logits, labels))``, the penalty on weights included.

    Without interim predictions only the query's logits are computed (``query_only_head``); the
    loss and all scalars are the same within rounding.
    """
    w = config.training.w_interim_predictions
    query_only = config.training.query_only_head and w == 0
    concatenated = config.embedding.concatenate_labels
    mode, decay = config.optimizer.l2_mode, config.optimizer.weight_decay

    def loss_fn(model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        with autocast(device, config.training.precision):
            logits = model(batch.examples, batch.labels, query_only=query_only)
        loss = icl_loss(logits, batch.labels, w, concatenate_labels=concatenated)
        if mode != "decoupled" and decay > 0:
            loss = loss + l2_penalty(model.parameters(), mode, decay)
        return loss, (logits.detach(), batch.labels)

    return loss_fn


def training_steps(
    config: IclConfig,
    inputs: IclInputs,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    start_step: int = 0,
    num_workers: int = 0,
    batches: Iterable[Any] | None = None,
) -> Iterator[StepRecord]:
    """Perform steps ``start_step + 1 .. training_steps`` of a run, yielding after each.

    ``output`` of a record is (logits before the update, labels) of the step's last batch.

    Args:
        config: the run's configuration.
        inputs: its data.
        model: trained in place.
        optimizer: of the model's parameters.
        start_step: steps completed before.
        num_workers: processes that draw sequences with the exact sampler.
        batches: trained on instead of the run's own, from the first one of the first step.
    """
    training = config.training
    if batches is None:
        first = start_step * training.accumulate
        batches = inputs.training_batches(first, num_workers=num_workers)
    return train_steps(
        model,
        optimizer,
        batches,
        make_loss(config, inputs.device),
        schedule=warmup_rsqrt(config.optimizer.max_lr, config.optimizer.warmup_steps),
        total_steps=config.training_steps,
        start_step=start_step,
        accumulate=training.accumulate,
    )
