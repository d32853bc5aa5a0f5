"""The data behind the figures of a reconstruction: written beside them, and drawn again from.

``<figure>.npz`` holds a figure's images in half precision, finer than any colour map, and
``<figure>.csv`` its curves. ``refinement.png`` and ``reconstructed_*.png`` are drawn from
``refinement.npz`` and ``reconstruction.npz`` themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.physics import metrics
from ptycho_torch.scan.npz_format import read_arrays, write_scan
from ptycho_torch.train.figures import (
    draw_evaluation,
    draw_halves,
    draw_pictures,
    draw_refinement,
    draw_uncertainty,
)
from trainrig.files import read_json
from trainrig.tracking.tables import read_table, write_table

RING_COLUMNS = ("ring", "frc_amp", "frc_phase", "frc_complex", "half_bit")
HALVES_COLUMNS = ("ring", "frc", "half_bit")
TENTHS_COLUMNS = ("expected", "true")


def save_evaluation(
    truth: np.ndarray, aligned: np.ndarray, scores: Mapping[str, Any], folder: Path
) -> None:
    """Write what ``evaluation.png`` shows beside the scores.

    Args:
        truth: (H, W) complex.
        aligned: the reconstruction on the same pixels.
        scores: of ``evaluate.evaluate``, curves included.
        folder: also holds ``metrics.json``.
    """
    images = {
        "true_amplitude": np.abs(truth),
        "amplitude": np.abs(aligned) * scores["amp_scale"],
        "true_phase": metrics.remove_plane(np.angle(truth)),
        "phase": metrics.remove_plane(np.angle(aligned)),
    }
    rings = min(truth.shape) // 2
    curves = {name: scores[name][:rings] for name in RING_COLUMNS[1:-1]}
    curves["half_bit"] = metrics.half_bit(rings)
    _save(folder, "evaluation", images, curves)


def save_halves(first: np.ndarray, second: np.ndarray, curve: np.ndarray, folder: Path) -> None:
    """Write what ``half_data.png`` shows beside ``half_data.json``: phases and ring correlation."""
    turn = np.exp(-1j * np.angle(first.sum()))
    images = {"first": np.angle(first * turn), "second": np.angle(second * turn)}
    _save(folder, "half_data", images, {"frc": curve, "half_bit": metrics.half_bit(len(curve))})


def save_uncertainty(
    expected: np.ndarray, true: np.ndarray, correlation: float, folder: Path
) -> None:
    """Write what ``uncertainty.png`` shows: both maps, and their means in each tenth of the first.

    Args:
        expected: (H, W), what the uncertainty map says.
        true: (H, W), the error.
        correlation: of their ranks.
        folder: where.
    """
    order = np.argsort(expected.ravel())
    tenths = {
        name: [part.mean() for part in np.array_split(image.ravel()[order], 10)]
        for name, image in (("expected", expected), ("true", true))
    }
    rows = [dict(zip(tenths, values, strict=True)) for values in zip(*tenths.values(), strict=True)]
    write_table(rows, folder / "uncertainty.csv", TENTHS_COLUMNS)
    arrays = {
        "expected": expected.astype(np.float16),
        "true": true.astype(np.float16),
        "rank_correlation": np.array(correlation),
    }
    write_scan(folder / "uncertainty.npz", arrays, compressed=True)


def _save(
    folder: Path, name: str, images: Mapping[str, np.ndarray], curves: Mapping[str, np.ndarray]
) -> None:
    """Write a figure's images and its curves over rings."""
    halves = {key: image.astype(np.float16) for key, image in images.items()}
    write_scan(folder / f"{name}.npz", halves, compressed=True)
    rows = [
        {"ring": ring, **dict(zip(curves, values, strict=True))}
        for ring, values in enumerate(zip(*curves.values(), strict=True))
    ]
    write_table(rows, folder / f"{name}.csv", ("ring", *curves))


def _images(path: Path) -> dict[str, np.ndarray]:
    return {key: np.asarray(value, np.float64) for key, value in read_arrays(path).items()}


def evaluation_figure(folder: Path) -> list[Path]:
    """Draw ``evaluation.png`` from its data and ``metrics.json``."""
    return draw_evaluation(
        _images(folder / "evaluation.npz"),
        read_table(folder / "evaluation.csv", {}),
        read_json(folder / "metrics.json"),
        folder / "evaluation.png",
    )


def halves_figure(folder: Path) -> list[Path]:
    """Draw ``half_data.png`` from its data and ``half_data.json``."""
    return draw_halves(
        _images(folder / "half_data.npz"),
        read_table(folder / "half_data.csv", {}),
        read_json(folder / "half_data.json"),
        folder / "half_data.png",
    )


def uncertainty_figure(folder: Path) -> list[Path]:
    """Draw ``uncertainty.png`` from its data."""
    return draw_uncertainty(
        _images(folder / "uncertainty.npz"),
        read_table(folder / "uncertainty.csv", {}),
        folder / "uncertainty.png",
    )


def refinement_figure(folder: Path) -> list[Path]:
    """Draw ``refinement.png`` from the refinement and the reconstruction that it led to."""
    found, state = (read_arrays(folder / f"{n}.npz") for n in ("reconstruction", "refinement"))
    return draw_refinement(
        found["object"],
        found["covered"],
        state["probe"],
        state["losses"].tolist(),
        folder / "refinement.png",
    )


def reconstruction_figures(folder: Path) -> list[Path]:
    """Draw ``reconstructed_*.png``, the phase in its own range."""
    found = read_arrays(folder / "reconstruction.npz")
    return draw_pictures(found["object"], found["covered"], found.get("uncertainty"), folder)


#: The last data file of each figure to be written → what draws it.
FIGURES = {
    "evaluation.csv": evaluation_figure,
    "half_data.csv": halves_figure,
    "uncertainty.npz": uncertainty_figure,
    "refinement.npz": refinement_figure,
    "reconstruction.npz": reconstruction_figures,
}


def redraw(folder: Path) -> list[Path]:
    """Draw every figure whose data lie in ``folder``."""
    return [
        path for name, draw in FIGURES.items() if (folder / name).exists() for path in draw(folder)
    ]
