"""The one look of every figure, and the one way to save it.

Figures are built on ``matplotlib.figure.Figure`` without pyplot, so nothing global is touched and
no display is needed. matplotlib is imported inside the functions.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainrig.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Widths for a two-column page, in inches.
COLUMN_IN = 3.35
TEXT_IN = 6.9
PNG_DPI = 200

#: Colour-blind-safe colours (Okabe and Ito 2008), without black and the pale yellow.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINE_STYLES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
INK = "#222222"
MUTED = "#6b6b6b"
WARNING = "#B3261E"

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so figures are equal on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "errorbar.capsize": 1.5,
    "figure.facecolor": "white",
    "pdf.fonttype": 42,  # TrueType: text stays text, and is embedded
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}


@contextlib.contextmanager
def paper_style() -> Iterator[None]:
    """Apply the style to everything that is drawn inside the ``with`` block."""
    import matplotlib as mpl
    from cycler import cycler

    settings: Any = {**_RC, "axes.prop_cycle": cycler(color=PALETTE)}
    with mpl.rc_context(settings):
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure with constrained layout; call it inside ``paper_style``."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def save_figure(fig: Figure, path_png: Path | str) -> tuple[Path, Path]:
    """Write ``fig`` as PNG (200 dpi) and, beside it, as PDF; each replaced in one step.

    The files hold no date, so equal figures are equal bytes.

    Returns:
        The paths of the PNG and of the PDF.

    Raises:
        ValueError: the name does not end in ``.png``.
        OSError: the folder cannot be written; earlier files are unchanged then.
    """
    png = _png(path_png)
    pdf = png.with_suffix(".pdf")
    contents = [
        _encoded(fig, "png", {"Software": None}),
        _encoded(fig, "pdf", {"CreationDate": None}),
    ]
    for path, content in zip((png, pdf), contents, strict=True):
        write_atomically(path, content)
    return png, pdf


def save_preview(fig: Figure, path_png: Path | str) -> Path:
    """Write ``fig`` as PNG alone: a picture to look at while a run continues.

    Raises:
        ValueError, OSError: as ``save_figure``.
    """
    png = _png(path_png)
    write_atomically(png, _encoded(fig, "png", {"Software": None}))
    return png


def _png(path: Path | str) -> Path:
    png = Path(path)
    if png.suffix != ".png":
        raise ValueError(f"{png}: figures are saved as PNG and PDF; a name in .png is expected")
    return png


def _encoded(fig: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    with paper_style():
        fig.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def colours(keys: Sequence[Any]) -> dict[Any, str]:
    """Return a colour per key; keys beyond the palette start it again."""
    return {key: PALETTE[i % len(PALETTE)] for i, key in enumerate(keys)}


def shades(colour: str, count: int) -> list[tuple[float, float, float]]:
    """Return ``count`` shades of ``colour``, from light to dark, all readable on white."""
    from matplotlib.colors import to_rgb

    base = np.array(to_rgb(colour))
    light, dark = 0.65 * base + 0.35, 0.45 * base
    if count == 1:
        return [tuple(base)]
    steps = np.linspace(0, 2, count)
    return [
        tuple(light + t * (base - light)) if t <= 1 else tuple(base + (t - 1) * (dark - base))
        for t in steps
    ]


def sequence(count: int) -> list[Any]:
    """Return ``count`` ordered colours, dark first; readable on white and without colour vision."""
    import matplotlib as mpl

    return [mpl.colormaps["viridis"](value) for value in np.linspace(0, 0.85, count)]


@dataclass(frozen=True, slots=True)
class EndLabel:
    """A text beside the end of a line, at height ``y`` in data units."""

    y: float
    text: str
    colour: Any


def label_line_ends(ax: Axes, labels: Sequence[EndLabel], *, size: float = 7) -> None:
    """Write labels to the right of the axes, moved apart where they would touch.

    Call it once the y limits are final. The room they need is made by the constrained layout.
    """
    low, high = ax.get_ylim()
    height_pt = ax.bbox.height * 72 / ax.figure.dpi
    shrunk = 0.75  # about what titles and legends leave of it once the layout is done
    gap = 1.2 * size / (shrunk * height_pt)  # of the axes' height
    ordered = sorted(labels, key=lambda label: label.y)
    fractions = spread([(label.y - low) / (high - low) for label in ordered], gap)
    for label, fraction in zip(ordered, fractions, strict=True):
        ax.annotate(
            label.text,
            xy=(1, fraction),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=label.colour,
            fontsize=size,
            annotation_clip=False,
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move ascending positions as little as possible so that neighbours are ``gap`` apart.

    The least-squares solution: neighbours that collide form a block around their mean
    (pool-adjacent-violators on positions less ``gap`` times rank).

    >>> spread([0.5, 0.5, 0.9], 0.125)
    [0.4375, 0.5625, 0.9]
    """
    blocks: list[tuple[float, int]] = []  # mean of (position - gap * rank), members
    for rank, position in enumerate(positions):
        mean, members = position - gap * rank, 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean = (mean * members + other * count) / (members + count)
            members += count
        blocks.append((mean, members))
    flat = [mean for mean, members in blocks for _ in range(members)]
    return [value + gap * rank for rank, value in enumerate(flat)]
