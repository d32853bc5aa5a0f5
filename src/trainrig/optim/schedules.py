"""Learning-rate schedules: pure functions of the number of completed updates, nothing to save."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

Schedule = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class WarmupRsqrt:
    """``min(max_lr·t/warmup, max_lr·sqrt(warmup/t))`` with lr(0) = 0.

    Attributes:
        max_lr: the peak, reached after ``warmup_steps`` updates.
        warmup_steps: updates of linear warm-up, >= 1.
    """

    max_lr: float
    warmup_steps: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_lr("max_lr", self.max_lr)
        if self.warmup_steps < 1:
            raise ValueError(f"warmup_steps: {self.warmup_steps} is not positive; give 1 or more")

    def __call__(self, completed: int) -> float:
        """Return the learning rate after ``completed`` updates."""
        if completed <= self.warmup_steps:
            return self.max_lr * completed / self.warmup_steps
        return self.max_lr * math.sqrt(self.warmup_steps / completed)


@dataclass(frozen=True, slots=True)
class Constant:
    """The same learning rate for ever."""

    lr: float

    def __post_init__(self) -> None:
        """Check the range."""
        _check_lr("lr", self.lr)

    def __call__(self, completed: int) -> float:
        """Return the learning rate, whatever ``completed`` is."""
        return self.lr


def warmup_rsqrt(max_lr: float, warmup_steps: int) -> Schedule:
    """Return a linear warm-up from 0 followed by inverse-square-root decay.

    >>> lr = warmup_rsqrt(3e-4, 4000)
    >>> lr(0), lr(4000), round(lr(20_000), 8)
    (0.0, 0.0003, 0.00013416)
    """
    return WarmupRsqrt(max_lr, warmup_steps)


def constant(lr: float) -> Schedule:
    """Return a schedule that never changes."""
    return Constant(lr)


@lru_cache(maxsize=64)  # the runs of a sweep share it, and it takes a pass over all steps
def total_lr(schedule: Schedule, steps: int) -> float:
    """Return Σlr over the first ``steps`` updates; decoupled decay λ shrinks by exp(-λ·Σlr)."""
    return math.fsum(schedule(t) for t in range(steps))


def _check_lr(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: {value} is no learning rate; give a finite number >= 0")
