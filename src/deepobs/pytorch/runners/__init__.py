"""Runners: train an optimizer on a test problem and write the result file."""

from deepobs.pytorch.runners.pack import run_pack
from deepobs.pytorch.runners.runner import PTRunner
from deepobs.pytorch.runners.standard_runner import LearningRateScheduleRunner, StandardRunner

__all__ = ["LearningRateScheduleRunner", "PTRunner", "StandardRunner", "run_pack"]
