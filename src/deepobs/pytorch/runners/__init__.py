"""Runners: train an optimizer on a test problem and write the result file."""

from deepobs.pytorch.runners.pack import run_pack
from deepobs.pytorch.runners.runner import LearningRateScheduleRunner, PTRunner, StandardRunner

__all__ = ["LearningRateScheduleRunner", "PTRunner", "StandardRunner", "run_pack"]
