"""Pictures of a reconstruction: previews while training, and the evaluation page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainrig.plotting.style import (
    COLUMN_IN,
    INK,
    MUTED,
    TEXT_IN,
    new_figure,
    paper_style,
    save_figure,
    save_preview,
)

if TYPE_CHECKING:
    from ptycho_torch.raw_data import RawDataTorch

Rows = Sequence[Mapping[str, Any]]


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
def draw_single(image: np.ndarray, path: Path, title: str, **options: Any) -> list[Path]:
    """One image with a colour bar; returns the files."""
    figure, axes = _figure(1)
    _show(figure, axes[0], image, title, **options)
    return [*save_figure(figure, path)]


def draw_pictures(
    obj: np.ndarray,
    covered: np.ndarray,
    uncertainty: np.ndarray | None,
    out: Path,
    phase_limits: Mapping[str, float | None] | None = None,
) -> list[Path]:
    """``reconstructed_{amplitude,phase,uncertainty}.png``; unreached pixels stay blank."""
    amplitude, phase = blank_unreached(obj, covered)
    chosen = {k: v for k, v in (phase_limits or {}).items() if v is not None}
    grey = {"cmap": "gray", **limits(amplitude.compressed())}
    span = limits(phase.compressed()) | chosen
    written = draw_single(amplitude, out / "reconstructed_amplitude.png", "amplitude", **grey)
    path = out / "reconstructed_phase.png"
    written += draw_single(phase, path, "phase / rad", cmap="viridis", **span)
    if uncertainty is not None:
        error = blank_unreached(uncertainty, covered)[0]
        span = limits(error.compressed())
        path = out / "reconstructed_uncertainty.png"
        written += draw_single(error, path, "uncertainty", cmap="magma", **span)
    return written


@paper_style()
def draw_evaluation(
    images: Mapping[str, np.ndarray], rings: Rows, scores: Mapping[str, float], path: Path
) -> list[Path]:
    """Amplitude, phase, truth, errors and ring correlations on one page; returns the files.

    Args:
        images: ``true_amplitude``, ``amplitude``, ``true_phase``, ``phase``, (H, W) each.
        rings: rows of ``archive.RING_COLUMNS``.
        scores: of ``metrics.json``.
        path: of the PNG.
    """
    figure, axes = _figure(4, 2, 0.82)
    parts = (("amp", "amplitude", "gray", 0.15), ("phase", "phase", "viridis", 0.5))
    for row, (short, name, colours, edge) in zip((axes[:4], axes[4:]), parts, strict=True):
        true, ours = images[f"true_{name}"], images[name]
        span = {"cmap": colours, **limits(true, 0.1)}
        unit = " / rad" if name == "phase" else ""
        _show(figure, row[0], true, f"truth, {name}{unit}", **span)
        _show(figure, row[1], ours, f"{name}, SSIM {scores[f'ssim_{short}']:.3f}", **span)
        title = f"error, MAE {scores[f'mae_{short}']:.4f}"
        _show(figure, row[2], ours - true, title, cmap="RdBu", vmin=-edge, vmax=edge)
    for key, label in (("frc_amp", "amplitude"), ("frc_phase", "phase"), ("frc_complex", "field")):
        axes[3].plot([ring["ring"] for ring in rings], [ring[key] for ring in rings], label=label)
    _half_bit(axes[3], [ring["ring"] for ring in rings], rings)
    axes[3].axhline(0.5, color=MUTED, lw=0.5)
    axes[3].set(xlabel="ring / px", title="ring correlation")
    axes[7].axis("off")
    axes[7].text(0, 1, "\n".join(_score_lines(scores)), va="top", fontsize=6)
    return [*save_figure(figure, path)]


def _score_lines(scores: Mapping[str, float]) -> list[str]:
    """The scores that no title of the evaluation shows, in words."""

    def both(key: str, digits: int) -> str:
        return " / ".join(f"{scores[f'{key}_{part}']:.{digits}f}" for part in ("amp", "phase"))

    return [
        "amplitude / phase",
        f"MS-SSIM {both('ms_ssim', 3)}",
        f"PSNR {scores['psnr_amp_range']:.1f} / {scores['psnr_phase_range']:.1f} dB",
        f"FRC = 1/2: ring {both('frc50', 1)}",
        f"FRC = 1/7: ring {both('frc1over7', 1)}",
        f"field, 1/2-bit: ring {scores['frc_half_bit_complex']:.1f}",
        f"shift {scores['shift_x_px']:.2f}, {scores['shift_y_px']:.2f} px",
        f"{scores['scored_height_px']:.0f} x {scores['scored_width_px']:.0f} px scored",
    ]


def _half_bit(axis: Any, x: Any, rings: Rows) -> None:
    """Draw the threshold of a ring correlation, its range and, below all, its legend."""
    axis.plot(x, [ring["half_bit"] for ring in rings], "--", color=INK, label="1/2-bit")
    axis.set_ylim(0, 1.05)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.38), "ncols": 2}
    axis.legend(fontsize=5.5, handlelength=1.2, columnspacing=0.8, borderpad=0.1, **below)


@paper_style()
def draw_halves(
    images: Mapping[str, np.ndarray], rings: Rows, scores: Mapping[str, float], path: Path
) -> list[Path]:
    """The phases of two half-data reconstructions, their difference, and the ring correlation.

    Args:
        images: phases ``first`` and ``second``, (H, H) each.
        rings: rows of ``archive.HALVES_COLUMNS``.
        scores: of ``half_data.json``.
        path: of the PNG.
    """
    figure, axes = _figure(4)
    span = limits(images["first"])
    for axis, name in zip(axes, ("first", "second"), strict=False):
        _show(figure, axis, images[name], f"{name} half, phase / rad", cmap="viridis", **span)
    difference = np.angle(np.exp(1j * (images["second"] - images["first"])))
    edge = limits(np.abs(difference))["vmax"]
    _show(figure, axes[2], difference, "difference / rad", cmap="RdBu", vmin=-edge, vmax=edge)
    ring, side = scores["frc_half_bit_ring"], scores["side_px"]
    frequency = [row["ring"] / side for row in rings]
    axes[3].plot(frequency, [row["frc"] for row in rings], label="halves")
    _half_bit(axes[3], frequency, rings)
    if ring < len(rings):
        axes[3].axvline(ring / side, color=MUTED, lw=0.7)
    axes[3].set(xlabel="cycles per px")
    bound = "≤ " if ring >= len(rings) else ""
    axes[3].set_title(f"half period {bound}{scores['half_period_px']:.2f} px")
    return [*save_figure(figure, path)]


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
    losses: Sequence[float],
    path: Path,
) -> list[Path]:
    """Amplitude and phase, the strongest probe modes (each to its maximum) and the loss."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _figure(4)
    amplitude, phase = blank_unreached(obj, covered)
    _show(figure, axes[0], amplitude, "amplitude", cmap="gray", **limits(amplitude.compressed(), 1))
    _show(figure, axes[1], phase, "phase / rad", cmap="viridis", **limits(phase.compressed(), 1))
    power = (np.abs(probe) ** 2).sum((1, 2))
    names = ", ".join(f"{100 * share:.1f}" for share in power / power.sum())
    strips = [np.abs(mode) / max(float(np.abs(mode).max()), 1e-12) for mode in probe[:4]]
    columns = 1 if len(strips) == 1 else 2
    strips += [np.full_like(strips[0], np.nan)] * (-len(strips) % columns)
    rows = [np.hstack(strips[i : i + columns]) for i in range(0, len(strips), columns)]
    _show(figure, axes[2], np.vstack(rows), "probe modes", cmap="magma")
    axes[2].set_xlabel(f"{names} % of the power")
    axes[3].plot(np.arange(1, len(losses) + 1), losses)
    axes[3].xaxis.get_major_locator().set_params(integer=True)
    axes[3].set(xlabel="epoch", title="loss per pixel", yscale="log")
    axes[3].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[3].yaxis.set_major_formatter("{x:g}")
    axes[3].yaxis.set_minor_formatter(NullFormatter())
    return [*save_figure(figure, path)]


