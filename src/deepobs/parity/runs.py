"""Whole runs against recorded ones: trajectories, result files, folder names, published figures."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs, max_rel
from deepobs.pytorch import config
from deepobs.pytorch.datasets.generated import generated_data
from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runners.settings import float2str, learning_rates, make_run_name, result_name
from deepobs.pytorch.testproblems import TESTPROBLEMS
from trainrig.files import scratch_folder
from trainrig.parity import Record, Report

DATA_FREE = ("quadratic", "two_d")
#: TensorFlow optimizer → torch class and names of its hyperparameters.
OPTIMIZERS = {
    "GradientDescentOptimizer": (torch.optim.SGD, {}),
    "MomentumOptimizer": (torch.optim.SGD, {"momentum": "momentum", "use_nesterov": "nesterov"}),
    "AdamOptimizer": (torch.optim.Adam, {"epsilon": "eps"}),
}
#: Arguments that the name of a run's folder is made of, in the order of its recorded examples.
NAME_PARTS = (
    "weight_decay",
    "batch_size",
    "num_epochs",
    "learning_rate",
    "lr_sched_epochs",
    "lr_sched_factors",
    "random_seed",
    "hyperparams",
)
CURVES = ("train_losses", "test_losses", "minibatch_train_losses")


def check_runs(golden: Golden, stem: str, report: Report) -> None:
    """Repeat every recorded run that can be repeated, and compare formats everywhere."""
    settings, records = golden.settings("runner"), golden.json(f"{stem}.json")
    format_only, listed = settings.get("format_only", []), settings.get("value_cases")
    no_runs = settings.get("not_runs", [])
    for name in dict.fromkeys([*format_only, *no_runs, *_listed(listed)]):
        if name not in records:
            report.unchecked(f"{stem}/{name}", "named in meta.json, is not recorded")
    for name in records:
        case = f"{stem}/{name}"
        with report.attempt(case):
            record = records[name]
            if name in ("float2str", "make_run_name_examples"):
                for text in record:
                    ours = float2str(float(text)) if name == "float2str" else _name_of(text)
                    report.equal(case, text, ours == record[text], ours)
            elif not isinstance(record, Record) or "output" not in record:
                _set_aside(report, case, record, "no recorded output")
            elif record["output"]["testproblem"] not in TESTPROBLEMS:
                reason = f"unknown test problem {record['output']['testproblem']!r}"
                _set_aside(report, case, record, reason)
            else:
                values = name not in format_only and (
                    not isinstance(listed, list) or name in listed
                )
                _check_run(golden, case, record, report, values)


def _listed(value: Any) -> list[str]:
    """Return the cases that a setting lists; it may be a sentence instead."""
    return value if isinstance(value, list) else []


def _set_aside(report: Report, case: str, record: Any, reason: str) -> None:
    """List a whole record as UNCHECKED, in one line."""
    if isinstance(record, Record):
        record.plain()
    report.unchecked(case, reason)


def _name_of(arguments: str) -> str:
    """Return the folder's name for arguments written as a JSON list."""
    weight_decay, batch_size, num_epochs, lr, epochs, factors, _, hyperparams = json.loads(
        arguments
    )
    schedule = learning_rates(lr, epochs, factors)
    return make_run_name(weight_decay, batch_size, num_epochs, hyperparams, schedule)


def _check_names(case: str, record: Record, report: Report) -> None:
    """Compare the names of folder and file, and whether there are accuracies."""
    expected = record["output"]
    arguments = [_plain(expected[key]) for key in NAME_PARTS]
    name = _name_of(json.dumps(arguments))
    folder = f"{expected['testproblem']}/{expected['optimizer']}/{name}"
    with report.attempt(case):
        report.equal(case, "run folder", folder == record["run_folder"], folder)
    with report.attempt(case):
        pattern = re.sub(
            r"(YYYY|MM|DD|hh|mm|ss)",
            lambda m: r"\d" * len(m[0]),
            re.escape(record["file_name_pattern"]).replace(r"\-", "-"),
        )
        name = result_name(expected["random_seed"])
        report.equal(case, "file name", re.fullmatch(pattern, name) is not None, name)
    has_accuracy = TESTPROBLEMS[expected["testproblem"]].has_accuracy
    report.equal(case, "accuracy keys", ("test_accuracies" in expected) == has_accuracy)


