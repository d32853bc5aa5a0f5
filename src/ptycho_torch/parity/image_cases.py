"""Image metrics on a recorded pair."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ptycho_torch.parity.cases import Golden, checks, deviation, rest
from ptycho_torch.physics import metrics
from trainrig.parity import Report


@checks("metrics_golden.npz")
def images(golden: Golden, path: Path, report: Report) -> None:
    """Registration and aligned image, ring correlations, and every scalar of the JSON beside."""
    z = golden.load(path)
    truth, raw = z["ground_truth"].astype(complex), z["reconstruction"].astype(complex)
    border = (truth.shape[0] - z["aligned"].shape[0]) // 2
    inner = truth[border : truth.shape[0] - border, border : truth.shape[1] - border]
    found = metrics.score(inner, z["aligned"].astype(complex))
    for key in ("frc_amp", "frc_phase"):
        if key in z:
            report.check(path.stem, key, deviation(found[key], z[key]), golden.bound("metrics_rel"))
    used = {"ground_truth", "reconstruction", "aligned", "frc_amp", "frc_phase"}
    rest(report, path.stem, z, used)
    side = path.with_suffix(".json")
    if not side.is_file():
        report.unchecked(side.name, "file is missing")
        return
    scalars = json.loads(side.read_text())
    true_shift = scalars.pop("true_shift_dy_dx", None)
    if true_shift is None:
        report.unchecked(f"{path.stem}:aligned", f"{side.name} names no true_shift_dy_dx")
    else:
        moved = metrics.fourier_shift(raw, -np.asarray(true_shift))
        inside = moved[border : truth.shape[0] - border, border : truth.shape[1] - border]
        bound = golden.bound("metrics_rel")
        report.check(path.stem, "aligned", deviation(inside, z["aligned"]), bound)
    shift = metrics.register(np.abs(truth), np.abs(raw), whiten=True)
    extra = {"phase_cross_correlation_shift": shift}
    for name, reference in scalars.items():
        value = extra.get(name, found.get(name))
        if value is None:
            report.unchecked(f"{side.stem}:{name}", "no metric of this name")
        else:
            value = deviation(np.asarray(value), np.asarray(reference))
            report.check(side.stem, name, value, golden.bound("metrics_rel"))


@checks("metrics_golden.json")
def beside(golden: Golden, path: Path, report: Report) -> None:
    """Checked together with the arrays; alone it cannot be judged."""
    if not path.with_suffix(".npz").is_file():
        report.unchecked(path.name, "the arrays beside it are missing")
