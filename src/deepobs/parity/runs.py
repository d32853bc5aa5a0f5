"""Whole runs against recorded ones: trajectories, result files, folder names, published figures."""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import Any

import numpy as np
import torch

from deepobs.parity.golden import Golden, max_abs, max_rel
from deepobs.pytorch import config
from deepobs.pytorch.datasets.generated import generated_data
from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runners.naming import float2str, learning_rates, make_run_name, result_name
from deepobs.pytorch.testproblems import TESTPROBLEMS
from trainrig.files import scratch_folder
from trainrig.parity import Report

DATA_FREE = ("quadratic", "two_d")
#: TensorFlow optimizer → torch class and names of its hyperparameters.
OPTIMIZERS = {
    "GradientDescentOptimizer": (torch.optim.SGD, {}),
    "MomentumOptimizer": (torch.optim.SGD, {"momentum": "momentum", "use_nesterov": "nesterov"}),
    "AdamOptimizer": (torch.optim.Adam, {"epsilon": "eps"}),
}
CURVES = ("train_losses", "test_losses", "minibatch_train_losses")


def check_runs(golden: Golden, stem: str, report: Report) -> None:
    """Repeat every recorded run that can be repeated, and compare formats everywhere."""
    settings = golden.meta.get("runner", {})
    format_only, listed = settings.get("format_only", []), settings.get("value_cases")
    for name, record in golden.json(stem).items():
        case = f"{stem}/{name}"
        if name == "float2str":
            for text, expected in record.items():
                report.equal(case, text, float2str(float(text)) == expected)
        elif name == "make_run_name_examples":
            for text, expected in record.items():
                report.equal(case, expected, _name_of(json.loads(text)) == expected)
        elif not isinstance(record, dict) or "output" not in record:
            report.unchecked(case, "no recorded output")
        elif record["output"]["testproblem"] not in TESTPROBLEMS:
            report.unchecked(case, f"unknown test problem {record['output']['testproblem']!r}")
        else:
            values = name not in format_only and (not isinstance(listed, list) or name in listed)
            _check_run(golden, case, record, report, values)


def _name_of(arguments: list[Any]) -> str:
    weight_decay, batch_size, num_epochs, lr, epochs, factors, _, hyperparams = arguments
    schedule = learning_rates(lr, epochs, factors)
    return make_run_name(weight_decay, batch_size, num_epochs, hyperparams, schedule)


def _check_names(case: str, record: dict[str, Any], report: Report) -> None:
    """Compare the names of folder and file, and whether there are accuracies."""
    expected = record["output"]
    folder = "/".join(
        (
            expected["testproblem"],
            expected["optimizer"],
            _name_of(
                [
                    expected["weight_decay"],
                    expected["batch_size"],
                    expected["num_epochs"],
                    expected["learning_rate"],
                    expected["lr_sched_epochs"],
                    expected["lr_sched_factors"],
                    expected["random_seed"],
                    expected["hyperparams"],
                ]
            ),
        )
    )
    report.equal(case, "run folder", folder == record["run_folder"], folder)
    if "file_name_pattern" in record:
        pattern = re.sub(
            r"(YYYY|MM|DD|hh|mm|ss)",
            lambda m: r"\d" * len(m[0]),
            re.escape(record["file_name_pattern"]).replace(r"\-", "-"),
        )
        name = result_name(expected["random_seed"])
        report.equal(case, "file name", re.fullmatch(pattern, name) is not None, name)
    has_accuracy = TESTPROBLEMS[expected["testproblem"]].has_accuracy
    report.equal(case, "accuracy keys", ("test_accuracies" in expected) == has_accuracy)


def _check_run(
    golden: Golden, case: str, record: dict[str, Any], report: Report, values: bool
) -> None:
    expected = record["output"]
    _check_names(case, record, report)
    if expected["optimizer"] not in OPTIMIZERS:
        report.unchecked(case, f"no torch counterpart of {expected['optimizer']!r}")
        return
    if not expected["testproblem"].startswith(DATA_FREE):
        _check_format(case, expected, report)
        if values:
            report.unchecked(case, "values: the run's data are not in the directory")
        return
    ours, console = repeat_run(expected)
    missing = expected.keys() - ours.keys()
    report.equal(case, "keys", not missing, ", ".join(sorted(missing)))
    lengths = {key: (len(ours[key]), len(expected[key])) for key in CURVES}
    report.equal(case, "list lengths", all(a == b for a, b in lengths.values()), str(lengths))
    if "has_nan_literal" in record:
        nulls = any(value is None for key in CURVES for value in ours[key])
        report.equal(case, "non-finite values", nulls == record["has_nan_literal"])
    for key in expected.keys() - set(CURVES) - {"optimizer"}:
        report.equal(case, key, ours.get(key) == expected[key])
    if not values:
        return
    size = 1000 if expected["testproblem"] == "quadratic_deep" else 10_000
    if expected["batch_size"] != size:
        report.unchecked(case, "values: minibatches are shuffled, the recorded order is unknown")
        return
    for key in CURVES:
        deviation, bound = _deviation(golden, expected, ours[key], expected[key])
        report.check(case, key, deviation, bound)
    if "stdout_head" in record:
        report.equal(case, "console", _same_lines(console, record["stdout_head"]))


def _check_format(case: str, expected: dict[str, Any], report: Report) -> None:
    """Repeat a run on generated data: keys, arguments and lengths do not depend on the data.

    Nor do the first losses of a logistic regression, whose weights start at zero.
    """
    with generated_data(examples=3 * expected["batch_size"]):
        ours, _ = repeat_run(expected)
    missing = expected.keys() - ours.keys()
    report.equal(case, "keys", not missing, ", ".join(sorted(missing)))
    curves = {key for key in expected if key.endswith(("losses", "accuracies"))}
    for key in curves - {"minibatch_train_losses"}:
        report.equal(case, f"length of {key}", len(ours[key]) == len(expected[key]))
    for key in expected.keys() - curves - {"optimizer"}:
        report.equal(case, key, ours.get(key) == expected[key])
    if expected["testproblem"].endswith("logreg"):
        for key in CURVES:
            deviation = max_rel(ours[key][:1], expected[key][:1])
            report.check(case, f"first of {key}", deviation, 1e-6)


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
    golden: Golden, expected: dict[str, Any], ours: list[float], theirs: list[float]
) -> tuple[float, float]:
    """Return a curve's deviation and its bound.

    The Adam bound is the quadratic's: on the two-dimensional problems TensorFlow's own float32 mean
    over 10,000 noisy losses is off by up to 2e-5 (recorded first losses against exact ones).
    """
    bounds = golden.bounds["runner"]
    if expected["testproblem"] != "quadratic_deep":
        return max_rel(ours, theirs), bounds["default_rel"]
    if "Adam" in expected["optimizer"]:
        return max_rel(ours, theirs), bounds["adam_rel"]
    return max_abs(ours, theirs), bounds["quadratic_abs"]


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
    records = golden.json(stem)
    if records is not None:
        report.equal(
            stem,
            "convergence thresholds",
            records["convergence_performance"] == published.thresholds,
        )
        report.equal(stem, "statistics", records["rows"] == published.rows)
    for key, curve in golden.arrays(stem).items():
        ours = published.curve(key)
        deviation = float("nan") if ours is None else max_abs(ours, curve)
        report.check(stem, key, deviation, 0.0)
