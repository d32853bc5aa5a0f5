"""What a result is of: problem, optimizer, setting and seed, whatever its file is called.

The setting is all that decides the numbers: batch size, epochs, L2 term, learning-rate schedule,
hyperparameters, precision, compatibility mode. An argument left out equals its default given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainrig.repeats import canonical

LR_NAMES = ("lr", "learning_rate")
_SEED = re.compile(r"random_seed__(\d+)__")
_TIME = re.compile(r"__(\d{4}(?:-\d{2}){5})\.json$")


def hyperparams_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return all hyperparameters of a result of any schema, the learning rate under ``lr``."""
    found = dict(content.get("optimizer_hyperparams") or content.get("hyperparams") or {})
    for name in LR_NAMES:
        if name in found:
            found["lr"] = found.pop(name)
    if content.get("learning_rate") is not None:
        found.setdefault("lr", content["learning_rate"])
    return found


def setting_of(content: Mapping[str, Any], optimizer: str) -> str:
    """Return a text that is equal for results of one problem, optimizer and setting.

    Args:
        content: of a result file of any schema.
        optimizer: its name; of files that do not say, the folder's.
    """
    problem = str(content["testproblem"])
    decay = content.get("weight_decay", content.get("l2_reg"))
    effective = effective_weight_decay(problem, None if decay is None else float(decay))
    params = dict(content.get("training_params") or {})
    epochs = content.get("lr_sched_epochs") or params.pop("lr_sched_epochs", None) or []
    factors = content.get("lr_sched_factors") or params.pop("lr_sched_factors", None) or []
    for name in ("lr_sched_epochs", "lr_sched_factors"):
        params.pop(name, None)
    environment = content.get("environment")
    known = environment if isinstance(environment, Mapping) else {}
    made = str(content.get("optimizer_class") or "")  # of torch's, the name says enough
    return canonical(
        {
            "testproblem": problem,
            "optimizer": optimizer.casefold(),
            "class": None if made.startswith("torch.optim.") else made or None,
            "hyperparams": completed(optimizer, hyperparams_of(content)),
            "batch_size": content["batch_size"],
            "num_epochs": content["num_epochs"],
            "weight_decay": effective,
            "l2": content.get("l2", "loss") if effective else "loss",
            "schedule": sorted(zip(epochs, factors, strict=False)),
            "training_params": params,
            "compat": content.get("compat", "reference"),
            "dtype": known.get("dtype", "float32"),
            "branch": content.get("branch"),
        }
    )


def seed_of(content: Mapping[str, Any], path: Path) -> int | None:
    """Return a result's seed, from its file's name where the content has none; None if neither."""
    if content.get("random_seed") is not None:
        return int(content["random_seed"])
    match = _SEED.search(path.name)
    return int(match[1]) if match else None


def age_of(path: Path) -> tuple[str, float]:
    """Return what sorts result files from old to new: the time in the name, then the file's."""
    match = _TIME.search(path.name)
    return match[1] if match else "", path.stat().st_mtime if path.exists() else 0.0


def effective_weight_decay(testproblem: str, given: float | None) -> float | None:
    """Return the L2 factor that a run of a problem has, None standing for its default.

    A problem without an L2 term has 0, whatever is given; of an unknown problem ``given`` is
    returned.
    """
    from deepobs.pytorch import testproblems

    problem = testproblems.TESTPROBLEMS.get(testproblem)
    if problem is None:
        return given
    if problem.default_weight_decay is None:
        return 0.0
    return float(problem.default_weight_decay) if given is None else given


def completed(optimizer: str, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters with the defaults of those left out, where torch has the optimizer.

    A number that is written as a text is a number.
    """
    given = {key: _number(value) for key, value in hyperparams.items()}
    defaults = _defaults(optimizer)
    return {**defaults, **given} if given.keys() <= defaults.keys() else given


@lru_cache(maxsize=64)
def _defaults(optimizer: str) -> dict[str, Any]:
    from deepobs.pytorch.runners.hyperparameters import specify
    from trainrig.optim import preset_arguments, resolve_optimizer

    if "." in optimizer:  # nothing that a file names is imported
        return {}
    try:
        optimizer_class, preset = resolve_optimizer(optimizer), preset_arguments(optimizer)
    except (KeyError, ValueError):  # unknown, or of a package that is not installed
        return {}
    found = {
        k: entry["default"] for k, entry in specify(optimizer_class).items() if "default" in entry
    }
    return {**found, **preset}


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.lower())
    except ValueError:
        try:
            return float(value)
        except ValueError:
            return value
