"""Proof of parity with recorded TensorFlow values: every case found in a directory is checked."""

from __future__ import annotations

from pathlib import Path

from deepobs.parity import forward, numerics, preprocessing, runs, variables
from deepobs.parity.golden import Golden
from trainrig.parity import Report

#: File stem → what checks it. A stem not listed here is reported as unchecked.
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
NOT_DATA = {"README", "meta"}


def run(golden_dir: Path | str) -> Report:
    """Check every file of a directory in the format of the recorded values.

    Args:
        golden_dir: holds ``meta.json`` and any of the files named in ``CHECKS``.

    Raises:
        FileNotFoundError: no such directory, or no ``meta.json`` in it.
        ValueError: a file that cannot be read.
    """
    golden = Golden(Path(golden_dir))
    report = Report()
    for stem in golden.stems:
        if stem in NOT_DATA:
            continue
        check = CHECKS.get(stem)
        if check is None:
            report.unchecked(stem, "no checker for a file of this name")
            continue
        check(golden, stem, report)
    return report
