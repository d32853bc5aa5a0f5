"""Recorded models against ours: logits, loss, scalars, BatchNorm state, gradients, counts."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_port.data.label_sets import label_sets
from pytorch_port.model.embedding import InputEmbedder
from pytorch_port.model.jax_weights import as_haiku, load_jax_weights, parameter_map, state_map
from pytorch_port.model.sequence_models import SEQ_MODELS
from pytorch_port.parity.golden import (
    Arrays,
    Golden,
    absolute,
    as_array,
    list_unknown,
    never_nan,
    relative,
    under,
)
from pytorch_port.parity.initial import check_init_stats, check_shapes
from pytorch_port.parity.kinks import ExactGradients
from pytorch_port.parity.metrics import compare_scalars, list_missing
from pytorch_port.parity.subject import ModelCase
from pytorch_port.parity.traces import check_traces, trace_keys
from pytorch_port.train.losses import icl_scalars, make_targets
from trainrig.parity import Report

SETTINGS = {
    "embedding",
    "seq_model",
    "model",
    "n_params",
    "w_interim",
    "init_stats",
    "perturb",
    "shapes",
    "common",
    "hold",
}
#: Entries of models.json.
HEADER = {"models", "versions"}
ARRAYS = re.compile(
    r"(params|state\d+|grad_norm|scalars_train)/.+"
    r"|(loss|logits)_(train|eval_state\d+)"
    r"|examples|examples_uint8|examples_divisor|example_index|image_bank_uint8|labels|target"
)
PARTITION_SCALARS = ("from_common", "from_rare", "from_support_common", "from_support_rare")


def check_models(golden: Golden, report: Report) -> None:
    """Check every ``model_*.npz`` and every entry of ``models.json``."""
    files = {path.name.removesuffix(".npz") for path in golden.folder.glob("model_*.npz")}
    cases: Mapping[str, Any] = {}
    with report.attempt("models.json"):
        header = golden.json("models.json")
        list_unknown(report, "models.json", set(header) - HEADER, "entry")
        cases = dict(header.get("models", {}).items())  # of another form: an error here
    for stem in sorted(files | set(cases)):
        with report.attempt(stem):
            case = cases.get(stem)
            if not isinstance(case, Mapping):
                report.unchecked(stem, "models.json has no settings for it")
                continue
            if stem in files:
                _check_model(golden, report, stem, case, golden.arrays(f"{stem}.npz"))
            elif "shapes" not in case:
                report.unchecked(stem, "models.json lists it, but it has neither arrays nor shapes")
            else:
                golden.met.add(stem)
                list_unknown(report, stem, set(case) - SETTINGS, "setting")
            if "shapes" in case:
                check_shapes(report, stem, case)


def unknown_settings(case: Mapping[str, Any]) -> list[str]:
    """Return the settings of a model that the port has no place for."""
    known = inspect.signature(InputEmbedder.__init__).parameters
    unknown = [f"embedding/{key}" for key in case["embedding"] if key not in known]
    if case["seq_model"] not in SEQ_MODELS:
        return [*unknown, f"seq_model/{case['seq_model']}"]
    known = inspect.signature(SEQ_MODELS[case["seq_model"]].__init__).parameters
    return unknown + [f"model/{key}" for key in case["model"] if key not in known]


def _check_model(
    golden: Golden, report: Report, stem: str, case: Mapping[str, Any], arrays: Arrays
) -> None:
    known = trace_keys(arrays) | {key for key in arrays if ARRAYS.fullmatch(key)}
    list_unknown(report, stem, set(arrays) - known, "array")
    list_unknown(report, stem, set(case) - SETTINGS, "setting")
    perturb = case.get("perturb", 0.0)  # how far the recorded weights are from initial ones
    if not isinstance(perturb, int | float) or not math.isfinite(perturb):
        report.unchecked(stem, f"perturb {perturb!r} is not a number")
    subject = ModelCase(golden, stem, case, arrays)
    if "target" in arrays:
        with report.attempt(stem):
            target = make_targets(subject.labels, concatenate_labels=subject.concatenate)
            report.equal(stem, "target", absolute(target, arrays["target"]) == 0.0)
    unknown = unknown_settings(case)
    if unknown:  # it cannot be built as it was
        list_unknown(report, stem, unknown, "setting")
        report.unchecked(stem, "everything that is computed by the model")
        return
    if "init_stats" in case:
        with report.attempt(stem):
            check_init_stats(report, stem, case["init_stats"], subject.blank)
    model = subject.build()
    if "n_params" in case:
        ours = sum(p.numel() for p in model.parameters())
        report.equal(stem, "parameter count", ours == case["n_params"], f"{ours:,}")
    random_training, random_always = subject.random_parts()
    if random_training:
        report.unchecked(stem, "training mode: dropout draws its own random numbers")
    else:
        with report.attempt(stem):
            _check_training(subject, report, model)
        with report.attempt(stem):
            check_traces(subject, report)
    if random_always:
        report.unchecked(stem, "evaluation mode: dropout draws its own random numbers")
    else:
        with report.attempt(stem):
            _check_evaluation(subject, report, model)


def _check_training(subject: ModelCase, report: Report, model: nn.Module) -> None:
    """Check one training pass, its gradients, and the states after one and more passes."""
    golden, arrays, stem = subject.golden, subject.arrays, subject.stem
    model.train()
    logits = model(subject.examples, subject.labels)
    loss = subject.loss(logits, subject.labels)
    loss.backward()
    if "logits_train" in arrays:
        deviation = absolute(logits, arrays["logits_train"])
        report.check(stem, "logits train", deviation, golden.bound("logits_abs"))
    if "loss_train" in arrays:
        deviation = relative(loss, arrays["loss_train"])
        report.check(stem, "loss train", deviation, golden.bound("loss_rel"))
    for check in (
        partial(_check_scalars, subject, report, logits),
        partial(_check_gradients, subject, report, model),
        partial(_check_states, subject, report, model),
    ):
        with report.attempt(stem):
            check()


def _check_states(subject: ModelCase, report: Report, model: nn.Module) -> None:
    """Check the states after one and more training passes; one has been made."""
    golden, arrays, stem = subject.golden, subject.arrays, subject.stem
    last = max((int(m[1]) for k in arrays if (m := re.match(r"state(\d+)/", k))), default=0)
    for n_passes in range(1, last + 1):
        if n_passes > 1:
            with torch.no_grad():
                model(subject.examples, subject.labels)
        recorded = under(arrays, f"state{n_passes}/")
        if recorded:
            ours = as_haiku(state_map(model), dict(model.named_buffers()))
            list_unknown(report, f"{stem}/state{n_passes}", set(recorded) - set(ours), "array")
            missing = ", ".join(sorted(set(ours) - set(recorded)))
            if missing:
                report.unchecked(stem, f"state{n_passes}: {missing} not recorded")
            deviation = max(absolute(ours[n], v) for n, v in recorded.items() if n in ours)
            bound = golden.bound("bn_state_abs")
            report.check(stem, f"BatchNorm state {n_passes}", deviation, bound)


#: What is recorded of a gradient.
MEASURES = ("gradient norms", "gradient sums", "gradient maxima")


def _check_gradients(subject: ModelCase, report: Report, model: nn.Module) -> None:
    """Compare [L2 norm, sum, max abs] of every gradient but the declared noise.

    A sum whose terms cancel carries the rounding of its terms, so it is judged against the norm
    where that is larger. Where our float32 run leaves the bound, an activation may have rounded to
    the other side of its kink in one of the two. Then the record and our float32 run are each held
    against our float64 run with the kinks that explain them (``kinks``), by the same bound.
    """
    recorded = under(subject.arrays, "grad_norm/")
    if not recorded:
        return
    stem = subject.stem
    bound, floor = (subject.golden.bound(f"grad_norm_{kind}") for kind in ("rel", "abs"))
    entries = parameter_map(model)
    report.equal(stem, "gradient names", set(entries) == set(recorded))
    expected = _measured(subject, report, {n: recorded[n] for n in entries if n in recorded})
    zero = floor or 0.0 if bound is None else (floor or 0.0) / bound

    def measures(gradients: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        arrays = {name: as_array(g) for name, g in as_haiku(entries, gradients).items()}
        return {
            name: np.array([np.sqrt((a**2).sum()), a.sum(), np.abs(a).max(initial=0.0)])
            for name, a in arrays.items()
            if name in expected
        }

    def total(gradients: Mapping[str, Tensor], record: Mapping[str, np.ndarray]) -> float:
        return max((d for d, _ in _worst(measures(gradients), record, zero).values()), default=0.0)

    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad  # it takes no part in the loss
        for name, p in model.named_parameters()
    }
    ours = measures(gradients)
    worst = _worst(ours, expected, zero)
    if bound is None or all(deviation <= bound for deviation, _ in worst.values()):
        for what, (deviation, name) in worst.items():
            report.check(stem, what, deviation, bound, name)
        return
    exact = ExactGradients(subject.exact_pass)
    for who, record in (("", expected), (", ours in float32", ours)):
        closest, flipped = exact.closest(partial(total, record=record), bound)
        beyond = "".join(f"; beyond: {kink}" for kink in flipped)
        for what, (deviation, name) in _worst(measures(closest), record, zero).items():
            detail = f"{name} (in float64, {len(exact.kinks)} elements near a kink{beyond})"
            report.check(stem, what + who, deviation, bound, detail)


def _measured(
    subject: ModelCase, report: Report, recorded: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the recorded measures that can be compared; list the others."""
    found = {}
    for name, values in recorded.items():
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (len(MEASURES),):
            reason = f"grad_norm/{name}: shape {array.shape} is not that of norm, sum and maximum"
            report.unchecked(subject.stem, reason)
        elif not subject.skipped(name):
            found[name] = array
    return found


