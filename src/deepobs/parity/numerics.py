"""TensorFlow operations, two-dimensional functions, the quadratic's Hessian, initialisers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs, max_rel
from deepobs.pytorch import tf_ops
from deepobs.pytorch.testproblems import TESTPROBLEMS, TestProblem, _initialisers, _layers
from deepobs.pytorch.testproblems._quadratic import make_hessian
from trainrig.parity import Record, Report

OPERATIONS = ("conv2d", "conv2d_transpose", "max_pool", "avg_pool", "resize_bilinear_legacy")


def _normal(seed: int, shape: list[int]) -> torch.Tensor:
    z = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(z)


def apply_op(case: Record) -> np.ndarray:
    """Run one recorded operation; input and result in TensorFlow's layout (B, H, W, C)."""
    x = _normal(case["x_seed"], case["x_shape"]).permute(0, 3, 1, 2).contiguous()
    if case["op"] == "resize_bilinear_legacy":
        y = tf_ops.resize_bilinear(x, *case["out_hw"])
    elif case["op"] in ("max_pool", "avg_pool"):
        pool = tf_ops.max_pool2d if case["op"] == "max_pool" else tf_ops.avg_pool2d
        y = pool(x, case["kernel"], case["stride"], case["padding"])
    else:
        shape = case["w_shape_HWIO" if case["op"] == "conv2d" else "w_shape_HWOI"]
        weight = _normal(case["w_seed"], shape).permute(3, 2, 0, 1).contiguous()
        convolve = tf_ops.conv2d if case["op"] == "conv2d" else tf_ops.conv_transpose2d
        y = convolve(x, weight, None, case["stride"], case["padding"])
        _same_sizes(case, "kernel", weight)
    _same_sizes(case, "in_hw", x)
    _same_sizes(case, "out_hw", y)
    return y.permute(0, 2, 3, 1).numpy()


def _same_sizes(case: Record, key: str, tensor: torch.Tensor) -> None:
    """Refuse a record whose sizes contradict each other: one number, or height and width."""
    if key in case:
        size, found = case[key], list(tensor.shape[-2:])
        if found != (size if isinstance(size, list) else [size, size]):
            raise ValueError(f"{key} is {size}, and {found} follows from the other entries")


def check_tf_ops(golden: Golden, stem: str, report: Report) -> None:
    """Compare each recorded operation, and one step of batch normalisation."""
    arrays, bound = golden.arrays(f"{stem}.npz"), golden.bound("tf_ops_abs")
    for i, case in enumerate(golden.json(f"{stem}.json")):
        with report.attempt(f"{stem}/{i}"):
            _check_op(f"{stem}/{case['id']}", case, arrays, report, bound)
    if any(key.startswith("bn_") for key in arrays):
        with report.attempt(f"{stem}/bn"):
            _check_batch_norm(golden, arrays, report, bound)


def _check_op(name: str, case: Record, arrays: Record, report: Report, bound: float | None) -> None:
    if case["op"] not in OPERATIONS:
        case.plain()
        report.unchecked(name, f"unknown operation {case['op']!r}")
        return
    keys = [f"{case['id']}_y{suffix}" for suffix in ("", "_corner", "_end")]
    if not any(key in arrays for key in keys):
        case.plain()
        report.unchecked(name, "no recorded result")
        return
    y = apply_op(case)
    for key in keys[:1] if keys[0] in arrays else keys[1:]:  # the whole, or two parts of it
        if key not in arrays:
            report.unchecked(name, f"{key} is not recorded")
            continue
        expected, part = arrays[key], y
        rows, columns = expected.shape[1:3]
        if key.endswith("_corner"):
            part = y[:, :rows, :columns]
        elif key.endswith("_end"):
            part = y[:, -rows:, -columns:]
        suffix = key.removeprefix(f"{case['id']}_y")
        report.check(name, case["op"] + suffix, max_abs(part, expected), bound)


