"""Variables of networks: their list against a recorded one, recorded values, gradients.

Names, shapes and order are TensorFlow's, see ``deepobs.pytorch.tf_weights``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs, max_rel
from deepobs.pytorch.testproblems import TESTPROBLEMS
from deepobs.pytorch.tf_weights import Variable, tf_variables
from trainrig.parity import Report


def check_parameter_counts(golden: Golden, stem: str, report: Report) -> None:
    """Compare names, shapes, order and L2 cover of all variables, and their totals."""
    for name, record in golden.json(stem).items():
        if name not in TESTPROBLEMS:
            report.unchecked(f"{stem}/{name}", "unknown test problem")
            continue
        problem = TESTPROBLEMS[name](batch_size=1)
        with torch.device("meta"):
            problem.set_up_net("meta")
        covered = {id(p) for p in problem.regularized_parameters()}
        variables = [
            {
                "name": v.name,
                "shape": list(v.shape),
                "regularized": all(id(tensor) in covered for tensor in v.tensors),
            }
            for v in tf_variables(problem.net)
            if v.trainable
        ]
        case = f"{stem}/{name}"
        for key, ours in (
            ("trainable_parameters", sum(p.numel() for p in problem.net.parameters())),
            ("regularized_parameters", sum(p.numel() for p in problem.regularized_parameters())),
        ):
            report.equal(case, key, ours == record[key], f"{ours:,}")
        report.equal(case, "variables", variables == record["variables"])
        if "has_accuracy" in record:
            report.equal(case, "has_accuracy", problem.has_accuracy == record["has_accuracy"])


def generate_variable(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Regenerate one variable's recorded values, float32, in TensorFlow's layout."""
    z = np.random.RandomState(seed).standard_normal(shape)
    last = name.rpartition("/")[2]
    if last == "gamma":
        value = 1 + 0.1 * z
    elif last in ("beta", "bias", "softmax_b", "moving_mean"):
        value = 0.1 * z
    elif last == "moving_variance":
        value = 0.5 + np.abs(z)
    elif last == "embedding":
        value = 0.5 * z
    else:
        transposed = "conv2d_transpose" in name
        fan = shape[0] * shape[1] * shape[3] if transposed else math.prod(shape[:-1])
        z *= math.sqrt(1.5 / fan)
        value = z
    return value.astype(np.float32)


def gradient_deviations(
    variables: Sequence[Variable],
    norms: Sequence[float | None],
    firsts: Sequence[Sequence[float]],
) -> tuple[float, float]:
    """Return the largest relative deviation of norms, and of first entries.

    An entry counts relative to the largest of its three, or to a typical entry of its variable. A
    gradient a million times smaller than the largest is rounding noise and counts as such. NaN for
    a missing gradient and for one that is not finite.
    """
    least = 1e-6 * max(norm for norm in norms if norm is not None)
    of_norms, of_firsts = [0.0], [0.0]
    for i, (variable, expected) in enumerate(zip(variables, norms, strict=True)):
        gradient = variable.gradient()
        if expected is None:
            continue
        if gradient is None:
            return float("nan"), float("nan")
        norm = float(np.linalg.norm(gradient.astype(np.float64)))
        of_norms.append(max_rel(norm, expected, floor=least))
        if i < len(firsts):
            first = gradient.ravel()[: len(firsts[i])]
            typical = expected / math.sqrt(gradient.size)
            scale = max(float(np.abs(firsts[i]).max()), typical, least)
            of_firsts.append(max_abs(first, firsts[i]) / scale)
    return float(np.max(of_norms)), float(np.max(of_firsts))  # NaN wins, unlike in Python's max
