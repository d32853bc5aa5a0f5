"""What one run is: its resolved arguments, checked before anything is written, and its names.

Names of run folders and result files are exactly as the published results have them.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from deepobs.pytorch import config
from deepobs.pytorch.runners.hyperparameters import check_schedule
from deepobs.pytorch.testproblems import TESTPROBLEMS
from trainrig.config import Traced

L2_PLACES = ("loss", "optimizer-groups")


class UnknownTestProblemError(KeyError, RuntimeError):
    """An unknown test problem; a ``RuntimeError`` too, as in the 1.2 line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The arguments of one run that determine its result.

    Attributes:
        testproblem: its name.
        optimizer_name: the folder's name; the class's name unless told otherwise.
        hyperparams: all of them, learning rate included where the optimizer has one.
        weight_decay: L2 factor as given; None takes the problem's default.
        lr_sched_epochs: epochs (from 1) at which the learning rate changes.
        lr_sched_factors: its factors, relative to the base.
        train_log_interval: steps between two logged minibatch losses.
        l2: ``loss`` (as published), or ``optimizer-groups`` (the optimizer's own weight decay).
        on_divergence: ``stop`` at the first non-finite loss, or ``continue`` as TensorFlow did.
        compat: ``reference`` or ``fixed``.
        dtype: ``float32`` or ``float64``.
        optimizer_class: the optimizer's module and class; empty where it is made by a function.
        training_params: further parameters of the runner, kept in the result.
        branch: what the run begins from, where that is another run's checkpoint.
    """

    testproblem: str
    optimizer_name: str
    hyperparams: dict[str, Any]
    batch_size: int
    num_epochs: int
    random_seed: int = 42
    weight_decay: float | None = None
    lr_sched_epochs: list[int] | None = None
    lr_sched_factors: list[float] | None = None
    train_log_interval: int = 10
    l2: Literal["loss", "optimizer-groups"] = "loss"
    on_divergence: Literal["stop", "continue"] = "stop"
    compat: str = "reference"
    dtype: str = "float32"
    optimizer_class: str = ""
    training_params: dict[str, Any] = field(default_factory=dict)
    branch: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_testproblem(self.testproblem)
        for name, least in (
            ("batch_size", 1),
            ("num_epochs", 0),
            ("random_seed", 0),
            ("train_log_interval", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; an integer of at least {least} is expected")
        decay = self.weight_decay
        if decay is not None and (not math.isfinite(decay) or decay < 0):
            raise ValueError(f"weight_decay is {decay!r}; a number of at least 0 is expected")
        for name, value in self.hyperparams.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"hyperparameter {name} is {value}; a finite number is expected")
        if self.l2 not in L2_PLACES:
            raise ValueError(f"l2 is {self.l2!r}; accepted: {', '.join(L2_PLACES)}")
        if self.on_divergence not in ("stop", "continue"):
            raise ValueError(f"on_divergence is {self.on_divergence!r}; accepted: stop, continue")
        check_schedule(self.lr_sched_epochs, self.lr_sched_factors)
        if self.lr_sched_epochs and self.learning_rate is None:
            raise ValueError("learning-rate schedule: this optimizer has no learning rate 'lr'")

    @property
    def learning_rate(self) -> float | None:
        """The base learning rate; None for optimizers without one."""
        value = self.hyperparams.get("lr", self.hyperparams.get("learning_rate"))
        return None if value is None else float(value)

    @property
    def schedule(self) -> dict[int, float] | None:
        """``{epoch: learning rate}`` with epoch 0; None without learning rate."""
        if self.learning_rate is None:
            return None
        return learning_rates(self.learning_rate, self.lr_sched_epochs, self.lr_sched_factors)

    @property
    def other_hyperparams(self) -> dict[str, Any]:
        """All hyperparameters but the learning rate."""
        hidden = ("lr", "learning_rate")
        return {k: v for k, v in self.hyperparams.items() if k not in hidden}

    @property
    def run_name(self) -> str:
        """The run folder's name; switches that are not the default's become part of it."""
        extra = dict(self.training_params)
        if self.l2 != "loss":
            extra["l2"] = self.l2
        if self.compat != "reference":
            extra["compat"] = self.compat
        if self.branch is not None:
            kind = "init_state" if self.branch["state"] else "init_from"
            extra[kind] = f"{self.branch['step']}-{self.branch['sha256'][0][:12]}"
        return make_run_name(
            self.weight_decay,
            self.batch_size,
            self.num_epochs,
            self.other_hyperparams,
            self.schedule,
            extra,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that identify the run."""
        tree = dataclasses.asdict(self)
        return {name: value for name, value in tree.items() if (name, value) != ("branch", None)}


def trace(settings: RunSettings, names: Mapping[str, str]) -> Traced[RunSettings]:
    """Return the settings of a run, and where each value came from.

    Args:
        settings: resolved.
        names: setting → flag, for those given; hyperparameters as ``hyperparams.<name>``.
    """
    origins = {
        "testproblem": "command line",
        "optimizer_name": "the optimizer",
        "batch_size": "published default",
        "num_epochs": "published default",
        "weight_decay": "published default of the problem",
    }
    origins |= {f"hyperparams.{key}": "the optimizer" for key in settings.hyperparams}
    for key in ("compat", "dtype"):
        if f"DEEPOBS_{key.upper()}" in os.environ:
            origins[key] = f"$DEEPOBS_{key.upper()}"
    return Traced(settings, origins | dict(names))


def check_testproblem(name: str) -> None:
    """Refuse an unknown problem, naming the nearest.

    Raises:
        UnknownTestProblemError: also a ``KeyError`` and a ``RuntimeError``.
    """
    try:
        TESTPROBLEMS[name]
    except KeyError as error:
        raise UnknownTestProblemError(error.args[0]) from None


def default_setting(testproblem: str, what: str, given: int | None) -> int:
    """Return ``given``, else the published default of ``batch_size`` or ``num_epochs``.

    Raises:
        ValueError: neither; the published suite has no default for this problem.
    """
    if given is not None:
        return given
    value = config.get_testproblem_default_settings().get(testproblem, {}).get(what)
    if value is None:
        raise ValueError(f"{testproblem}: the suite has no default {what}; give one")
    return value


# --- names ---


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