def _check_batch_norm(golden: Golden, arrays: Record, report: Report, bound: float | None) -> None:
    settings = golden.settings("batch_norm")
    x = torch.from_numpy(arrays["bn_x"]).permute(0, 3, 1, 2)
    norm = _layers.batch_norm(
        x.shape[1], momentum=settings.get("momentum", 0.9), eps=settings.get("eps", 1e-5)
    ).train()
    y = norm(x).detach().permute(0, 2, 3, 1)
    for what, ours in (
        ("y", y),
        ("moving_mean", norm.running_mean),
        ("moving_var", norm.running_var),
    ):
        with report.attempt("tf_ops/bn"):
            report.check("tf_ops/bn", what, max_abs(ours, arrays[f"bn_{what}"]), bound)


def check_two_d(golden: Golden, stem: str, report: Report) -> None:
    """Compare values and gradients on the grid, starts, minima and noise."""
    arrays, bound = golden.arrays(f"{stem}.npz"), golden.bound("two_d_rel")
    records = golden.json(f"{stem}.json")
    minima = records.get("minima", {})
    for name in [*records, *(minima.keys() - records.keys())]:
        if name in ("minima", "noise"):
            continue
        case = f"{stem}/{name}"
        if name not in TESTPROBLEMS:
            for known in (records, minima):
                if name in known:
                    known.get(name)
            report.unchecked(case, "unknown test problem")
            continue
        if name in records:
            with report.attempt(case):
                _check_function(name, records[name], arrays, report, bound)
        if name not in minima:
            report.unchecked(case, "minima are not recorded")
            continue
        with report.attempt(case):
            for u, v, value in minima[name]:
                net = TESTPROBLEMS[name](1).make_net().double()
                at = torch.tensor(u).double(), torch.tensor(v).double()
                ours = float(net.function(*at).detach())
                where = f"minimum at ({u:.3g}, {v:.3g})"
                report.check(case, where, abs(ours - value), bound)
    with report.attempt(f"{stem}/noise"):
        _check_noise(records["noise"], report, bound)


def _check_function(
    name: str, record: Record, arrays: Record, report: Report, bound: float | None
) -> None:
    case = f"two_d/{name}"
    problem = TESTPROBLEMS[name](batch_size=10_000)
    problem.set_up()
    net = problem.net
    start = [p.item() for p in net.parameters()]
    zeros = torch.zeros(1)
    net(zeros, zeros).sum().backward()
    at_start = [float(p.grad) for p in net.parameters()]
    x, y = problem.data.train.arrays
    losses = net(x, y).detach()
    net.zero_grad()
    loss = net.double()(x.double(), y.double()).mean()
    loss.backward()
    gradient = [float(p.grad) for p in net.parameters()]
    with torch.no_grad():
        value = net.function(*(torch.tensor(p).double() for p in start)).item()
    for key, what, ours in (
        ("f_start", "f(start)", value),
        ("grad_start", "gradient at start", at_start),
        ("first5_noisy_losses", "noisy losses", losses[:5]),
        ("train_loss_at_start_all10000", "train loss at start", loss.item()),
        ("train_grad_at_start_all10000", "train gradient at start", gradient),
    ):
        with report.attempt(case):
            report.check(case, what, max_rel(ours, record[key]), bound)
    with report.attempt(case):
        report.check(case, "start", max_abs(start, record["start"]), 0.0)
    with report.attempt(case):
        if arrays["grid_u"].ndim != 1 or arrays["grid_v"].ndim != 1:
            raise ValueError("grid_u and grid_v must have one axis")
        u, v = np.meshgrid(arrays["grid_u"], arrays["grid_v"], indexing="ij")
        u, v = (torch.from_numpy(g).requires_grad_() for g in (u, v))
        f = net.function(u, v)
        f.sum().backward()
        for key, ours in (("f", f.detach()), ("du", u.grad), ("dv", v.grad)):
            with report.attempt(case):
                expected = arrays[f"{name}_{key}"]
                floor = 1e-6 * float(np.abs(expected).max())
                report.check(case, f"grid {key}", max_rel(ours, expected, floor), bound)


