"""Recorded scalars, position vectors and learning rates against ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_port.model.embedding import sinusoid_positions
from pytorch_port.model.losses import icl_scalars, label_sets
from pytorch_port.parity.golden import (
    CASE_ERRORS,
    Arrays,
    Golden,
    absolute,
    checked,
    list_unknown,
    relative,
    under,
)
from trainrig.optim.schedules import warmup_rsqrt
from trainrig.parity import Report

SETTINGS = {
    "mode",
    "seq_type",
    "w",
    "lr",
    "lc",
    "common",
    "hold",
    "rare",
    "num_classes",
    "ways",
    "concat",
    "scalars",
    "rare_classes",
    "common_classes",
}


def check_metrics(golden: Golden, report: Report) -> set[str]:
    """Check every case of ``metrics.json`` / ``metrics.npz``; return the files handled."""
    files = {name for name in ("metrics.json", "metrics.npz") if (golden.path / name).is_file()}
    if len(files) < 2:
        for name in files:
            report.unchecked(name, "metrics need both metrics.json and metrics.npz")
        return files
    try:
        arrays = golden.arrays("metrics.npz")
    except ValueError as error:
        report.equal("metrics.npz", "readable", False, str(error))
        return files
    cases = golden.json("metrics.json")
    used: set[str] = set()
    for name, case in cases.items():
        used |= {key for key in arrays if key.startswith(f"{name}/")}
        if not isinstance(case, Mapping):
            known = name in golden.meta.get("reference_bugs", ())
            why = "the reference itself fails here" if known else "no settings"
            report.unchecked(f"metrics/{name}", f"{why}: {str(case)[:60]}")
            continue
        try:
            used |= _check_case(golden, report, name, case, arrays)
        except CASE_ERRORS as error:
            report.equal(f"metrics/{name}", "runs", False, f"{type(error).__name__}: {error}")
    list_unknown(report, "metrics.npz", set(arrays) - used, "array")
    return files


def _input_names(name: str, case: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of the logits and targets a case uses (see the directory's README)."""
    seq_type = case["seq_type"]
    suffix = "_fewshot" if seq_type.startswith("fewshot") else ""
    if case.get("concat"):
        suffix = "_concat"
    labels = f"labels{suffix}"
    if "polysemy" in str(case.get("lr", "")) and seq_type.startswith("no_support"):
        labels = f"labels_polysemy_{'common' if seq_type.endswith('common') else 'rare'}"
    if "out_of_range" in name:
        labels = "labels_out_of_range"
    return f"logits{suffix}", labels


def _check_case(
    golden: Golden, report: Report, name: str, case: Mapping[str, Any], arrays: Arrays
) -> set[str]:
    """Compare all scalars of one case; return the names of the shared arrays it used."""
    label = f"metrics/{name}"
    unknown = set(case) - SETTINGS
    if unknown:
        list_unknown(report, label, unknown, "setting")
        return set()
    inputs = _input_names(name, case)
    missing = [key for key in inputs if key not in arrays]
    if missing:
        report.unchecked(label, f"metrics.npz has no {' or '.join(missing)}")
        return set()
    num_classes, n_common = case["num_classes"], case["common"]
    original = None
    if "rare_classes" in case and "common_classes" in case:
        original = (case["rare_classes"], case["common_classes"])
    sets = label_sets(
        num_classes,
        case["rare"] if "rare" in case else num_classes - n_common - case["hold"],
        n_common,
        ways=case.get("ways", 2),
        labeling_rare=case.get("lr", "ordered"),
        original_ids=original,
        defects="reference",  # recorded with the reference's empty polysemy range
    )
    ours = icl_scalars(
        golden.tensor(arrays[inputs[0]]),
        golden.tensor(arrays[inputs[1]]),
        sets,
        case["seq_type"],
        w_interim=case.get("w", 0.0),
        concatenate_labels=bool(case.get("concat", False)),
    )
    compare_scalars(golden, report, label, ours, case.get("scalars", {}), "metrics_abs")
    compare_scalars(golden, report, label, ours, under(arrays, f"{name}/"), "metrics_abs", " (npz)")
    return set(inputs)


def compare_scalars(
    golden: Golden,
    report: Report,
    case: str,
    ours: Mapping[str, Any],
    recorded: Mapping[str, Any],
    bound: str,
    where: str = "",
) -> None:
    """Compare scalars by name, as one row for the losses and one for the rest.

    A loss above 1 is judged relative to its size: float32 holds no more.
    """
    list_unknown(report, case, set(recorded) - set(ours), "scalar")
    shared = [name for name in recorded if name in ours]
    losses = {
        n: absolute(ours[n], recorded[n]) / max(1.0, abs(float(recorded[n])))
        for n in shared
        if n.startswith("loss")
    }
    others = {n: absolute(ours[n], recorded[n]) for n in shared if n not in losses}
    for what, deviations in (("losses", losses), ("scalars", others)):
        if deviations:
            worst = max(deviations, key=lambda n: deviations[n])
            detail = f"{len(deviations)} compared, worst {worst}"
            checked(report, case, what + where, deviations[worst], golden.bound(bound), detail)


def check_positions(golden: Golden, report: Report) -> set[str]:
    """Check every array (T, E) of ``positional_encodings.npz``; return the files handled."""
    name = "positional_encodings.npz"
    if not (golden.path / name).is_file():
        return set()
    try:
        arrays = golden.arrays(name)
    except ValueError as error:
        report.equal(name, "readable", False, str(error))
        return {name}
    for key, recorded in arrays.items():
        if recorded.ndim != 2:
            report.unchecked(f"positions/{key}", f"shape {recorded.shape} is not (T, E)")
            continue
        deviation = absolute(sinusoid_positions(*recorded.shape), recorded)
        checked(report, f"positions/{key}", "sinusoids", deviation, golden.bound("positional_abs"))
    return {name}


def check_schedules(golden: Golden, report: Report) -> set[str]:
    """Check every series of ``lr_schedule.npz`` against its settings in ``meta.json``."""
    name = "lr_schedule.npz"
    if not (golden.path / name).is_file():
        return set()
    try:
        arrays = golden.arrays(name)
        steps = arrays.pop("step")
    except (KeyError, ValueError) as error:
        report.equal(name, "readable", False, str(error))
        return {name}
    all_settings = golden.meta.get("lr_schedules", {})
    for key, recorded in arrays.items():
        settings = all_settings.get(key)
        if not isinstance(settings, Mapping) or set(settings) != {"max_lr", "warmup_steps"}:
            report.unchecked(f"lr/{key}", "meta.json gives no max_lr and warmup_steps alone")
            continue
        schedule = warmup_rsqrt(settings["max_lr"], settings["warmup_steps"])
        ours = [schedule(int(step)) for step in steps]
        deviation = relative(ours, recorded)
        checked(report, f"lr/{key}", "learning rates", deviation, golden.bound("lr_rel"))
    return {name}
