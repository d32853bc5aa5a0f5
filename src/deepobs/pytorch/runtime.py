"""Runtime overhead of an optimizer against SGD, measured by alternating runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deepobs.pytorch.runners import PTRunner, StandardRunner
from deepobs.pytorch.runners.hyperparameters import Specification
from trainrig.stats import mean_and_sd


@dataclass(frozen=True)
class RuntimeEstimate:
    """Seconds of each run.

    Attributes:
        sgd: SGD's, (n_runs,).
        optimizer: the optimizer's, (n_runs,).
    """

    sgd: np.ndarray
    optimizer: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """The optimizer's time over SGD's, run by run."""
        return self.optimizer / self.sgd

    def to_text(self) -> str:
        """Return means and the ratio with its sample deviation."""
        mean, sd = mean_and_sd(self.ratios)
        spread = f" +- {sd:.3f}" if len(self.ratios) > 1 else ""
        return (
            f"SGD {self.sgd.mean():.3f} s, optimizer {self.optimizer.mean():.3f} s per run; "
            f"ratio {mean:.3f}{spread} "
            f"(median {np.median(self.ratios):.3f}, n={len(self.ratios)})"
        )


def estimate_runtime(  # noqa: PLR0913 - the original's signature
    optimizer_cls: Any,
    optimizer_hp: Specification,
    optimizer_hyperparams: Mapping[str, Any],
    *,
    n_runs: int = 5,
    sgd_lr: float = 0.01,
    testproblem: str = "mnist_mlp",
    num_epochs: int = 5,
    batch_size: int = 128,
    runner_cls: type[PTRunner] = StandardRunner,
) -> RuntimeEstimate:
    """Alternate SGD and an optimizer on one problem, without writing anything.

    Args:
        optimizer_cls: the optimizer's class.
        optimizer_hp: its hyperparameters, as for the runner.
        optimizer_hyperparams: their values.
        n_runs: runs of each, at least 1.
        sgd_lr: SGD's learning rate.
        testproblem: which problem.
        num_epochs: length of a run.
        batch_size: examples per batch.
        runner_cls: class of the runner.

    Raises:
        ValueError: ``n_runs`` or ``num_epochs`` below 1.
    """
    if n_runs < 1:
        raise ValueError(f"n_runs is {n_runs}; at least 1 is expected")
    if num_epochs < 1:
        raise ValueError(f"num_epochs is {num_epochs}; at least 1 is expected to time")
    contenders = (
        (runner_cls(torch.optim.SGD, {"lr": {"type": float}}), {"lr": sgd_lr}),
        (runner_cls(optimizer_cls, optimizer_hp), dict(optimizer_hyperparams)),
    )
    seconds: list[list[float]] = [[], []]
    for i in range(n_runs):
        for times, (runner, hyperparams) in zip(seconds, contenders, strict=True):
            start = time.perf_counter()
            runner.run(
                testproblem,
                hyperparams,
                batch_size=batch_size,
                num_epochs=num_epochs,
                random_seed=42 + i,
                no_logs=True,
                verbose=False,
            )
            times.append(time.perf_counter() - start)
    return RuntimeEstimate(*(np.array(times) for times in seconds))