def _plain(value: Any) -> Any:
    return value.plain() if isinstance(value, Record) else value


def _check_run(golden: Golden, case: str, record: Record, report: Report, values: bool) -> None:
    expected = record["output"]
    with report.attempt(case):
        _check_names(case, record, report)
    if expected["optimizer"] not in OPTIMIZERS:
        _set_aside(report, case, record, f"no torch counterpart of {expected['optimizer']!r}")
        return
    if not expected["testproblem"].startswith(DATA_FREE):
        _check_format(case, expected, report)
        _set_aside_curves(case, record, report, "the run's data are not in the directory")
        return
    ours, console = repeat_run(expected.plain())
    _check_arguments(case, expected, ours, report)
    with report.attempt(case):
        nulls = any(value is None for key in CURVES for value in ours[key])
        report.equal(case, "non-finite values", nulls == record["has_nan_literal"])
    size = 1000 if expected["testproblem"] == "quadratic_deep" else 10_000
    if not values or expected["batch_size"] != size:
        reason = "minibatches are shuffled, the recorded order is unknown"
        _set_aside_curves(case, record, report, reason)
        return
    for key in CURVES:
        with report.attempt(case):
            deviation, bound = _deviation(golden, expected, ours[key], expected[key])
            report.check(case, key, deviation, bound)
    with report.attempt(case):
        report.equal(case, "console", _same_lines(console, record["stdout_head"]))


def _set_aside_curves(case: str, record: Record, report: Report, reason: str) -> None:
    """List the values of a run as UNCHECKED, whose format alone was compared."""
    report.unchecked(case, f"values: {reason}")
    for key in ("has_nan_literal", "stdout_head"):
        record.get(key)


def _check_arguments(
    case: str, expected: Record, ours: dict[str, Any], report: Report, first: int = 0
) -> None:
    """Compare a result file's keys, the lengths of its lists, and its arguments.

    Args:
        case: in the report.
        expected: the recorded file.
        ours: the file of the run repeated.
        report: gets the rows.
        first: how many values of each curve the data do not decide, to be compared as well.
    """
    missing, extra = expected.keys() - ours.keys(), _curves(ours) - _curves(expected)
    detail = ", ".join(sorted(missing | extra))
    report.equal(case, "keys", not missing and not extra, detail)
    for key in sorted(_curves(expected) - missing):
        # how often a minibatch's loss is logged depends on the size of the set
        if key != "minibatch_train_losses" or expected["testproblem"].startswith(DATA_FREE):
            lengths = (len(ours[key]), len(expected[key]))
            report.equal(case, f"length of {key}", lengths[0] == lengths[1], str(lengths))
    for key in sorted(expected.keys() - _curves(expected) - {"optimizer"}):
        report.equal(case, key, ours.get(key) == expected[key])
    for key in CURVES if first else ():
        deviation = max_rel(ours[key][:first], expected[key][:first])
        report.check(case, f"first of {key}", deviation, 1e-6)


def _curves(record: Mapping[str, Any]) -> set[str]:
    return {key for key in record if key.endswith(("losses", "accuracies"))}


def _check_format(case: str, expected: Record, report: Report) -> None:
    """Repeat a run on generated data: keys, arguments and lengths do not depend on the data.

    Nor do the first losses of a logistic regression, whose weights start at zero.
    """
    with generated_data(examples=3 * expected["batch_size"]):
        ours, _ = repeat_run(expected.plain())
    first = 1 if expected["testproblem"].endswith("logreg") else 0
    _check_arguments(case, expected, ours, report, first)


