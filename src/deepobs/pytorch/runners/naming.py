"""Names of run folders and result files, exactly as the published results have them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any


def float2str(value: Any) -> str:
    """Return a float in scientific notation without trailing zeros, anything else by ``str``.

    >>> float2str(0.1), float2str(0.0398107170553497), float2str(0.0), float2str(True)
    ('1.e-01', '3.9810717055e-02', '0.e+00', 'True')
    """
    if not isinstance(value, float):
        return str(value)
    mantissa, exponent = f"{value:.10e}".split("e")
    return f"{mantissa.rstrip('0')}e{exponent}"


def learning_rates(
    lr: float, epochs: Sequence[int] | None, factors: Sequence[float] | None
) -> dict[int, float]:
    """Return ``{epoch: learning rate}``; factors are relative to the base, not cumulative.

    >>> learning_rates(0.3, [50, 100], [0.1, 0.01])
    {0: 0.3, 50: 0.03, 100: 0.003}
    """
    pairs = zip(epochs or (), factors or (), strict=True)
    return {0: lr} | {epoch: float(f"{lr * factor:.15g}") for epoch, factor in pairs}


def make_run_name(
    weight_decay: float | None,
    batch_size: int,
    num_epochs: int,
    hyperparams: Mapping[str, Any],
    schedule: Mapping[int, float] | None,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Return the run folder's name.

    Args:
        weight_decay: only where given explicitly.
        batch_size: examples per batch.
        num_epochs: passes over the training data.
        hyperparams: all but the learning rate; sorted by name.
        schedule: ``{epoch: learning rate}`` with epoch 0; None for optimizers without one.
        extra: further training parameters, sorted by name.
    """
    parts = [f"num_epochs__{num_epochs}", f"batch_size__{batch_size}"]
    if weight_decay is not None:
        parts.append(f"weight_decay__{float2str(float(weight_decay))}")
    parts += [f"{name}__{float2str(value)}" for name, value in sorted(hyperparams.items())]
    parts += [f"{name}__{float2str(value)}" for name, value in sorted((extra or {}).items())]
    if schedule is not None:
        steps = [f"{epoch}_{float2str(float(lr))}" for epoch, lr in sorted(schedule.items())]
        if len(steps) == 1:
            parts.append(f"lr__{float2str(float(schedule[0]))}")
        else:
            parts.append(f"lr_schedule__{'_'.join(steps)}")
    return "__".join(parts).replace("/", "|").replace(" ", "")


def result_name(random_seed: int, now: datetime.datetime | None = None) -> str:
    """Return ``random_seed__<seed>__<YYYY-mm-dd-HH-MM-SS>.json``."""
    now = datetime.datetime.now().astimezone() if now is None else now
    return f"random_seed__{random_seed}__{now:%Y-%m-%d-%H-%M-%S}.json"
