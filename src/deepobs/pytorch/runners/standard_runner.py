"""The runners of the suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deepobs.pytorch.runners.hyperparameters import ScheduleError
from deepobs.pytorch.runners.runner import PTRunner
from deepobs.pytorch.runners.session import Session
from deepobs.pytorch.runners.settings import RunSettings


class StandardRunner(PTRunner):
    """Constant learning rate, or the piecewise constant one of 1.1 where both lists are given."""

    def training(
        self,
        session: Session,
        save: Callable[[], None] | None,
        checkpoint_interval_s: float,
    ) -> None:
        """Train to the end: evaluate before, and after each epoch."""
        session.run(save, checkpoint_interval_s)


class LearningRateScheduleRunner(StandardRunner):
    """Multiplies the base learning rate by ``lr_sched_factors`` from ``lr_sched_epochs`` on."""

    def make_settings(self, testproblem: str, *args: Any, **arguments: Any) -> RunSettings:
        """Resolve the arguments; the schedule is required.

        Raises:
            ScheduleError: no schedule given.
        """
        if arguments.get("lr_sched_epochs") is None and arguments.get("lr_sched_factors") is None:
            raise ScheduleError(
                "learning-rate schedule: none given; "
                "give lr_sched_epochs and lr_sched_factors, or use StandardRunner"
            )
        return super().make_settings(testproblem, *args, **arguments)
