"""Tuners: grid, random and Bayesian search."""

from deepobs.pytorch.tuner.searches import GP, GridSearch, RandomSearch, log_uniform
from deepobs.pytorch.tuner.tuner import Trial, Tuner, rerun_setting, write_tuning_summary

__all__ = [
    "GP",
    "GridSearch",
    "RandomSearch",
    "Trial",
    "Tuner",
    "log_uniform",
    "rerun_setting",
    "write_tuning_summary",
]
