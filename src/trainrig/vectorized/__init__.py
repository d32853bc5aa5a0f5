"""Many runs as one program: modules of one structure stacked along a leading axis."""

from trainrig.vectorized.optim import ELEMENTWISE, StackedOptimizer, stacked_l2_penalty
from trainrig.vectorized.stack import Stack

__all__ = ["ELEMENTWISE", "Stack", "StackedOptimizer", "stacked_l2_penalty"]
