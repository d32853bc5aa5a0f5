"""Proof of parity with recorded TensorFlow values: every case found in a directory is checked."""

from __future__ import annotations

from pathlib import Path

from deepobs.parity import forward, numerics, preprocessing, runs, variables
from deepobs.parity.golden import Golden
from trainrig.parity import Report

#: File stem → what checks it. Other files are listed as UNCHECKED.
CHECKS = {
    "parameter_counts": variables.check_parameter_counts,
    "forward": forward.check_forward,
    "tf_ops": numerics.check_tf_ops,
    "two_d": numerics.check_two_d,
    "quadratic_deep": numerics.check_quadratic,
    "initialiser_stats": numerics.check_initialisers,
    "preprocessing": preprocessing.check_preprocessing,
    "runner": runs.check_runs,
    "baselines_v1_1": runs.check_baselines,
    "baseline_curves_v1_1": runs.check_baselines,
}


def run(golden_dir: Path | str) -> Report:
    """Check every file of a directory in the format of the recorded values.

    Args:
        golden_dir: holds ``meta.json`` and any of the files named in ``CHECKS``.

    Raises:
        FileNotFoundError: no such directory, or no ``meta.json`` in it.
        ValueError: a ``meta.json`` that cannot be read, or of another system.
    """
    golden = Golden(Path(golden_dir))
    report = Report()
    for stem, check in CHECKS.items():
        if f"{stem}.json" in golden or f"{stem}.npz" in golden:
            with report.attempt(stem):
                check(golden, stem, report)
    golden.report_rest(report)
    return report
