"""The result file: keys of the 1.1 and of the 1.2 schema in one strict JSON object."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepobs.pytorch.runners.settings import RunSettings
from trainrig.files import write_json
from trainrig.runs import git_revision


def make_output(
    settings: RunSettings,
    curves: dict[str, list[float]],
    status: str,
    timing: dict[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    """Return the result of a run.

    Everything under ``timing`` depends on the clock or on the machine's memory; all other keys are
    a function of the arguments and the environment stamped in ``environment``.
    """
    return {
        **curves,
        **describe_settings(settings),
        "status": status,
        "environment": describe_machine(device, settings.dtype),
        "timing": timing,
    }


def describe_settings(settings: RunSettings) -> dict[str, Any]:
    """Return the arguments of a run as its result file has them, in both schemas."""
    weight_decay = settings.weight_decay
    training_params = dict(settings.training_params)
    if settings.lr_sched_epochs is not None:
        training_params |= {
            "lr_sched_epochs": settings.lr_sched_epochs,
            "lr_sched_factors": settings.lr_sched_factors,
        }
    return {
        "optimizer": settings.optimizer_name,
        "optimizer_name": settings.optimizer_name,
        "optimizer_class": settings.optimizer_class,
        "testproblem": settings.testproblem,
        "weight_decay": weight_decay,
        "l2_reg": weight_decay,
        "l2": settings.l2,
        "batch_size": settings.batch_size,
        "num_epochs": settings.num_epochs,
        "learning_rate": settings.learning_rate,
        "lr_sched_epochs": settings.lr_sched_epochs,
        "lr_sched_factors": settings.lr_sched_factors,
        "random_seed": settings.random_seed,
        "train_log_interval": settings.train_log_interval,
        "hyperparams": settings.other_hyperparams,
        "optimizer_hyperparams": settings.hyperparams,
        "training_params": training_params,
        "compat": settings.compat,
        "on_divergence": settings.on_divergence,
    }


def describe_machine(device: torch.device, dtype: str) -> dict[str, Any]:
    """Return versions, device and threads."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "git_revision": git_revision(),
    }


def strict(value: Any) -> Any:
    """Return a copy in which non-finite numbers are None and everything is JSON."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def write_output(path: Path, output: dict[str, Any]) -> None:
    """Write the result atomically; curves first, as in the published files."""
    write_json(path, strict(output))
