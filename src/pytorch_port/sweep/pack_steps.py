"""The optimizer steps of a pack: the losses of many ICL runs, on the batches of each.

Legend: R runs of the pack, B batch, L items, T tokens, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from pytorch_port.config.schema import IclConfig
from pytorch_port.data.batch import SequenceBatch
from pytorch_port.data.inputs import IclInputs
from pytorch_port.train.losses import icl_loss
from trainrig.device import autocast
from trainrig.loop import StepRecord, train_steps
from trainrig.optim.schedules import warmup_rsqrt
from trainrig.vectorized import Stack, StackedOptimizer, stacked_l2_penalty


def pack_steps(
    configs: Sequence[IclConfig],
    inputs: Sequence[IclInputs],
    stack: Stack,
    optimizer: StackedOptimizer,
    *,
    start_step: int = 0,
    num_workers: int = 0,
) -> Iterator[StepRecord]:
    """Perform steps ``start_step + 1 .. training_steps`` of all runs, yielding after each.

    A record holds the losses (R,), the learning rates, and as ``output`` the logits (R, B, T, K)
    before the update with the labels (R, B, L), or (B, L) where all runs share them.

    Args:
        configs: of the runs, alike as ``pack_plan.pack_key`` says.
        inputs: of the runs.
        stack: of their models, padded if their class counts differ.
        optimizer: of the stack.
        start_step: steps completed before.
        num_workers: processes that draw sequences with the exact sampler.
    """
    accumulate = configs[0].training.accumulate
    schedules = [warmup_rsqrt(c.optimizer.max_lr, c.optimizer.warmup_steps) for c in configs]
    shared = len({_sequences_of(config) for config in configs}) == 1
    return train_steps(
        stack,
        optimizer,
        _batches(inputs, start_step * accumulate, num_workers),
        make_pack_loss(configs, inputs[0].device, shared=shared),
        schedule=lambda completed: [schedule(completed) for schedule in schedules],
        total_steps=configs[0].training_steps,
        start_step=start_step,
        accumulate=accumulate,
    )


def _sequences_of(config: IclConfig) -> Any:
    """Return what decides which sequences a run is trained on."""
    return config.data, config.preproc, config.seed, config.training.batch_size


def _batches(inputs: Sequence[IclInputs], start: int, num_workers: int) -> Iterator[SequenceBatch]:
    """Yield batches with a leading R, or without it where all runs are trained on the same."""
    keys = [_sequences_of(own.config) for own in inputs]
    streams = {
        key: own.training_batches(start, num_workers=num_workers)
        for key, own in dict(zip(keys, inputs, strict=True)).items()
    }
    while True:
        drawn = {key: next(stream) for key, stream in streams.items()}
        if len(drawn) == 1:
            yield drawn[keys[0]]
        else:
            columns = ("examples", "labels", "is_rare")
            yield SequenceBatch(
                *(torch.stack([getattr(drawn[key], column) for key in keys]) for column in columns)
            )


def make_pack_loss(
    configs: Sequence[IclConfig], device: torch.device, *, shared: bool
) -> Callable[[Stack, SequenceBatch], tuple[Tensor, Any]]:
    """Return ``(stack, batch) -> (losses (R,), (logits, labels))``, penalties included.

    Logits (R, B, T, K) of classes that a run does not have are -inf.

    Args:
        configs: of the runs.
        device: of the stack.
        shared: batches have no leading R: all runs are trained on the same sequences.
    """
    training = configs[0].training
    w, dims = training.w_interim_predictions, None if shared else 0
    query_only = training.query_only_head and w == 0
    concatenated = configs[0].embedding.concatenate_labels
    counts = torch.tensor([config.num_classes for config in configs])
    beyond = torch.arange(int(counts.max())) >= counts[:, None]  # (R, K)
    absent = beyond[:, None, None].to(device) if beyond.any() else None
    squares, norms = (_penalties(configs, mode, device) for mode in ("sum_squares", "sum_norms"))
    penalized = bool(squares.any() or norms.any())
    losses_of = vmap(
        partial(icl_loss, w_interim=w, concatenate_labels=concatenated), in_dims=(0, dims)
    )

    def loss_fn(stack: Stack, batch: SequenceBatch) -> tuple[Tensor, Any]:
        with autocast(device, training.precision):
            logits = stack(batch.examples, batch.labels, in_dims=dims, query_only=query_only)
        if absent is not None:
            logits = logits.masked_fill(absent, float("-inf"))
        losses = losses_of(logits, batch.labels)  # (R,)
        if penalized:
            losses = losses + stacked_l2_penalty(stack, squares, norms)
        return losses, (logits.detach(), batch.labels)

    return loss_fn


def _penalties(configs: Sequence[IclConfig], mode: str, device: torch.device) -> Tensor:
    """Return λ of the runs with this ``l2_mode``, 0 for the others (R,)."""
    chosen = [config.optimizer for config in configs]
    return torch.tensor(
        [o.weight_decay if o.l2_mode == mode else 0.0 for o in chosen], device=device
    )
