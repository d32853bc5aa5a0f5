"""What one run is: the resolved arguments, validated before anything is read or written."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deepobs.pytorch import config
from deepobs.pytorch.runners.hyperparameters import check_schedule
from deepobs.pytorch.runners.naming import learning_rates, make_run_name
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
        return dataclasses.asdict(self)


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