def _check_noise(record: Record, report: Report, bound: float | None) -> None:
    # Exact float32 draws, and statistics in float64: of 10,000 numbers whose mean is 1/400 of their
    # magnitude, rounding moves a mean by 10,000 x 2^-53 x 400 = 5e-10, far below any bound.
    problem = TESTPROBLEMS["two_d_branin"](128)
    problem.set_up()
    for axis, values in zip("xy", problem.data.train.arrays, strict=True):
        values = values.double().numpy()
        for key, ours in (
            ("mean", values.mean()),
            ("std", values.std()),
            ("first5", values[:5]),
        ):
            with report.attempt("two_d/noise"):
                deviation = max_rel(ours, record[f"{axis}_{key}"])
                report.check("two_d/noise", f"{axis} {key}", deviation, bound)


#: Records of ``quadratic_deep.json`` by whose Hessian they were computed with; those of the others
#: are negative controls.
_OURS, _CONTROLS = "H_tf112", ("H_pt120", "H_tf112_second_instance")


def check_quadratic(golden: Golden, stem: str, report: Report) -> None:
    """Compare the Hessian, data, losses and gradients; refuse the negative controls."""
    arrays, bound = golden.arrays(f"{stem}.npz"), golden.bound("quadratic_rel")
    _check_hessian(golden, stem, report)
    problem = TESTPROBLEMS["quadratic_deep"](1000)
    problem.set_up()
    with report.attempt(stem):
        same = max_abs(problem.net.theta.detach(), arrays["theta0"]) == 0.0
        report.equal(stem, "theta0", same)
    for split in ("train", "test"):
        (x,) = getattr(problem.data, split).arrays
        losses = problem.net(x)
        problem.net.zero_grad()
        losses.mean().backward()
        total, gradient = float(x.double().sum()), problem.net.theta.grad[0]
        with report.attempt(stem):
            report.check(stem, f"{split} x", max_abs(x[:8], arrays[f"{split}_x_head"]), 0.0)
        with report.attempt(stem):
            report.check(stem, f"{split} x sum", max_rel(total, arrays[f"{split}_x_sum"]), bound)
        with report.attempt(stem):
            expected = arrays[f"{split}_losses_at_init"]
            report.check(stem, f"{split} losses", max_rel(losses.detach(), expected), bound)
        with report.attempt(stem):
            expected = arrays[f"grad_{split}_full_at_init"]
            deviation = max_abs(gradient, expected) / np.abs(expected).max()
            report.check(stem, f"{split} gradient", deviation, bound)
    if f"{stem}.json" in golden:
        _check_quadratic_summary(golden.json(f"{stem}.json"), stem, problem, report, bound)


def _check_hessian(golden: Golden, stem: str, report: Report) -> None:
    arrays, bound = golden.arrays(f"{stem}.npz"), golden.bound("quadratic_rel")
    ours = make_hessian()
    for second in (ours, make_hessian()):
        label = "hessian" if second is ours else "hessian of a second instance"
        with report.attempt(stem):
            report.check(stem, label, max_abs(second, arrays["hessian"]), bound)
    with report.attempt(stem):
        theirs = np.sort(arrays["eigenvalues"])
        report.check(stem, "eigenvalues", max_rel(np.linalg.eigvalsh(ours), theirs), bound)
    with report.attempt(stem):
        rotation = arrays["rotation"]
        product = rotation.T @ np.diag(arrays["eigenvalues"]) @ rotation
        report.check(stem, "hessian from its rotation", max_abs(ours, product), bound)
    for control in golden.meta.get("negative_controls", []):
        file, _, key = control.partition(":")
        if file != f"{stem}.npz" or key not in arrays:
            report.unchecked(f"{stem}/{control}", "no such negative control")
            continue
        with report.attempt(f"{stem}/{key}"):
            rows, columns = arrays[key].shape
            distance = max_abs(ours[:rows, :columns], arrays[key])
            refused = bound is not None and distance > bound
            detail = f"distance {distance:.3g}"
            report.equal(stem, f"negative control {key} is refused", refused, detail)


