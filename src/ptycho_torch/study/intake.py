"""The intake report: what was found and assumed when a scan was read, checked against its frames.

``intake.json`` holds the notes and figures, ``intake.png`` the mean frame, the mask, the positions,
the probe and one frame, ``intake.html`` both on one page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.rules import Notes, blocks, typical_step
from trainrig.files import write_json

PAIRS = 300


def write_intake(scan: RawDataTorch, folder: Path, *, orientation: bool = False) -> Iterator[str]:
    """Check a scan, write the report, yield its lines.

    Args:
        scan: as read.
        folder: created if needed.
        orientation: also try the eight orientations of the positions on a part of the scan.
    """
    from ptycho_torch.train.figures import draw_intake
    from trainrig.report.content import Page, Picture, Section, Table
    from trainrig.report.page import write_page

    mean, figures, notes = examine(scan)
    if orientation:
        figures["orientations"] = check_orientation(scan, notes)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"source": scan.source, "notes": [asdict(note) for note in notes], **figures}
    write_json(folder / "intake.json", content)
    draw_intake(scan, mean, folder / "intake.png")
    rows = [{"": note.level, "what": note.text} for note in notes]
    tried = figures.pop("orientations", [])
    numbers = [{"figure": key, "value": value} for key, value in figures.items()]
    sections = [
        Section("Pictures", [Picture(folder / "intake.png")]),
        Section("What was found and assumed", [Table(rows)]),
        Section("Figures", [Table(numbers)]),
    ]
    if tried:
        sections.append(Section("Orientations, by the loss of a short refinement", [Table(tried)]))
    doubtful = [note.text for note in notes if note.level == "doubtful"]
    lead = f"{scan.source}: {len(scan)} frames of {scan.N} px."
    page = Page(title="Intake report", lead=lead, warnings=doubtful, sections=sections)
    write_page(folder / "intake.html", page)
    for note in notes:
        yield f"{note.level}: {note.text}"
    yield f"{folder / 'intake.html'} {folder / 'intake.png'}"


def examine(scan: RawDataTorch) -> tuple[np.ndarray, dict[str, Any], Notes]:
    """Mean intensity (N, N), figures, and the reader's notes with those of the checks."""
    notes = Notes(scan.source, scan.notes)
    mean, photons = np.zeros((scan.N, scan.N)), np.zeros(len(scan))
    for rows, block in blocks(scan.diff3d):
        square = np.square(block.astype(np.float64))
        mean += square.sum(0) / len(scan)
        photons[rows] = square.sum((1, 2))
    figures: dict[str, Any] = {
        "frames": len(scan),
        "side_px": scan.N,
        "photons_median": float(np.median(photons)),
        "photons_least": float(photons.min()),
        "photons_most": float(photons.max()),
    }
    figures |= _check_dose(scan, photons, notes)
    figures |= _check_beam(scan, notes)
    figures |= _check_centre(mean, notes)
    figures |= _check_order(scan, notes)
    return mean, figures, notes


def _check_dose(scan: RawDataTorch, photons: np.ndarray, notes: Notes) -> dict[str, float]:
    power = float((np.abs(scan.probe_modes) ** 2).sum())
    ratio = power / max(float(np.percentile(photons, 95)), 1e-30)
    text = (
        f"{np.median(photons):.4g} photons a frame ({photons.min():.4g} to {photons.max():.4g}); "
        f"the probe's power is {ratio:.3g} of a bright frame's"
    )
    notes.add("found" if 0.3 < ratio < 10 else "doubtful", text)
    return {"probe_power": power, "probe_power_per_bright_frame": ratio}


