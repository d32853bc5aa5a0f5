"""A runner from texts, as the command line gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepobs.pytorch.runners.hyperparameters import specify
from deepobs.pytorch.runners.standard_runner import StandardRunner
from trainrig.optim import preset_arguments, published_name, resolve_optimizer


def make_runner(
    optimizer: str, given: Mapping[str, Any], optimizer_name: str | None = None
) -> tuple[StandardRunner, dict[str, Any]]:
    """Return a runner of an optimizer, and all hyperparameters that are given or preset.

    Args:
        optimizer: a name of ``trainrig.optim`` (``Adam``, ``Momentum``, ``lion``; in any letter
            case), or a dotted path.
        given: hyperparameters by name, as texts or values.
        optimizer_name: of the result folder; the optimizer's by default.

    Raises:
        ValueError, KeyError: no such optimizer.
    """
    optimizer_class = resolve_optimizer(optimizer)
    hyperparams = {**preset_arguments(optimizer), **given}
    specification = specify(optimizer_class)
    # Arguments left at the optimizer's own default are no part of the setting's name.
    chosen = {
        key: entry
        for key, entry in specification.items()
        if key in hyperparams or (key == "lr" and "default" not in entry)
    }
    unknown = any(key not in specification for key in hyperparams)
    name = optimizer_name or published_name(optimizer)
    return StandardRunner(optimizer_class, specification if unknown else chosen, name), hyperparams
