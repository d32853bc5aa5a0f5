"""The 26 test problems of DeepOBS and one addition, importable by name.

A new problem is one file and one line here, or one line of ``problems.TABLE``. Of any other set of
labelled images in the catalogue there are ``<data set>_logreg`` and ``_mlp``, and ``_2c2d`` or
``_3c3d`` where the images fit.
"""

from typing import Any

from deepobs.pytorch.testproblems.fmnist_mlp import fmnist_mlp
from deepobs.pytorch.testproblems.imagenet_inception_v3 import imagenet_inception_v3
from deepobs.pytorch.testproblems.problems import TABLE, make_problem
from deepobs.pytorch.testproblems.quadratic_deep import quadratic_deep
from deepobs.pytorch.testproblems.testproblem import TestProblem
from deepobs.pytorch.testproblems.tolstoi_char_rnn import tolstoi_char_rnn
from trainrig.registry import Registry


class Problems(Registry):
    """The registered problems, and those that are made of a data set's name when asked for."""

    def __getitem__(self, name: str) -> Any:
        made = None if name in self._entries else make_problem(name)
        return made or super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and bool(make_problem(name)))


TESTPROBLEMS = Problems("test problem")
_special = (fmnist_mlp, imagenet_inception_v3, quadratic_deep, tolstoi_char_rnn)
_published = {problem.__name__: problem for problem in _special} | {
    n: make_problem(n) for n in TABLE
}
for _name in sorted(_published):
    TESTPROBLEMS.register(_name)(_published[_name])

#: Beyond the 26 of the published suite.
ADDITIONS = ("cifar100_wrn164",)

__all__ = ["ADDITIONS", "TESTPROBLEMS", "TestProblem", *TESTPROBLEMS]


def __getattr__(name: str) -> Any:
    if name not in TESTPROBLEMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return TESTPROBLEMS[name]