def _worst(
    ours: Mapping[str, np.ndarray], recorded: Mapping[str, np.ndarray], zero: float
) -> dict[str, tuple[float, str]]:
    """Return the largest relative deviation of each measure, and which parameter has it.

    ``zero`` is added to what a deviation is divided by.
    """
    worst = dict.fromkeys(MEASURES, (0.0, ""))
    for name, reference in recorded.items():
        norm, _, maximum = np.abs(reference)
        for i, (what, size) in enumerate(zip(MEASURES, (norm, norm, maximum), strict=True)):
            difference = abs(ours[name][i] - reference[i])
            if difference != 0.0:
                scale = max(size, abs(reference[i])) + zero
                deviation = never_nan(difference / scale if scale else math.inf)
                worst[what] = max(worst[what], (deviation, name))
    return worst


def _check_evaluation(subject: ModelCase, report: Report, model: nn.Module) -> None:
    """Check evaluation mode with each recorded state, and the query-only path."""
    golden, arrays, stem = subject.golden, subject.arrays, subject.stem
    model.eval()
    keys = (re.fullmatch(r"(logits|loss)_eval_state(\d+)", key) for key in arrays)
    for n_passes in sorted({int(m[2]) for m in keys if m}):
        state = under(arrays, f"state{n_passes}/")
        load_jax_weights(model, under(arrays, "params/"), state or None)
        with torch.no_grad():
            logits = model(subject.examples, subject.labels)
            query = model(subject.examples, subject.labels, query_only=True)
            loss = subject.loss(logits, subject.labels)
        name = f"eval_state{n_passes}"
        if f"logits_{name}" in arrays:
            recorded, bound = arrays[f"logits_{name}"], golden.bound("logits_abs")
            report.check(stem, f"logits {name}", absolute(logits, recorded), bound)
            deviation = absolute(query, recorded[:, -1:])
            report.check(stem, f"logits {name} query-only", deviation, bound)
        if f"loss_{name}" in arrays:
            deviation = relative(loss, arrays[f"loss_{name}"])
            report.check(stem, f"loss {name}", deviation, golden.bound("loss_rel"))


