"""Recorded training runs of some steps against ours, from the same weights and batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_port.model.jax_weights import as_haiku, parameter_map, state_map
from pytorch_port.parity.golden import (
    Arrays,
    absolute,
    as_array,
    list_unknown,
    never_nan,
    relative,
    under,
)
from pytorch_port.parity.subject import ModelCase, read_examples
from trainrig.metrics import accuracy, grad_l2, l2_norm, weight_l2_all
from trainrig.optim import make_optimizer
from trainrig.optim.schedules import warmup_rsqrt
from trainrig.parity import Report

BATCHES = "train_batches/"
#: Substrings that the public sweep drops from its weight_l2, anywhere in the lower-case path.
PUBLIC_FILTER = ("bias", "b", "layernorm", "layer_norm", "ln", "scale", "gain", "norm")
#: Series → kind of bound in ``meta.json``'s ``trace``; the rest are judged absolutely.
BOUNDS = {
    "loss": "loss_rel",
    "weight_l2_all": "weight_l2_rel",
    "weight_l2_matrices": "weight_l2_rel",
    "weight_l2_publicfilter": "weight_l2_rel",
    "grad_l2": "grad_rel",
}
SERIES = (*BOUNDS, "accuracy_query", "lr")
#: Final tensors → kind of bound.
FINAL = {"final_norm": "weight_l2_rel", "final_state_norm": "loss_rel"}
SETTINGS = {
    "adam": {"betas", "eps"},
    "adamw": {"betas", "eps", "weight_decay"},
    "sgd": {"momentum", "nesterov"},
}


def trace_tags(arrays: Arrays) -> list[str]:
    """Return the tags of the recorded runs: whatever holds a series of losses."""
    return sorted(
        key.removesuffix("/loss")
        for key, values in arrays.items()
        if key.endswith("/loss") and values.ndim == 1
    )


def trace_keys(arrays: Arrays) -> set[str]:
    """Return the arrays that belong to runs and their batches (unknown ones are listed there)."""
    prefixes = (BATCHES, *(f"{tag}/" for tag in trace_tags(arrays)))
    return {key for key in arrays if key.startswith(prefixes)}


def check_traces(subject: ModelCase, report: Report) -> None:
    """Train along every recorded run of a model case and compare after each step."""
    all_settings = subject.golden.meta.get("traces", {})
    for tag in trace_tags(subject.arrays):
        case = f"{subject.stem}/{tag}"
        with report.attempt(case):
            settings = all_settings.get(tag)
            problem = _problem(settings)
            if problem:
                report.unchecked(case, problem)
            elif f"{BATCHES}labels" not in subject.arrays:
                report.unchecked(case, "no train_batches/labels to train on")
            else:
                _check_trace(subject, report, tag, settings)


def _problem(settings: Any) -> str:
    """Say why a run's settings cannot be followed; empty if they can."""
    if not isinstance(settings, Mapping):
        return "meta.json gives no settings for this run"
    name = settings.get("optimizer")
    if name not in SETTINGS:
        return f"optimizer {name!r} has no proven counterpart"
    missing = {"max_lr", "warmup_steps"} - set(settings)
    missing |= {"weight_decay"} - set(settings) if name == "adamw" else set()
    if missing:
        return f"meta.json does not give {', '.join(sorted(missing))}"
    idle = {"weight_decay"} if not settings.get("weight_decay") else set()
    unknown = set(settings) - SETTINGS[name] - {"optimizer", "max_lr", "warmup_steps"} - idle
    return f"no check knows setting {', '.join(sorted(unknown))}" if unknown else ""


