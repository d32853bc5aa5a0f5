"""Tuners: grid, random and Bayesian search."""

from deepobs.pytorch.tuner.searches import (
    GP,
    PUBLISHED_LR_GRID,
    GridSearch,
    RandomSearch,
    log_uniform,
    uniform,
)
from deepobs.pytorch.tuner.trials import Trial, write_tuning_summary
from deepobs.pytorch.tuner.tuner import Tuner, rerun_setting

__all__ = [
    "GP",
    "PUBLISHED_LR_GRID",
    "GridSearch",
    "RandomSearch",
    "Trial",
    "Tuner",
    "log_uniform",
    "rerun_setting",
    "uniform",
    "write_tuning_summary",
]