def _check_scalars(subject: ModelCase, report: Report, logits: Tensor) -> None:
    """Compare the 13 scalars of the training pass.

    Which classes are rare and which common is recorded only as ``common`` and ``hold``; without
    them, the four scalars that depend on it must fit *some* partition.
    """
    recorded = under(subject.arrays, "scalars_train/")
    if not recorded:
        return
    case, golden, stem = subject.case, subject.golden, subject.stem
    num_classes = case["model"]["num_classes"]
    target = make_targets(subject.labels, concatenate_labels=subject.concatenate)

    def scalars(n_rare: int, n_common: int) -> dict[str, Tensor]:
        sets = label_sets(num_classes, n_rare, n_common, ways=min(2, num_classes))
        return icl_scalars(
            logits,
            target,
            sets,
            "bursty",
            w_interim=subject.w_interim,
            concatenate_labels=subject.concatenate,
        )

    if "common" in case and "hold" in case:
        ours = scalars(num_classes - case["common"] - case["hold"], case["common"])
        compare_scalars(golden, report, stem, ours, recorded, "scalars_abs")
        list_missing(report, stem, recorded)
        return
    ours = scalars(num_classes, 0)
    fixed = {k: v for k, v in recorded.items() if k not in PARTITION_SCALARS}
    compare_scalars(golden, report, stem, ours, fixed, "scalars_abs")
    list_missing(report, stem, recorded)
    open_ones = {k: v for k, v in recorded.items() if k in PARTITION_SCALARS}
    predicted = logits.detach()[:, -1].argmax(-1).tolist()
    cuts = sorted({0, num_classes, *predicted, *(p + 1 for p in predicted)})
    deviation = min(
        max((absolute(o[name], value) for name, value in open_ones.items()), default=0.0)
        for rare in cuts
        for end in cuts
        if end >= rare
        for o in [scalars(rare, end - rare)]
    )
    detail = "some partition fits; the recorded one is not in models.json"
    bound = golden.bound("scalars_abs")
    report.check(stem, "scalars of rare and common", deviation, bound, detail)
