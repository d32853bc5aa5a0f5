"""Image metrics on a recorded pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho_torch.parity.cases import Golden, checks, compare, deviation
from ptycho_torch.physics import metrics
from trainrig.parity import Report


@checks("metrics_golden.npz")
def images(golden: Golden, path: Path, report: Report) -> None:
    """Registration and aligned image, ring correlations, and every scalar of the JSON beside."""
    z, bound = golden.arrays(path.name), golden.bound("metrics_rel")
    truth, raw = z["ground_truth"].astype(complex), z["reconstruction"].astype(complex)
    border = (truth.shape[0] - z["aligned"].shape[0]) // 2
    inner = truth[border : truth.shape[0] - border, border : truth.shape[1] - border]
    found = metrics.score(inner, z["aligned"].astype(complex))
    compare(report, path.stem, {k: found[k] for k in ("frc_amp", "frc_phase")}, z, bound)
    side = path.with_suffix(".json").name
    if side not in golden:
        report.unchecked(side, "file is missing")
        return
    scalars = golden.json(side)
    with report.attempt(path.stem):
        moved = metrics.fourier_shift(raw, -np.asarray(scalars["true_shift_dy_dx"]))
        inside = moved[border : truth.shape[0] - border, border : truth.shape[1] - border]
        report.check(path.stem, "aligned", deviation(inside, z["aligned"]), bound)
    shift = metrics.register(np.abs(truth), np.abs(raw), whiten=True)
    found = {**found, "phase_cross_correlation_shift": shift}
    for name in scalars:
        if name in found:
            with report.attempt(path.stem):
                value = deviation(np.asarray(found[name]), np.asarray(scalars[name]))
                report.check(Path(side).stem, name, value, bound)


@checks("metrics_golden.json")
def beside(golden: Golden, path: Path, report: Report) -> None:
    """Checked together with the arrays; alone it cannot be judged."""
    if path.with_suffix(".npz").name not in golden:
        golden.json(path.name).plain()
        report.unchecked(path.name, "the arrays beside it are missing")