def _check_beam(scan: RawDataTorch, notes: Notes) -> dict[str, float]:
    """Beam width against step and frame; the width is that of a disc with the same Σ|P|⁴."""
    power = (np.abs(scan.probe_modes) ** 2).sum(0)
    width = 2 * float(np.sqrt(power.sum() ** 2 / (np.pi * np.square(power).sum())))
    step = typical_step(scan.coords)
    overlap = 1 - step / width
    low, high = scan.coords.min(0), scan.coords.max(0)
    extent = f"positions span {high[0] - low[0]:.4g} x {high[1] - low[1]:.4g} px"
    text = f"{extent}, {step:.3g} px apart; the beam is about {width:.3g} px wide, overlap "
    notes.add("found" if overlap > 0.4 or len(scan) < 2 else "doubtful", f"{text}{overlap:.0%}")
    border = max(1, scan.N // 16)
    inner = float(power[border:-border, border:-border].sum() / power.sum())
    if inner < 0.95:
        notes.add(
            "doubtful",
            f"{1 - inner:.0%} of the probe lies at the frame's border: the beam may be wider than "
            "the frame (detector pixels too coarse, or a wrong probe)",
        )
    return {"step_px": step, "beam_px": width, "overlap": overlap, "probe_inside": inner}


def _check_centre(mean: np.ndarray, notes: Notes) -> dict[str, float]:
    """Where the intensity's median lies, against [N/2, N/2]."""
    size = len(mean)
    at = []
    for axis in (0, 1):
        share = np.cumsum(mean.sum(1 - axis)) / mean.sum()
        at.append(float(np.interp(0.5, share, np.arange(size) + 0.5)) - size // 2)
    text = f"the intensity's middle lies {at[0]:+.2f} rows, {at[1]:+.2f} columns from [N/2, N/2]"
    notes.add("found" if max(map(abs, at)) < size / 16 else "doubtful", text)
    return {"centre_row_px": at[0], "centre_column_px": at[1]}


def _check_order(scan: RawDataTorch, notes: Notes) -> dict[str, float]:
    """Whether frames of neighbouring positions are more alike than any two frames."""
    from scipy.spatial import cKDTree

    if len(scan) < 16:
        return {}
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(scan))[:PAIRS]
    near = cKDTree(scan.coords).query(scan.coords[rows], k=2)[1][:, 1]
    far = rng.permutation(len(scan))[: len(rows)]
    stacks = [np.asarray(scan.diff3d[part], np.float64) for part in (rows, near, far)]
    flat = [(part - stacks[0].mean(0)).reshape(len(part), -1) for part in stacks]
    one, beside, other = (
        part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-12) for part in flat
    )
    alike, any_two = (one * beside).sum(1), (one * other).sum(1)[far != rows]
    error = float(np.sqrt(alike.var() / len(alike) + any_two.var() / len(any_two)))
    gain = float(alike.mean() - any_two.mean()) / max(error, 1e-12)
    text = (
        f"frames of neighbouring positions correlate by {alike.mean():.2f}, any two by "
        f"{any_two.mean():.2f}"
    )
    if gain < 3:
        notes.add("doubtful", f"{text}: frames and positions may be in another order")
    else:
        notes.add("found", f"{text}: the order fits")
    return {"neighbours_correlate": float(alike.mean()), "any_two_correlate": float(any_two.mean())}


def check_orientation(scan: RawDataTorch, notes: Notes) -> list[dict[str, Any]]:
    """Try the orientations; the table of losses, the best first, and a note."""
    from ptycho_torch.recon.trials import find_orientation

    found = find_orientation(scan)
    best, second = found[:2]
    by = f"loss {best.loss:.4f}, next {second.loss:.4f} ({second})"
    if second.loss < 1.1 * best.loss:
        notes.add("doubtful", f"orientation: the frames do not tell ({best}: {by})")
    elif best.as_read:
        notes.add("found", f"orientation: as read is the best ({by})")
    else:
        words = [f"position_axes={best.axes}"] * (best.axes != "as-read")
        words += [f"position_sign={best.sign}"] * (best.sign != "as-read")
        own = next(one.loss for one in found if one.as_read)
        remedy = " ".join(f"--assume {word}" for word in words)
        text = f"orientation: {best} fits better than as read ({own:.4f}; {by}): {remedy}"
        notes.add("doubtful", text)
    if best.defocus is not None:
        text = "without a probe in the file an orientation and its negation look the same"
        notes.add("found", text)
    return [
        {"axes": one.axes, "sign": one.sign, "loss": one.loss, "defocus_px2": one.defocus}
        for one in found
    ]
