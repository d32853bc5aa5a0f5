"""Image metrics on a recorded pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.parity.cases import Golden, checks, deviation
from ptycho_torch.physics import metrics
from trainrig.parity import Report

#: Seeds of the rounding errors that a metric's sensitivity is measured with.
DRAWS = range(16)
#: Relative deviation that no storage as complex64 explains.
LARGEST_STORAGE = 1e-2


@checks("metrics_golden.npz")
def images(golden: Golden, path: Path, report: Report) -> None:
    """Registration and aligned image, ring correlations, and every scalar of the JSON beside."""
    z, bound = golden.arrays(path.name), golden.bound("metrics_rel")
    truth, raw = z["ground_truth"].astype(complex), z["reconstruction"].astype(complex)
    border = (truth.shape[0] - z["aligned"].shape[0]) // 2
    inner = truth[border : truth.shape[0] - border, border : truth.shape[1] - border]
    pair = inner, z["aligned"].astype(complex)
    found = metrics.score(*pair)
    for key in ("frc_amp", "frc_phase"):
        with report.attempt(path.stem):
            _check_metric(report, path.stem, key, (found[key], z[key]), (pair, bound))
    side = path.with_suffix(".json").name
    if side not in golden:
        report.unchecked(side, "file is missing")
        return
    scalars = golden.json(side)
    with report.attempt(path.stem):
        moved = metrics.fourier_shift(raw, -np.asarray(scalars["true_shift_dy_dx"]))
        inside = moved[border : truth.shape[0] - border, border : truth.shape[1] - border]
        report.check(path.stem, "aligned", deviation(inside, z["aligned"]), bound)
    for name in scalars:
        with report.attempt(path.stem):
            if name == "phase_cross_correlation_shift":
                shift = metrics.register(np.abs(truth), np.abs(raw), whiten=True)
                value = deviation(shift, np.asarray(scalars[name]))
                report.check(Path(side).stem, name, value, bound)
            elif name in found:
                values = np.asarray(found[name]), np.asarray(scalars[name])
                _check_metric(report, Path(side).stem, name, values, (pair, bound))


def _check_metric(
    report: Report,
    case: str,
    name: str,
    values: tuple[Any, Any],
    rule: tuple[tuple[np.ndarray, np.ndarray], float | None],
) -> None:
    """Compare a metric of a pair of images, within what storing the pair as complex64 does to it.

    Rings that hold little of an image's power are sensitive: rounding the images moves the ring
    correlation of amplitudes by up to 9e-5. Where a deviation is over the recorded bound, six
    times the root mean square of such movements is allowed on top, in our own float64.
    """
    pair, bound = rule
    found = deviation(*values)
    if bound is not None and bound < found < LARGEST_STORAGE:
        moved = [deviation(metrics.score(*_rounded(pair, seed))[name], values[0]) for seed in DRAWS]
        storage = 6 * float(np.sqrt(np.mean(np.square(moved))))
        report.check(case, name, found, bound + storage, f"{storage:.1e} of it for complex64")
    else:
        report.check(case, name, found, bound)


def _rounded(pair: tuple[np.ndarray, np.ndarray], seed: int) -> list[np.ndarray]:
    """Return images whose real and imaginary parts are off by up to half a float32 unit."""
    r = np.random.default_rng(seed)
    unit = 2.0**-24
    return [
        image.real * (1 + r.uniform(-unit, unit, image.shape))
        + 1j * image.imag * (1 + r.uniform(-unit, unit, image.shape))
        for image in pair
    ]


@checks("metrics_golden.json")
def beside(golden: Golden, path: Path, report: Report) -> None:
    """Checked together with the arrays; alone it cannot be judged."""
    if path.with_suffix(".npz").name not in golden:
        golden.json(path.name).plain()
        report.unchecked(path.name, "the arrays beside it are missing")
