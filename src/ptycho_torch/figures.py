"""Pictures of a reconstruction: previews while training, and the evaluation page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch import metrics


def _figure(columns: int, rows: int = 1, side: float = 4.0) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side * columns, side * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.atleast_1d(figure.subplots(rows, columns)).ravel()


def _show(figure: Any, axis: Any, image: np.ndarray, title: str, **options: Any) -> None:
    shown = axis.imshow(image, **options)
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
    figure.colorbar(shown, ax=axis, shrink=0.8)


def limits(image: np.ndarray, share: float = 0.5) -> dict[str, float]:
    """Display range without the ``share`` per cent at either end."""
    low, high = np.percentile(image, [share, 100 - share])
    return {"vmin": float(low), "vmax": float(max(high, low + 1e-9))}


def draw_object(
    obj: np.ndarray, path: Path, *, title: str = "", covered: np.ndarray | None = None
) -> None:
    """Amplitude and phase side by side; outside ``covered`` stays blank."""
    figure, axes = _figure(2)
    hidden = np.zeros(obj.shape, bool) if covered is None else ~covered
    amplitude = np.ma.masked_array(np.abs(obj), hidden)
    phase = np.ma.masked_array(np.angle(obj * np.exp(-1j * np.angle(obj[~hidden].sum()))), hidden)
    _show(figure, axes[0], amplitude, "amplitude", cmap="gray", **limits(amplitude.compressed()))
    _show(figure, axes[1], phase, "phase / rad", cmap="viridis", **limits(phase.compressed()))
    if title:
        figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def draw_single(image: np.ndarray, path: Path, title: str, **options: Any) -> None:
    """One image with a colour bar."""
    figure, axes = _figure(1, side=5.0)
    _show(figure, axes[0], image, title, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def draw_evaluation(
    truth: np.ndarray, aligned: np.ndarray, scores: dict[str, Any], path: Path
) -> None:
    """Amplitude, phase, truth, errors and ring correlations on one page."""
    figure, axes = _figure(4, 2, 3.6)
    amplitude = np.abs(aligned) * scores["amp_scale"]
    phase = metrics.remove_plane(np.angle(aligned))
    true_amp, true_phase = np.abs(truth), metrics.remove_plane(np.angle(truth))
    grey, colour = limits(true_amp, 0.1), limits(true_phase, 0.1)
    _show(figure, axes[0], true_amp, "truth, amplitude", cmap="gray", **grey)
    title = f"amplitude, SSIM {scores['ssim_amp']:.3f}"
    _show(figure, axes[1], amplitude, title, cmap="gray", **grey)
    title = f"error, MAE {scores['mae_amp']:.4f}"
    _show(figure, axes[2], amplitude - true_amp, title, cmap="RdBu", vmin=-0.15, vmax=0.15)
    _show(figure, axes[4], true_phase, "truth, phase / rad", cmap="viridis", **colour)
    title = f"phase, SSIM {scores['ssim_phase']:.3f}"
    _show(figure, axes[5], phase, title, cmap="viridis", **colour)
    title = f"error, MAE {scores['mae_phase']:.4f}"
    _show(figure, axes[6], phase - true_phase, title, cmap="RdBu", vmin=-0.5, vmax=0.5)
    rings = min(truth.shape) // 2
    for key, label in (("frc_amp", "amplitude"), ("frc_phase", "phase"), ("frc_complex", "field")):
        axes[3].plot(scores[key][:rings], label=label)
    axes[3].plot(metrics.half_bit(rings), "k--", label="1/2-bit")
    axes[3].axhline(0.5, color="grey", lw=0.5)
    axes[3].set(ylim=(0, 1.05), xlabel="ring / px", title="Fourier ring correlation")
    axes[3].legend(fontsize=7)
    axes[7].axis("off")
    numbers = [f"{k} {v:.4g}" for k, v in scores.items() if isinstance(v, float)]
    axes[7].text(0, 1, "\n".join(numbers), va="top", fontsize=7, family="monospace")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