def _optimizer(settings: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    kwargs = {key: settings[key] for key in SETTINGS[settings["optimizer"]] if key in settings}
    if "betas" in kwargs:
        kwargs["betas"] = tuple(kwargs["betas"])
    return make_optimizer(settings["optimizer"], model.parameters(), lr=0.0, **kwargs)


@dataclass(frozen=True)
class Run:
    """Our run along a recorded one: series by name, final tensors under Haiku names."""

    series: dict[str, list[float]]
    final: dict[str, dict[str, Tensor]]


def _check_trace(subject: ModelCase, report: Report, tag: str, settings: Mapping[str, Any]) -> None:
    """Compare series, then final tensors; what float32 rounding spoils is judged in float64.

    Adam divides by the gradient's own size, so rounding noise in a gradient that is almost zero
    becomes a full step, and runs drift apart though their formulas agree. Where our float32 run
    leaves a bound, the same program runs in float64, free of such noise on our side, and is held
    against the same bound; the row says so.
    """
    golden, case = subject.golden, f"{subject.stem}/{tag}"
    recorded = under(subject.arrays, f"{tag}/")
    kind = "trace_resnet" if subject.is_resnet else "trace"
    runs = _Runs(subject, settings, len(recorded["loss"]))
    compare: Callable[[Any, Any], float]
    for name in SERIES:
        if name not in recorded:
            continue
        if name in BOUNDS:
            compare, bound = relative, golden.bound(kind, BOUNDS[name])
        else:
            compare = relative if name == "lr" else absolute
            bound = golden.bound("lr_rel" if name == "lr" else "scalars_abs")
        deviation, detail = compare(runs.single.series[name], recorded[name]), ""
        if bound is not None and not deviation <= bound:
            detail = f"in float64; float32 rounding gave {deviation:.3g}"
            deviation = compare(runs.double.series[name], recorded[name])
        report.check(case, name, deviation, bound, detail)
    for prefix, key in FINAL.items():
        expected = under(recorded, f"{prefix}/")
        if expected:
            _check_final(subject, report, case, runs, prefix, expected, golden.bound(kind, key))
    known = {k for k in recorded if k in SERIES or k.split("/")[0] in FINAL}
    list_unknown(report, case, set(recorded) - known, "array")


class _Runs:
    """Our run in float32 and, made only when asked for, in float64."""

    def __init__(self, subject: ModelCase, settings: Mapping[str, Any], n_steps: int) -> None:
        self._arguments = (subject, settings, n_steps)

    @cached_property
    def single(self) -> Run:
        return _train(*self._arguments, torch.float32)

    @cached_property
    def double(self) -> Run:
        return _train(*self._arguments, torch.float64)


def _train(
    subject: ModelCase, settings: Mapping[str, Any], n_steps: int, dtype: torch.dtype
) -> Run:
    """Train on the recorded batches from the recorded weights."""
    examples = read_examples(subject.golden, subject.stem, subject.arrays, BATCHES)
    if examples.is_floating_point():
        examples = examples.to(dtype)
    labels = subject.golden.tensor(subject.arrays[f"{BATCHES}labels"])
    model = subject.build().to(dtype).train()
    schedule = warmup_rsqrt(settings["max_lr"], settings["warmup_steps"])
    optimizer = _optimizer(settings, model)
    series: dict[str, list[float]] = {name: [] for name in SERIES}
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        optimizer.zero_grad(set_to_none=True)
        logits = model(examples[step], labels[step])
        loss = subject.loss(logits, labels[step])
        loss.backward()
        optimizer.step()
        values = {
            "loss": loss,
            "accuracy_query": accuracy(logits[:, -1], labels[step][:, -1]),
            "grad_l2": grad_l2(model),
            "weight_l2_all": weight_l2_all(model),
            **filtered_norms(model),
        }
        series["lr"].append(schedule(step))
        for name, value in values.items():
            series[name].append(value.item())
    final = {
        "final_norm": as_haiku(parameter_map(model), dict(model.named_parameters())),
        "final_state_norm": as_haiku(state_map(model), dict(model.named_buffers())),
    }
    return Run(series, final)


def filtered_norms(model: nn.Module) -> dict[str, Tensor]:
    """Return the norms over matrices (two or more axes longer than 1) and the public sweep's.

    The public filter works on Haiku paths and drops whatever contains the letter b.
    """
    haiku = as_haiku(parameter_map(model), dict(model.named_parameters()))
    return {
        "weight_l2_matrices": l2_norm(
            tensor for tensor in haiku.values() if sum(size > 1 for size in tensor.shape) > 1
        ),
        "weight_l2_publicfilter": l2_norm(
            tensor
            for name, tensor in haiku.items()
            if not any(part in name.lower() for part in PUBLIC_FILTER)
        ),
    }


def _check_final(
    subject: ModelCase,
    report: Report,
    case: str,
    runs: _Runs,
    prefix: str,
    expected: Mapping[str, np.ndarray],
    bound: float | None,
) -> None:
    """Compare [norm, sum] of the final tensors, a sum against the largest its norm allows.

    ``meta.json`` bounds the series only. Single tensors drift further; where ours leave the
    series' bound, the recorded ones may be as far from our float64 run as four times our own
    float32 run is.
    """
    list_unknown(report, case, set(expected) - set(runs.single.final[prefix]), "final array")
    names = [
        n for n in sorted(expected) if n in runs.single.final[prefix] and not subject.skipped(n)
    ]
    recorded = {n: np.asarray(expected[n], dtype=np.float64) for n in names}
    ours = _norms_and_sums(runs.single.final[prefix], names)
    sizes = {n: runs.single.final[prefix][n].numel() for n in names}
    for i, what in enumerate(("norms", "sums")):
        deviation, name = _worst(ours, recorded, sizes, i)
        limit, detail = bound, name
        if bound is not None and not deviation <= bound:
            exact = _norms_and_sums(runs.double.final[prefix], names)
            noise, _ = _worst(ours, exact, sizes, i)
            limit = max(bound, 4.0 * noise)
            deviation, name = _worst(exact, recorded, sizes, i)
            detail = f"{name} (in float64, bound 4x our float32 rounding)"
        report.check(case, f"{prefix.replace('_', ' ')}: {what}", deviation, limit, detail)


def _norms_and_sums(tensors: Mapping[str, Tensor], names: list[str]) -> dict[str, np.ndarray]:
    arrays = {name: as_array(tensors[name]) for name in names}
    return {n: np.array([np.sqrt((a**2).sum()), a.sum()]) for n, a in arrays.items()}


def _worst(
    ours: Mapping[str, np.ndarray],
    recorded: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    i: int,
) -> tuple[float, str]:
    """Return the largest relative difference of norms (i = 0) or sums (i = 1), and where."""
    worst = (0.0, "")
    for name, expected in recorded.items():
        scale = expected[0] * (np.sqrt(sizes[name]) if i else 1.0)
        difference = abs(float(ours[name][i] - expected[i]))
        if difference:
            worst = max(worst, (never_nan(difference / scale if scale else np.inf), name))
    return worst
