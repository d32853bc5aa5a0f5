"""Pictures of a reconstruction: previews while training, and the evaluation page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch import metrics
from trainrig.plotting.style import (
    COLUMN_IN,
    MUTED,
    TEXT_IN,
    new_figure,
    paper_style,
    save_figure,
    save_preview,
)


def _figure(columns: int, rows: int = 1, aspect: float = 0.95) -> Any:
    """Return a figure of one column's width, or of the text's where it has several panels."""
    width = COLUMN_IN if columns == 1 else TEXT_IN
    figure = new_figure(width, aspect * width / columns * rows)
    return figure, np.atleast_1d(figure.subplots(rows, columns)).ravel()


def _show(figure: Any, axis: Any, image: np.ndarray, title: str, **options: Any) -> None:
    shown = axis.imshow(image, **options)
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.spines[:].set_visible(False)
    figure.colorbar(shown, ax=axis, shrink=0.7)


def limits(image: np.ndarray, share: float = 0.5) -> dict[str, float]:
    """Display range without the ``share`` per cent at either end."""
    low, high = np.percentile(image, [share, 100 - share])
    return {"vmin": float(low), "vmax": float(max(high, low + 1e-9))}


@paper_style()
def draw_object(obj: np.ndarray, covered: np.ndarray, path: Path, *, title: str = "") -> None:
    """A preview: amplitude and phase side by side; outside ``covered`` stays blank."""
    figure, axes = _figure(2)
    amplitude, phase = blank_unreached(obj, covered)
    _show(figure, axes[0], amplitude, "amplitude", cmap="gray", **limits(amplitude.compressed()))
    _show(figure, axes[1], phase, "phase / rad", cmap="viridis", **limits(phase.compressed()))
    if title:
        figure.suptitle(title)
    save_preview(figure, path)


@paper_style()
def draw_single(image: np.ndarray, path: Path, title: str, **options: Any) -> None:
    """One image with a colour bar."""
    figure, axes = _figure(1)
    _show(figure, axes[0], image, title, **options)
    save_figure(figure, path)


@paper_style()
def draw_evaluation(
    truth: np.ndarray, aligned: np.ndarray, scores: dict[str, Any], path: Path
) -> None:
    """Amplitude, phase, truth, errors and ring correlations on one page."""
    figure, axes = _figure(4, 2, 1.2)
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
    axes[3].axhline(0.5, color=MUTED, lw=0.5)
    axes[3].set(ylim=(0, 1.05), xlabel="ring / px", title="ring correlation")
    axes[3].legend(fontsize=6)
    axes[7].axis("off")
    numbers = [f"{k} {v:.4g}" for k, v in scores.items() if isinstance(v, float)]
    axes[7].text(0, 1, "\n".join(numbers), va="top", fontsize=4.8)
    save_figure(figure, path)


@paper_style()
def draw_halves(first: np.ndarray, second: np.ndarray, scores: dict[str, Any], path: Path) -> None:
    """The phases of two half-data reconstructions, their difference, and the ring correlation."""
    figure, axes = _figure(4)
    phases = [np.angle(image * np.exp(-1j * np.angle(first.sum()))) for image in (first, second)]
    span = limits(phases[0])
    for axis, phase, title in zip(axes, phases, ("first half", "second half"), strict=False):
        _show(figure, axis, phase, f"{title}, phase / rad", cmap="viridis", **span)
    difference = np.angle(second * np.conj(first))
    edge = limits(np.abs(difference))["vmax"]
    _show(figure, axes[2], difference, "difference / rad", cmap="RdBu", vmin=-edge, vmax=edge)
    curve, ring = scores["frc"], scores["frc_half_bit_ring"]
    frequency = np.arange(len(curve)) / scores["side_px"]
    axes[3].plot(frequency, curve, label="half against half")
    axes[3].plot(frequency, metrics.half_bit(len(curve)), "k--", label="1/2-bit")
    if ring < len(curve):
        axes[3].axvline(ring / scores["side_px"], color=MUTED, lw=0.7)
    axes[3].set(ylim=(0, 1.05), xlabel="frequency / cycles per px")
    bound = "≤ " if ring >= len(curve) else ""
    axes[3].set_title(f"half period {bound}{scores['half_period_px']:.2f} px")
    axes[3].legend(fontsize=6)
    save_figure(figure, path)


def blank_unreached(
    obj: np.ndarray, covered: np.ndarray
) -> tuple[np.ma.MaskedArray, np.ma.MaskedArray]:
    """Amplitude and phase, cropped to what the scan reached, global phase turned to zero mean."""
    if not covered.any():
        covered = np.ones(obj.shape, bool)
    rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    turned = obj[part] * np.exp(-1j * np.angle(obj[covered].sum()))
    hidden = ~covered[part]
    return np.ma.masked_array(np.abs(turned), hidden), np.ma.masked_array(np.angle(turned), hidden)


@paper_style()
def draw_refinement(
    obj: np.ndarray,
    covered: np.ndarray,
    probe: np.ndarray,
    losses: list[float],
    path: Path,
) -> None:
    """Amplitude and phase, the strongest probe modes (each to its maximum) and the loss."""
    figure, axes = _figure(4)
    amplitude, phase = blank_unreached(obj, covered)
    _show(figure, axes[0], amplitude, "amplitude", cmap="gray", **limits(amplitude.compressed(), 1))
    _show(figure, axes[1], phase, "phase / rad", cmap="viridis", **limits(phase.compressed(), 1))
    power = (np.abs(probe) ** 2).sum((1, 2))
    names = ", ".join(f"{100 * share:.1f} %" for share in power / power.sum())
    strips = [np.abs(mode) / max(float(np.abs(mode).max()), 1e-12) for mode in probe[:4]]
    columns = 1 if len(strips) == 1 else 2
    strips += [np.full_like(strips[0], np.nan)] * (-len(strips) % columns)
    rows = [np.hstack(strips[i : i + columns]) for i in range(0, len(strips), columns)]
    _show(figure, axes[2], np.vstack(rows), "probe modes", cmap="magma")
    axes[2].set_xlabel(f"{names} of the power")
    axes[3].plot(np.arange(1, len(losses) + 1), losses)
    axes[3].set(xlabel="epoch", title="loss per pixel", yscale="log")
    save_figure(figure, path)


@paper_style()
def draw_uncertainty(said: np.ndarray, error: np.ndarray, correlation: float, path: Path) -> None:
    """The uncertainty map beside the true error, and the error's mean in each tenth of the map."""
    figure, axes = _figure(3)
    _show(figure, axes[0], said, "expected error", cmap="magma", **limits(error))
    _show(figure, axes[1], error, "true error", cmap="magma", **limits(error))
    order = np.argsort(said.ravel())
    tenths = [
        [part.mean() for part in np.array_split(image.ravel()[order], 10)]
        for image in (said, error)
    ]
    axes[2].plot(*tenths, "o-")
    axes[2].axline((0, 0), slope=1, color="0.7", linewidth=1, zorder=0)
    axes[2].set(xlabel="expected error, mean of a tenth of the pixels", ylabel="true error, mean")
    axes[2].set_title(f"rank correlation {correlation:.2f}; grey: equal")
    axes[2].set_xlim(left=0)
    axes[2].set_ylim(bottom=0)
    save_figure(figure, path)