def _check_quadratic_summary(
    records: Record, stem: str, problem: TestProblem, report: Report, bound: float | None
) -> None:
    """Compare losses at the start and at the optimum; those of other Hessians must differ."""
    hessian = make_hessian()
    x = {name: getattr(problem.data, name).arrays[0].double().numpy() for name in ("train", "test")}

    def mean_loss(theta: np.ndarray, rows: np.ndarray) -> float:
        return float(np.einsum("bi,ij,bj->b", theta - rows, hessian, theta - rows).mean() / 2)

    ones = np.ones(hessian.shape[0])
    found: dict[str, dict[str, Any]] = {
        split: {
            "loss_at_init_all1000": mean_loss(ones, rows),
            "loss_at_init_first896": mean_loss(ones, rows[:896]),
            "min_over_theta_all1000": mean_loss(rows.mean(0), rows),
            "min_over_theta_first896": mean_loss(rows[:896].mean(0), rows[:896]),
            "first5": [mean_loss(ones, row[None]) for row in rows[:5]],
        }
        for split, rows in x.items()
    }
    optimum = mean_loss(x["train"].mean(0), x["test"][:896])
    own = {"trace": float(np.trace(hessian)), "train_optimum_evaluated_on_test_first896": optimum}
    for name in (_OURS, *_CONTROLS):
        if name not in records:
            report.unchecked(f"{stem}/{name}", "is not recorded")
            continue
        record = records[name]
        for split, values in found.items():
            for key, ours in values.items():
                where = f"{stem}/{name}/{split}"
                with report.attempt(where):
                    _compare(report, where, (key, ours), record[split], (name == _OURS, bound))
        if name == _OURS:
            for key, value in own.items():
                where = f"{stem}/{name}"
                with report.attempt(where):
                    _compare(report, where, (key, value), record, (True, bound))


def _compare(
    report: Report,
    case: str,
    ours: tuple[str, Any],
    record: Record,
    rule: tuple[bool, float | None],
) -> None:
    """Check that a value is the recorded one, or for a negative control that it is not."""
    (key, value), (same, bound) = ours, rule
    deviation = max_rel(value, record[key])
    if same or bound is None:
        report.check(case, key, deviation, bound)
    else:
        report.equal(case, f"{key} is refused", deviation > bound, f"distance {deviation:.3g}")


_DRAWS = {
    "trunc_normal": lambda t, s: _initialisers.truncated_normal_(t, s),
    "keras_glorot_normal": lambda t, _: _initialisers.glorot_normal_(t),
    "glorot_uniform": lambda t, _: _initialisers.glorot_uniform_(t),
    "get_variable_default": lambda t, _: _initialisers.glorot_uniform_(t),
    "tf_layers_default": lambda t, _: _initialisers.glorot_uniform_(t),
}


def check_initialisers(golden: Golden, stem: str, report: Report) -> None:
    """Compare mean, deviation and largest value of big draws, within five standard errors."""
    records = golden.json(f"{stem}.json")
    for name in records:
        with report.attempt(f"{stem}/{name}"):
            _check_initialiser(f"{stem}/{name}", name, records[name], report)


def _check_initialiser(case: str, name: str, record: Record, report: Report) -> None:
    kind = next((k for k in _DRAWS if name.startswith(k)), None)
    if kind is None:
        record.plain()
        report.unchecked(case, "unknown initialiser")
        return
    shape = record["shape"]
    # Convolution kernels are (kh, kw, in, out) in TensorFlow and (out, in, kh, kw) here.
    shape = [shape[3], shape[2], shape[0], shape[1]] if len(shape) == 4 else shape[::-1]
    tensor = torch.empty(shape)
    argument = float(name.rpartition("_")[2]) if kind == "trunc_normal" else 0.0
    state = torch.get_rng_state()
    torch.manual_seed(0)
    _DRAWS[kind](tensor, argument)
    torch.set_rng_state(state)
    error = 5 / np.sqrt(tensor.numel())  # of both samples, kurtosis below the normal's
    std, largest, mean = float(tensor.std()), float(tensor.abs().max()), float(tensor.mean())
    for key, what, ours in (("std", "std", std), ("max_abs", "max", largest)):
        with report.attempt(case):
            report.check(case, what, max_rel(ours, record[key]), error)
    with report.attempt(case):
        # two means, each with a standard error of std / sqrt(n)
        report.check(case, "mean", max_abs(mean, record["mean"]), math.sqrt(2) * error * std)