def repeat_run(expected: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Run what a recorded result describes; return the result file's content and the console."""
    optimizer_class, names = OPTIMIZERS[expected["optimizer"]]
    hyperparams = dict(expected["hyperparams"])
    arguments = {"lr": expected["learning_rate"]}
    if "beta1" in hyperparams:
        arguments["betas"] = (hyperparams["beta1"], hyperparams["beta2"])
    arguments |= {names[key]: value for key, value in hyperparams.items() if key in names}
    chosen = {**hyperparams, "lr": expected["learning_rate"]}
    # The folder and the file keep TensorFlow's names; the factory translates.
    runner = StandardRunner(
        lambda parameters, **_: optimizer_class(parameters, **arguments),
        {key: {"type": type(value)} for key, value in chosen.items()},
        optimizer_name=expected["optimizer"],
    )
    console = io.StringIO()
    state, device = torch.get_rng_state(), config._settings.get("device")
    config.set_default_device("cpu")
    try:
        with scratch_folder() as folder, contextlib.redirect_stdout(console):
            runner.run(
                expected["testproblem"],
                chosen,
                batch_size=expected["batch_size"],
                num_epochs=expected["num_epochs"],
                random_seed=expected["random_seed"],
                output_dir=folder,
                weight_decay=expected["weight_decay"],
                train_log_interval=expected["train_log_interval"],
                on_divergence="continue",
                lr_sched_epochs=expected["lr_sched_epochs"],
                lr_sched_factors=expected["lr_sched_factors"],
            )
            (file,) = folder.rglob("random_seed__*.json")
            output = json.loads(file.read_text(encoding="utf-8"))
    finally:
        torch.set_rng_state(state)
        config._settings.pop("device", None)
        if device is not None:
            config._settings["device"] = device
    return output, console.getvalue().splitlines()


def _deviation(
    golden: Golden, expected: Record, ours: list[float], theirs: list[float]
) -> tuple[float, float | None]:
    """Return a curve's deviation and its bound.

    The Adam bound is the quadratic's: on the two-dimensional problems TensorFlow's own float32 mean
    over 10,000 noisy losses is off by up to 2e-5 (recorded first losses against exact ones).
    """
    if expected["testproblem"] != "quadratic_deep":
        return max_rel(ours, theirs), golden.bound("runner", "default_rel")
    if "Adam" in expected["optimizer"]:
        return max_rel(ours, theirs), golden.bound("runner", "adam_rel")
    return max_abs(ours, theirs), golden.bound("runner", "quadratic_abs")


def _same_lines(ours: list[str], theirs: list[str]) -> bool:
    """Compare texts exactly and the numbers in them to five digits."""
    number = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")
    head = ours[: len(theirs)]
    if [number.sub("#", line) for line in head] != [number.sub("#", line) for line in theirs]:
        return False
    pairs = zip(number.findall("\n".join(head)), number.findall("\n".join(theirs)), strict=True)
    return all(np.isclose(float(a), float(b), rtol=2e-5, atol=1e-6) for a, b in pairs)


def check_baselines(golden: Golden, stem: str, report: Report) -> None:
    """Compare the published statistics or curves with those inside the package."""
    from deepobs.analyzer.baselines import load_baselines

    published = load_baselines()
    if f"{stem}.json" in golden:
        records = golden.json(f"{stem}.json")
        for key, what, ours in (
            ("convergence_performance", "convergence thresholds", published.thresholds),
            ("rows", "statistics", published.rows),
        ):
            with report.attempt(stem):
                report.equal(stem, what, _everything(records[key]) == ours)
    curves = golden.arrays(f"{stem}.npz")
    for key in curves:
        with report.attempt(stem):
            curve = published.curve(key)
            deviation = float("nan") if curve is None else max_abs(curve, curves[key])
            report.check(stem, key, deviation, 0.0)
    if curves:
        missing = sorted(published.curves.keys() - curves.keys())
        for key in missing:
            report.unchecked(stem, f"{key} is not recorded")


def _everything(value: Any) -> Any:
    """Return a recorded value as plain lists and dictionaries."""
    return [_everything(item) for item in value] if isinstance(value, list) else _plain(value)
