"""The character network against recorded consecutive batches, and its first batch's gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from deepobs.parity.golden import Golden, max_abs, max_rel
from deepobs.parity.variables import gradient_deviations
from deepobs.pytorch.testproblems import TestProblem
from deepobs.pytorch.testproblems._char_rnn import CharRNN, State
from deepobs.pytorch.tf_weights import tf_variables
from trainrig.parity import Record, Report


def check_text(
    golden: Golden,
    case: str,
    record: Record,
    arrays: Record,
    problem: TestProblem,
    report: Report,
) -> None:
    """Compare consecutive batches of the character network, from a zero state.

    Args:
        golden: states the bounds.
        case: ``forward/<name>``.
        record: of this network, in ``forward.json``.
        arrays: of ``forward.npz``.
        problem: its network holds the recorded weights.
        report: gets a row for each comparison.
    """
    name = case.rpartition("/")[2]
    problem.begin("test", None)
    batches = record["consecutive_batches"]
    with report.attempt(case):
        counts = [len(arrays[f"{name}__{key}"]) for key in ("x", "y")]
        report.equal(case, "batches", counts == [len(batches)] * 2, str(counts))
    for i, expected in enumerate(batches):
        with report.attempt(f"{case}/batch{i}"):
            _check_batch(golden, (case, i), expected, arrays, problem, report)
    with report.attempt(f"{case}/batch0"):
        norms = record["grad_l2_norms_batch0_zero_state"]
        bound = golden.bound("grad_norm_rel")
        x, y = (torch.from_numpy(arrays[f"{name}__{k}"][0]) for k in ("x", "y"))
        deviation, detail = first_gradients(problem.net, x, y, norms, bound=bound)
        report.check(f"{case}/batch0", "gradient norms", deviation, bound, detail)
        variables = [v for v in tf_variables(problem.net) if v.trainable]
        for variable, norm in zip(variables, norms, strict=True):
            if norm is None:
                report.unchecked(f"{case}/batch0", f"gradient of {variable.name} is not recorded")


def _check_batch(
    golden: Golden,
    where: tuple[str, int],
    expected: Record,
    arrays: Record,
    problem: TestProblem,
    report: Report,
) -> None:
    """Compare one of the consecutive batches; the state of the one before it is carried over."""
    case, number = where
    name, where_to = case.rpartition("/")[2], f"{case}/batch{number}"
    x, y = (torch.from_numpy(arrays[f"{name}__{k}"][number]) for k in ("x", "y"))
    outputs: list[Any] = []
    hook = problem.net.register_forward_hook(lambda _, __, o: outputs.append(o))
    with torch.no_grad():
        losses, accuracy = problem.forward_losses((x, y), accuracy=True)
    hook.remove()
    logits, state = outputs[0]
    found = {"logits_t0_t49": logits[:, [0, -1]]}
    for layer, (c, h) in enumerate(state):
        found |= {f"layer{layer}_c": c, f"layer{layer}_h": h}
    for what, ours in found.items():
        key = f"{name}__batch{number}__{what}"
        if key in arrays:
            deviation = max_abs(ours.numpy(), arrays[key])
            report.check(where_to, what, deviation, golden.bound("logits_abs"))
        else:
            report.unchecked(where_to, f"{what} is not recorded")
    with report.attempt(where_to):
        deviation = max_rel(losses.numpy(), expected["losses"])
        bound = golden.bound("per_example_loss_rel")
        report.check(where_to, "per-example losses", deviation, bound)
    with report.attempt(where_to):
        report.check(where_to, "accuracy", max_abs(accuracy, expected["accuracy"]), 1e-6)


def first_gradients(
    net: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    norms: Sequence[float | None],
    *,
    bound: float | None,
) -> tuple[float, str]:
    """Compare the first batch's gradients, allowing for a race inside TensorFlow.

    There the backward pass of the first time step reads the cell state from a variable that the
    batch's last state may have overwritten by then. Where the plain gradients are off, those
    with the overwritten state are compared, and the words returned say so.

    Args:
        net: the character network.
        x: characters (B, T).
        y: the next ones (B, T).
        norms: recorded, by variable.
        bound: largest deviation at which the plain gradients count as equal; None: any.

    Returns:
        The largest relative deviation of the norms, and what to know of it.
    """
    assert isinstance(net, CharRNN)
    net.double()
    plain = _gradient_deviation(net, x, y, norms, net.zero_state(len(x)))
    if bound is None or plain <= bound:
        net.float()
        return plain, ""
    raced = _gradient_deviation(net, x, y, norms, overwritten_state(net, x))
    net.float()
    return raced, f"with TensorFlow's overwritten initial cell state; without: {plain:.3g}"


def _gradient_deviation(
    net: CharRNN, x: torch.Tensor, y: torch.Tensor, norms: Sequence[float | None], state: State
) -> float:
    net.zero_grad()
    logits, _ = net(x, state)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
    variables = [v for v in tf_variables(net) if v.trainable]
    return float(np.max(gradient_deviations(variables, norms, [])[0]))


def overwritten_state(net: CharRNN, x: torch.Tensor) -> State:
    """Return a zero-valued change of the initial cell states that has TensorFlow's gradient.

    With s the first step's forget gate, ``c + (c_last - c) (s - s') / s'`` equals c for a constant
    s' = s, and adds to the gate's gradient what it gets from ``c_last`` in place of ``c``.
    """
    state = net.zero_state(len(x))
    with torch.no_grad():
        _, last = net(x, state)
    changed, inputs = [], net.embedding(x[:, 0])
    for cell, (c, h), (c_last, _) in zip((net.cell_0, net.cell_1), state, last, strict=True):
        gates = inputs @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias + cell.forget_bias
        forget = torch.sigmoid(gates.chunk(4, 1)[1])
        c = c + (c_last - c) * (forget - forget.detach()) / forget.detach()
        changed.append((c, h))
        inputs = cell(inputs[:, None], (c, h))[0][:, 0]
    return changed
