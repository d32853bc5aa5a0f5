"""Variables of networks: their list against a recorded one, recorded values, gradients.

Names, shapes and order are TensorFlow's, see ``deepobs.pytorch.tf_weights``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import CLASSES, Golden, max_abs, max_rel
from deepobs.pytorch.datasets.generated import generated_data
from deepobs.pytorch.testproblems import TESTPROBLEMS
from deepobs.pytorch.tf_weights import Variable, tf_variables
from trainrig.parity import Record, Report


def check_parameter_counts(golden: Golden, stem: str, report: Report) -> None:
    """Compare names, shapes, order and L2 cover of all variables, and their totals."""
    records = golden.json(f"{stem}.json")
    with generated_data(examples=64):
        for name in records:
            case = f"{stem}/{name}"
            with report.attempt(case):
                _check_counts(case, name, records[name], report)


def _check_counts(case: str, name: str, record: Record, report: Report) -> None:
    if name not in TESTPROBLEMS:
        record.plain()
        report.unchecked(case, "unknown test problem")
        return
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
    found = {
        "trainable_parameters": sum(p.numel() for p in problem.net.parameters()),
        "regularized_parameters": sum(p.numel() for p in problem.regularized_parameters()),
        "n_variables": len(variables),
        "n_regularized": sum(variable["regularized"] is True for variable in variables),
        "variables": variables,
        "has_accuracy": problem.has_accuracy,
        **_batch(name, record),
    }
    for key, ours in found.items():
        if key in record:
            detail = f"{ours:,}" if isinstance(ours, int) else ""
            report.equal(case, key, ours == record[key], detail)
        else:
            report.unchecked(case, f"{key} is not recorded")


def _batch(name: str, record: Record) -> dict[str, Any]:
    """Return shapes and types of a batch as large as the recorded one, as TensorFlow has them.

    There images have their channels last, and labels are one-hot, of a type that only TensorFlow's
    pipelines decide and that is taken as recorded.
    """
    batch_size = int(record["batch_shapes"][0][0])
    batch = next(iter(TESTPROBLEMS[name](batch_size).make_data().train))
    tensors = [batch] if isinstance(batch, torch.Tensor) else list(batch)
    shapes = [list(tensor.shape) for tensor in tensors]
    types = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors]
    if tensors[0].ndim == 4:
        b, c, h, w = shapes[0]
        shapes = [[b, h, w, c], [b, CLASSES[name.partition("_")[0]]]]
        types[1] = (record["batch_dtypes"] + types)[1]
    return {"batch_shapes": shapes, "batch_dtypes": types}


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
    firsts: Sequence[Sequence[float] | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative deviation of each variable's norm, and of its first entries.

    An entry counts relative to the largest of its few, or to a typical entry of its variable. A
    gradient a million times smaller than the largest is rounding noise and counts as such. A
    variable that the loss does not depend on has the gradient 0. Deviations are 0 where the norm is
    None, that is, not recorded; NaN where a recorded or computed number is not finite, and where
    not the first three entries (or all, if fewer) are recorded.
    """
    finite = [norm for norm in norms if norm is not None and math.isfinite(norm)]
    least = 1e-6 * max(finite, default=0.0) or 1e-12
    of_norms, of_firsts = [], []
    for i, (variable, expected) in enumerate(zip(variables, norms, strict=True)):
        if expected is None:
            of_norms.append(0.0)
            of_firsts += [0.0] if firsts else []
            continue
        gradient = variable.gradient()
        if gradient is None:
            gradient = np.zeros(variable.shape)
        norm = float(np.linalg.norm(gradient.astype(np.float64)))
        of_norms.append(max_rel(norm, expected, floor=least))
        if firsts:
            first = np.empty(0) if firsts[i] is None else np.asarray(firsts[i], np.float64)
            ours = gradient.ravel()[: min(3, gradient.size)]
            typical = expected / math.sqrt(gradient.size)
            scale = max(float(np.abs(first).max(initial=0.0)), typical, least)
            of_firsts.append(max_abs(ours, first) / scale)
    return np.array(of_norms), np.array(of_firsts)


def check_gradients(
    report: Report,
    case: str,
    variables: Sequence[Variable],
    record: tuple[Sequence[float | None], Sequence[Sequence[float] | None]],
    bound: float | None,
) -> None:
    """Compare gradient norms and first entries, and name the variable that is off the most.

    Args:
        report: gets a row for the norms, and one for the first entries where there are any.
        case: its name there.
        variables: the trainable ones, with their gradients.
        record: norms by variable, and first entries by variable or nothing.
        bound: of the norms. Single entries carry rounding that norms average out; none is
            recorded for them, and ten times as much is allowed.
    """
    norms, firsts = record
    for name, values in (("norms", norms), ("entries", firsts)):
        if len(values) != len(variables) and (name == "norms" or len(values) > 0):
            detail = f"{len(values)} recorded for {len(variables)} variables"
            report.equal(case, f"gradient {name}", False, detail)
            return
    unrecorded = [v.name for v, norm in zip(variables, norms, strict=True) if norm is None]
    if unrecorded:
        report.unchecked(case, f"gradients of {', '.join(unrecorded)} are not recorded")
    if not firsts:
        report.unchecked(case, "first entries of gradients are not recorded")
    limits = (bound, None if bound is None else 10 * bound)
    deviations = gradient_deviations(variables, norms, firsts)
    for name, found, limit in zip(("norms", "entries"), deviations, limits, strict=True):
        if len(found) == 0:
            continue
        worst = int(np.argmax(found))  # NaN is the largest
        over = 0 if limit is None else int(np.sum(~(found <= limit)))
        detail = f"{over} of {len(found)}, most in {variables[worst].name}" if over else ""
        report.check(case, f"gradient {name}", float(found[worst]), limit, detail)
