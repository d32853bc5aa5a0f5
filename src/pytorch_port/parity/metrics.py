"""Recorded scalars, position vectors and learning rates against ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_port.data.label_sets import label_sets
from pytorch_port.model.embedding import sinusoid_positions
from pytorch_port.parity.golden import (
    Arrays,
    Golden,
    absolute,
    list_unknown,
    relative,
    under,
)
from pytorch_port.train.losses import SCALARS, icl_scalars
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


def check_metrics(golden: Golden, report: Report) -> None:
    """Check every case of ``metrics.json`` / ``metrics.npz``."""
    files = [name for name in ("metrics.json", "metrics.npz") if name in golden]
    if len(files) < 2:
        for name in files:
            report.unchecked(name, "metrics need both metrics.json and metrics.npz")
        return
    arrays = golden.arrays("metrics.npz")
    cases = golden.json("metrics.json")
    used: set[str] = set()
    for name, case in cases.items():
        used |= {key for key in arrays if key.startswith(f"{name}/")}
        if not isinstance(case, Mapping):
            known = name in golden.names("reference_bugs")
            golden.met.add(name)
            why = "the reference itself fails here" if known else "no settings"
            report.unchecked(f"metrics/{name}", f"{why}: {str(case)[:60]}")
            continue
        with report.attempt(f"metrics/{name}"):
            used |= _check_case(golden, report, name, case, arrays)
    list_unknown(report, "metrics.npz", set(arrays) - used, "array")


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


def _contradictions(case: Mapping[str, Any]) -> list[str]:
    """Say what the settings tell of the case that its check takes from other settings."""
    seq_type, mode, found = case["seq_type"], case.get("mode"), []
    if mode not in (None, f"eval_{seq_type}", "train" if seq_type == "bursty" else None):
        found.append(f"mode {mode!r} is not that of seq_type {seq_type!r}, which was checked")
    labeling = case.get("lc", "ordered")
    if labeling not in ("ordered", case.get("lr")):
        found.append(f"lc {labeling!r}: common labels were checked as of labeling 'ordered'")
    return found


def _check_case(
    golden: Golden, report: Report, name: str, case: Mapping[str, Any], arrays: Arrays
) -> set[str]:
    """Compare all scalars of one case; return the names of the shared arrays it used."""
    label = f"metrics/{name}"
    list_unknown(report, label, set(case) - SETTINGS, "setting")
    for text in _contradictions(case):
        report.unchecked(label, text)
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
    places = {"": case.get("scalars", {}), " (npz)": under(arrays, f"{name}/")}
    for where, recorded in places.items():
        compare_scalars(golden, report, label, ours, recorded, "metrics_abs", where)
        if recorded:
            list_missing(report, label, recorded, where)
    if not any(places.values()):
        report.unchecked(label, "no scalars are recorded")
    return set(inputs)


def list_missing(report: Report, case: str, recorded: Mapping[str, Any], where: str = "") -> None:
    """List the scalars that a case does not record, though it records others."""
    missing = [name for name in SCALARS if name not in recorded]
    if missing:
        report.unchecked(case, f"scalars{where} not recorded: {', '.join(missing)}")


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
    for name in [name for name in shared if recorded[name] is None]:
        report.unchecked(case, f"{name}: no value is recorded")
        shared.remove(name)
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
            report.check(case, what + where, deviations[worst], golden.bound(bound), detail)


def check_positions(golden: Golden, report: Report) -> None:
    """Check every array (T, E) of ``positional_encodings.npz``."""
    for key, recorded in golden.arrays("positional_encodings.npz").items():
        case = f"positions/{key}"
        if recorded.ndim != 2 or recorded.shape[1] % 2:
            report.unchecked(case, f"shape {recorded.shape} is not (T, E) with an even E")
            continue
        with report.attempt(case):
            deviation = absolute(sinusoid_positions(*recorded.shape), recorded)
            report.check(case, "sinusoids", deviation, golden.bound("positional_abs"))


def check_schedules(golden: Golden, report: Report) -> None:
    """Check every series of ``lr_schedule.npz`` against its settings in ``meta.json``."""
    if "lr_schedule.npz" not in golden:
        golden.unneeded("lr_schedules")
        return
    all_settings = golden.meta.get("lr_schedules", {})
    arrays = golden.arrays("lr_schedule.npz")
    steps = arrays["step"]
    for key, recorded in arrays.items():
        if key == "step":
            continue
        settings = all_settings.get(key)
        if not isinstance(settings, Mapping) or set(settings) != {"max_lr", "warmup_steps"}:
            report.unchecked(f"lr/{key}", "meta.json gives no max_lr and warmup_steps alone")
            continue
        with report.attempt(f"lr/{key}"):
            schedule = warmup_rsqrt(settings["max_lr"], settings["warmup_steps"])
            ours = [schedule(int(step)) for step in steps]
            deviation = relative(ours, recorded)
            report.check(f"lr/{key}", "learning rates", deviation, golden.bound("lr_rel"))
