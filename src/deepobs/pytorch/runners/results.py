"""The result file: keys of the 1.1 and of the 1.2 schema in one strict JSON object.

Results that are there already are found by what was run, not by the name of a folder.
"""

from __future__ import annotations

import math
import os
import platform
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepobs.identity import age_of, seed_of, setting_of
from deepobs.pytorch.runners.settings import RunSettings
from trainrig.files import read_json, write_json
from trainrig.runs import git_revision

#: What a repetition may want otherwise although it trains the same numbers.
LOGGED = ("train_log_interval",)
#: Beside the results of an optimizer while a search is being repeated.
REPETITION = ".again.json"


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
        **({} if settings.branch is None else {"branch": settings.branch}),
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


# --- results that are there already ---


def find_result(settings: RunSettings, output_dir: Path | str, since_ns: int = 0) -> Path | None:
    """Return the newest result of the same problem, optimizer, setting and seed below a root.

    It may lie in a folder of another name: an argument left out equals its default given. A result
    that logged its minibatch losses at other steps, or that diverged under another
    ``on_divergence``, is none; nor is a file that was written before ``since_ns``.
    """
    problem = Path(output_dir) / settings.testproblem
    wanted = strict(describe_settings(settings) | {"environment": {"dtype": settings.dtype}})
    key = setting_of(wanted, settings.optimizer_name)
    name = settings.optimizer_name.casefold()
    folders = [f for f in problem.glob("*") if f.name.casefold() == name and f.is_dir()]
    files = [
        path
        for folder in folders
        for path in folder.glob(f"*/random_seed__{settings.random_seed}__*.json")
    ]
    for path in sorted(files, key=age_of, reverse=True):
        written_ns = path.stat().st_mtime_ns
        facts = None if written_ns < since_ns else _facts(path, written_ns)
        if facts is None or (facts["setting"], facts["seed"]) != (key, settings.random_seed):
            continue
        same = (*LOGGED, "on_divergence") if facts["status"] == "diverged" else LOGGED
        if all(facts[name] in (None, wanted[name]) for name in same):
            return path
    return None


def begin_repetition(folder: Path) -> int:
    """Return when the repetition of a search began, in ns: of one that was interrupted, or now.

    So the same command, given again after an interruption, repeats no point twice.
    """
    marker = folder / REPETITION
    if not marker.exists():
        write_json(marker, {"since_ns": time.time_ns()})
    return int(read_json(marker)["since_ns"])


def end_repetition(folder: Path) -> None:
    """Note that nothing of a repetition is left to do."""
    (folder / REPETITION).unlink(missing_ok=True)


@lru_cache(maxsize=4096)
def _facts(path: Path, modified_ns: int) -> dict[str, Any] | None:
    """Return what identifies a result file, read once; None for a file that is no result."""
    del modified_ns  # a part of the key
    try:
        content = read_json(path)
        optimizer = str(content.get("optimizer") or content.get("optimizer_name"))
        found = {"setting": setting_of(content, optimizer), "seed": seed_of(content, path)}
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return None
    names = ("status", *LOGGED, "on_divergence")
    return found | {name: content.get(name) for name in names}
