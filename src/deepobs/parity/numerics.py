"""TensorFlow operations, two-dimensional functions, the quadratic's Hessian, initialisers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs, max_rel
from deepobs.pytorch import tf_ops
from deepobs.pytorch.testproblems import TESTPROBLEMS, _initialisers, _layers
from deepobs.pytorch.testproblems._quadratic import make_hessian
from trainrig.parity import Report


def _normal(seed: int, shape: list[int]) -> torch.Tensor:
    z = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(z)


def apply_op(case: dict[str, Any]) -> np.ndarray:
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
    return y.permute(0, 2, 3, 1).numpy()


def check_tf_ops(golden: Golden, stem: str, report: Report) -> None:
    """Compare each recorded operation, and one step of batch normalisation."""
    arrays, bound = golden.arrays(stem), golden.bound("tf_ops_abs")
    known = {"conv2d", "conv2d_transpose", "max_pool", "avg_pool", "resize_bilinear_legacy"}
    for case in golden.json(stem) or []:
        name = f"{stem}/{case['id']}"
        if case["op"] not in known:
            report.unchecked(name, f"unknown operation {case['op']!r}")
            continue
        y = apply_op(case)
        found = False
        for suffix, part in (("", y), ("_corner", None), ("_end", None)):
            expected = arrays.get(f"{case['id']}_y{suffix}")
            if expected is None:
                continue
            rows, columns = expected.shape[1:3]
            if suffix == "_corner":
                part = y[:, :rows, :columns]
            elif suffix == "_end":
                part = y[:, -rows:, -columns:]
            report.check(name, case["op"] + suffix, max_abs(part, expected), bound)
            found = True
        if not found:
            report.unchecked(name, "no recorded result")
    if "bn_x" in arrays:
        _check_batch_norm(golden, arrays, report, bound)


def _check_batch_norm(
    golden: Golden, arrays: dict[str, np.ndarray], report: Report, bound: float
) -> None:
    settings = golden.meta.get("batch_norm", {})
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
        report.check("tf_ops/bn", what, max_abs(ours, arrays[f"bn_{what}"]), bound)


def check_two_d(golden: Golden, stem: str, report: Report) -> None:
    """Compare values and gradients on the grid, starts, minima and noise."""
    arrays, bound = golden.arrays(stem), golden.bound("two_d_rel")
    records = golden.json(stem) or {}
    for name, record in records.items():
        if name in ("minima", "noise"):
            continue
        if name not in TESTPROBLEMS:
            report.unchecked(f"{stem}/{name}", "unknown test problem")
            continue
        _check_function(name, record, arrays, report, bound)
        for u, v, value in records.get("minima", {}).get(name, []):
            net = TESTPROBLEMS[name](1).make_net().double()
            ours = float(net.function(torch.tensor(u).double(), torch.tensor(v).double()).detach())
            report.check(
                f"{stem}/{name}", f"minimum at ({u:.3g}, {v:.3g})", abs(ours - value), 1e-6
            )
    if "noise" in records:
        _check_noise(records["noise"], report, bound)


def _check_function(
    name: str, record: dict[str, Any], arrays: dict[str, np.ndarray], report: Report, bound: float
) -> None:
    case = f"two_d/{name}"
    problem = TESTPROBLEMS[name](batch_size=10_000)
    problem.set_up()
    net = problem.net
    start = [p.item() for p in net.parameters()]
    report.check(case, "start", max_abs(start, record["start"]), 0.0)
    zeros = torch.zeros(1)
    net(zeros, zeros).sum().backward()
    gradient = [float(p.grad) for p in net.parameters()]
    report.check(case, "f(start)", max_rel(net(zeros, zeros).item(), record["f_start"]), bound)
    report.check(case, "gradient at start", max_rel(gradient, record["grad_start"]), bound)
    x, y = problem.data.train.arrays
    losses = net(x, y)
    first = record["first5_noisy_losses"]
    report.check(case, "noisy losses", max_rel(losses[: len(first)].detach(), first), bound)
    net.zero_grad()
    loss = net.double()(x.double(), y.double()).mean()
    loss.backward()
    gradient = [float(p.grad) for p in net.parameters()]
    expected = record["train_loss_at_start_all10000"]
    report.check(case, "train loss at start", max_rel(loss.item(), expected), bound)
    expected = record["train_grad_at_start_all10000"]
    report.check(case, "train gradient at start", max_rel(gradient, expected), bound)
    if f"{name}_f" not in arrays:
        return
    u, v = np.meshgrid(arrays["grid_u"], arrays["grid_v"], indexing="ij")
    u, v = (torch.from_numpy(g).requires_grad_() for g in (u, v))
    f = net.function(u, v)
    f.sum().backward()
    for key, ours in (("f", f.detach()), ("du", u.grad), ("dv", v.grad)):
        expected = arrays[f"{name}_{key}"]
        floor = 1e-6 * float(np.abs(expected).max())
        report.check(case, f"grid {key}", max_rel(ours, expected, floor), bound)


def _check_noise(record: dict[str, Any], report: Report, bound: float) -> None:
    problem = TESTPROBLEMS["two_d_branin"](128)
    problem.set_up()
    for axis, values in zip("xy", problem.data.train.arrays, strict=True):
        values = values.double().numpy()
        for key, ours in (
            ("mean", values.mean()),
            ("std", values.std()),
            ("first5", values[:5]),
        ):
            if f"{axis}_{key}" in record:
                deviation = max_rel(ours, record[f"{axis}_{key}"])
                report.check("two_d/noise", f"{axis} {key}", deviation, max(bound, 1e-5))


def check_quadratic(golden: Golden, stem: str, report: Report) -> None:
    """Compare the Hessian, data, losses and gradients; refuse the negative controls."""
    arrays, bound = golden.arrays(stem), golden.bound("quadratic_rel")
    ours = make_hessian()
    for second in (ours, make_hessian()):
        label = "hessian" if second is ours else "hessian of a second instance"
        report.check(stem, label, max_abs(second, arrays["hessian"]), bound)
    eigenvalues = np.linalg.eigvalsh(ours)
    report.check(stem, "eigenvalues", max_rel(eigenvalues, np.sort(arrays["eigenvalues"])), bound)
    for control in golden.meta.get("negative_controls", []):
        file, _, key = control.partition(":")
        if file == f"{stem}.npz" and key in arrays:
            rows, columns = arrays[key].shape
            distance = max_abs(ours[:rows, :columns], arrays[key])
            detail = f"distance {distance:.3g}"
            report.equal(stem, f"negative control {key} is refused", distance > bound, detail)
    problem = TESTPROBLEMS["quadratic_deep"](1000)
    problem.set_up()
    report.equal(stem, "theta0", max_abs(problem.net.theta.detach(), arrays["theta0"]) == 0.0)
    for split in ("train", "test"):
        (x,) = getattr(problem.data, split).arrays
        report.check(stem, f"{split} x", max_abs(x[:8], arrays[f"{split}_x_head"]), 0.0)
        total = float(x.double().sum())
        report.check(stem, f"{split} x sum", max_rel(total, arrays[f"{split}_x_sum"]), bound)
        losses = problem.net(x)
        expected = arrays[f"{split}_losses_at_init"]
        report.check(stem, f"{split} losses", max_rel(losses.detach(), expected), bound)
        problem.net.zero_grad()
        losses.mean().backward()
        expected = arrays[f"grad_{split}_full_at_init"]
        gradient = problem.net.theta.grad[0]
        deviation = max_abs(gradient, expected) / np.abs(expected).max()
        report.check(stem, f"{split} gradient", deviation, bound)


_DRAWS = {
    "trunc_normal": lambda t, s: _initialisers.truncated_normal_(t, s),
    "keras_glorot_normal": lambda t, _: _initialisers.glorot_normal_(t),
    "glorot_uniform": lambda t, _: _initialisers.glorot_uniform_(t),
    "get_variable_default": lambda t, _: _initialisers.glorot_uniform_(t),
    "tf_layers_default": lambda t, _: _initialisers.glorot_uniform_(t),
}


def check_initialisers(golden: Golden, stem: str, report: Report) -> None:
    """Compare deviation and largest value of big draws, within five standard errors."""
    for name, record in golden.json(stem).items():
        kind = next((k for k in _DRAWS if name.startswith(k)), None)
        if kind is None:
            report.unchecked(f"{stem}/{name}", "unknown initialiser")
            continue
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
        std, largest = float(tensor.std()), float(tensor.abs().max())
        report.check(f"{stem}/{name}", "std", max_rel(std, record["std"]), error)
        report.check(f"{stem}/{name}", "max", max_rel(largest, record["max_abs"]), error)
