"""The specification's four thin wrappers over the core."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optimizer_quality.config import OptimizerConfig
from trainrig import seeding
from trainrig.files import write_atomically
from trainrig.optim import make_optimizer
from trainrig.optim.resume import prepare_optimizer


def set_seed(seed: int) -> None:
    """Seed every generator and choose deterministic kernels, without cuDNN's autotuning."""
    seeding.make_deterministic()
    seeding.set_seed(seed)


def get_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the configured optimizer over the model's parameters.

    Raises:
        ValueError: a value that the optimizer's constructor refuses, or a step that fails.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(config.type, parameters, **config.keywords())
    prepare_optimizer(optimizer)
    return optimizer


def setup_logging(path: Path) -> logging.Logger:
    """Return a logger that appends to ``path``, one per path; repeated calls add no handler."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger(f"optimizer_quality.{path.resolve()}")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def save_final_model(model: nn.Module, filepath: Path, metrics: Mapping[str, Any]) -> None:
    """Write weights and final metrics to one file that loads in torch's safe mode."""
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"model": weights, "metrics": dict(metrics)}, buffer)
    write_atomically(filepath, buffer.getvalue())