@paper_style()
def draw_uncertainty(images: Mapping[str, np.ndarray], tenths: Rows, path: Path) -> list[Path]:
    """The uncertainty map beside the true error, and the error's mean in each tenth of the map.

    Args:
        images: ``expected`` and ``true``, (H, W) each, and their ``rank_correlation``.
        tenths: rows of ``archive.TENTHS_COLUMNS``.
        path: of the PNG.
    """
    figure, axes = _figure(3)
    said, error = images["expected"], images["true"]
    _show(figure, axes[0], said, "expected error", cmap="magma", **limits(error))
    _show(figure, axes[1], error, "true error", cmap="magma", **limits(error))
    axes[2].plot([row["expected"] for row in tenths], [row["true"] for row in tenths], "o-")
    axes[2].axline((0, 0), slope=1, color="0.7", linewidth=1, zorder=0)
    axes[2].set(xlabel="expected error (means of tenths)", ylabel="true error")
    axes[2].set_title(f"rank correlation {float(images['rank_correlation']):.2f}")
    end = 1.05 * max(max(row.values()) for row in tenths)
    axes[2].set(xlim=(0, end), ylim=(0, end))
    axes[2].annotate("equal", (0.8, 0.74), xycoords="axes fraction", color=MUTED, fontsize=6)
    return [*save_figure(figure, path)]


@paper_style()
def draw_intake(scan: RawDataTorch, mean: np.ndarray, path: Path) -> None:
    """Mean frame, share of frames in which a pixel is bad, positions, probe, one frame."""
    figure, axes = _figure(3, 2)
    middle = int(np.argmin(np.linalg.norm(scan.coords - np.median(scan.coords, axis=0), axis=1)))
    bad = np.zeros((1, scan.N, scan.N)) if scan.bad_pixels is None else scan.bad_pixels
    share = bad.reshape(-1, scan.N, scan.N).mean(0)
    shown = {"cmap": "viridis"}
    _show(figure, axes[0], np.log10(1 + mean), "mean frame, log(1 + counts)", **shown)
    _show(
        figure, axes[1], share, f"bad pixels, {share.mean():.2%}", cmap="gray_r", vmin=-0.2, vmax=1
    )
    one = np.square(np.asarray(scan.diff3d[[middle]], np.float64))[0]
    _show(figure, axes[2], np.log10(1 + one), f"frame {middle}, log(1 + counts)", **shown)
    axes[3].plot(scan.xcoords, scan.ycoords, ".-", color=INK, linewidth=0.3, markersize=2)
    axes[3].set(title="positions / px", xlabel="x", ylabel="y", aspect="equal")
    axes[3].invert_yaxis()
    probe = scan.probe_modes[0]
    _show(figure, axes[4], np.abs(probe), "start probe, amplitude", cmap="gray")
    phase = np.ma.masked_where(np.abs(probe) < 0.05 * np.abs(probe).max(), np.angle(probe))
    _show(
        figure, axes[5], phase, "start probe, phase / rad", cmap="twilight", vmin=-np.pi, vmax=np.pi
    )
    save_preview(figure, path)
