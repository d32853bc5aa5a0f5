"""What ``evaluate_ptycho.py`` runs: a reconstruction against the truth, or half against half.

A simulated scan also carries its true positions; they are compared with what the refinement made
of the file's own. A reconstruction with an uncertainty map is asked whether that map tells where
the error is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.physics import metrics
from ptycho_torch.physics.canvas import Grid
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.npz_format import file_kind, read_arrays
from ptycho_torch.study.archive import (
    evaluation_figure,
    halves_figure,
    save_evaluation,
    save_halves,
    save_uncertainty,
    uncertainty_figure,
)
from ptycho_torch.study.evaluate import common_support, evaluate, half_data, read_reconstruction
from trainrig.files import write_json

SHOWN = (
    *("ssim_amp", "ssim_phase", "mae_amp", "mae_phase", "frc50_amp", "frc50_phase"),
    *("shift_y_px", "shift_x_px"),
)


def position_errors(
    truth: dict[str, np.ndarray], said: np.ndarray, shifts: np.ndarray | None
) -> dict[str, float]:
    """Root mean square distance from the true positions before and after the refinement.

    The mean shift is removed: it moves the whole object.
    """

    def rms(coords: np.ndarray) -> float:
        error = coords - np.stack([truth["xcoords_true"], truth["ycoords_true"]], 1)
        return float(np.sqrt(np.square(error - error.mean(0)).sum(1).mean()))

    errors = {"position_error_before_px": rms(said)}
    if shifts is not None:
        errors["position_error_after_px"] = rms(said + shifts)
    return errors


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's coefficient of two images."""
    first, second = (np.argsort(np.argsort(image.ravel())) for image in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def judge_uncertainty(
    truth: np.ndarray,
    obj: np.ndarray,
    uncertainty: np.ndarray,
    grid: Grid,
    coords: np.ndarray,
    out: Path,
) -> dict[str, float]:
    """How well the uncertainty map ranks the pixels' true errors; draws ``uncertainty.png``."""
    true, cut = common_support(truth, obj, grid, coords, 0.0)
    uncertainty = np.abs(common_support(truth, uncertainty, grid, coords, 0.0)[1])
    cut = metrics.align(true, cut)
    border = np.s_[metrics.BORDER_PX : -metrics.BORDER_PX, metrics.BORDER_PX : -metrics.BORDER_PX]
    true, uncertainty = true[border], uncertainty[border]
    cut = metrics.remove_ambiguity(true, cut)
    error = np.abs(cut * (np.abs(true).mean() / np.abs(cut).mean()) - true)
    value = rank_correlation(uncertainty, error)
    save_uncertainty(uncertainty, error, value, out)
    uncertainty_figure(out)
    return {
        "uncertainty_rank_correlation": value,
        "uncertainty_mean": float(uncertainty.mean()),
        "uncertainty_true_error_mean": float(error.mean()),
    }


def compare_with_truth(
    reconstruction: Path,
    truth: Path,
    out: Path | None = None,
    *,
    by: str = "amplitude",
    centre_px: int | None = None,
    margin_px: float = 0.0,
) -> Iterator[str]:
    """Score against a scan's objectGuess; writes metrics.json and evaluation.png, yields lines."""
    obj, grid = read_reconstruction(reconstruction)
    arrays = read_arrays(truth)
    found = {} if file_kind(reconstruction) == "HDF5" else read_arrays(reconstruction)
    scan = RawDataTorch.from_arrays(arrays, str(truth))
    if scan.objectGuess is None:
        raise KeyError(f"{truth}: no objectGuess; the truth is needed to evaluate")
    region: dict[str, Any] = {"centre_px": centre_px, "margin_px": margin_px}
    region["covered"] = found.get("covered")
    scores, true, aligned = evaluate(scan.objectGuess, obj, grid, scan.coords, by=by, **region)
    out = reconstruction.parent if out is None else out
    numbers = {key: value for key, value in scores.items() if isinstance(value, float)}
    numbers["scored_height_px"], numbers["scored_width_px"] = (float(v) for v in true.shape)
    learnt = reconstruction.parent / "refinement.npz"
    if "xcoords_true" in arrays:
        shifts = read_arrays(learnt).get("shifts_xy") if learnt.is_file() else None
        numbers |= position_errors(arrays, scan.coords, shifts)
    if "uncertainty" in found:
        error_map = found["uncertainty"]
        numbers |= judge_uncertainty(scan.objectGuess, obj, error_map, grid, scan.coords, out)
    write_json(out / "metrics.json", numbers)
    save_evaluation(true, aligned, scores, out)
    evaluation_figure(out)
    more = [key for key in numbers if key.startswith(("position_", "uncertainty_"))]
    yield "  ".join(f"{key} {numbers[key]:.4f}" for key in (*SHOWN, *more))
    yield f"{out / 'metrics.json'} {out / 'evaluation.png'}"


def compare_halves(
    first: Path,
    second: Path,
    out: Path | None = None,
    *,
    centre_px: int | None = None,
    margin_px: float = 0.0,
) -> Iterator[str]:
    """Half-data resolution; writes half_data.json and half_data.png, yields lines."""
    arrays = read_arrays(first)
    scores, one, two = half_data(
        read_reconstruction(first),
        read_reconstruction(second),
        np.stack([arrays["xcoords"], arrays["ycoords"]], 1),
        centre_px=centre_px,
        margin_px=margin_px,
    )
    out = first.parent if out is None else out
    numbers = {key: value for key, value in scores.items() if isinstance(value, float)}
    write_json(out / "half_data.json", numbers)
    save_halves(one, two, scores["frc"], out)
    halves_figure(out)
    yield "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
    yield f"{out / 'half_data.json'} {out / 'half_data.png'}"
