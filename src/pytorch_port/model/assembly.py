"""From configuration to objects: the model, its optimizer, and weights from a checkpoint."""

from __future__ import annotations

import dataclasses
import inspect

import torch
from torch import nn

from pytorch_port.config.schema import IclConfig
from pytorch_port.model.sequence_models import SEQ_MODELS, build_model
from trainrig.optim import accepts, make_optimizer
from trainrig.optim.resume import prepare_optimizer


def build_icl_model(config: IclConfig, example_shape: tuple[int, int, int] | None) -> nn.Module:
    """Build the configured model, initialised from torch's global generator.

    Args:
        config: the run's configuration.
        example_shape: (C, H, W) of image examples, None for symbols.

    Raises:
        KeyError: an unknown ``seq_model``.
        ValueError: settings that do not fit together.
    """
    parameters = inspect.signature(SEQ_MODELS[config.seq_model]).parameters
    part = config.transformer if "num_heads" in parameters else config.rnn
    return build_model(
        config.seq_model,
        embedding=dataclasses.asdict(config.embedding),
        model={**dataclasses.asdict(part), "num_classes": config.num_classes},
        example_shape=example_shape,
    )


def make_icl_optimizer(config: IclConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the configured optimizer; its decay reaches every parameter, as in the reference.

    A coupled penalty is part of the loss, so the optimizer's own decay is 0 then. The learning
    rate comes from the schedule. An optimizer that has no decay or no rate is given none.

    Raises:
        ValueError: a decay for an optimizer without one, or an optimizer that cannot be stepped.
    """
    chosen = config.optimizer
    options = dict(chosen.kwargs)
    if accepts(chosen.name, "lr"):
        options["lr"] = chosen.max_lr
    decay = chosen.weight_decay if chosen.l2_mode == "decoupled" else 0.0
    if chosen.name != "adam":
        if accepts(chosen.name, "weight_decay"):
            options["weight_decay"] = decay
        elif decay:
            raise ValueError(
                f"optimizer.weight_decay is {decay}, but {chosen.name} takes no weight decay; use "
                "0, or l2_mode sum_squares or sum_norms"
            )
    optimizer = make_optimizer(chosen.name, model.parameters(), **options)
    prepare_optimizer(optimizer)
    return optimizer
