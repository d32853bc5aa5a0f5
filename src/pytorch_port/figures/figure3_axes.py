"""The furniture of Figure 3: regimes, reference lines, legends, header."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytorch_port.figures.figure3_series import Encoding, Rows, data_name
from pytorch_port.figures.published import CITATION, READ_ERROR, Regime
from trainrig.plotting.style import INK, MUTED, WARNING, EndLabel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLOSED_TEXT = "among the 2 labels in context (accuracy_closed)"
QUERY_TEXT = "over all classes (accuracy_query)"
CONTEXT_CHANCE = 0.5  # two ways in every few-shot sequence
COMPANION_DASH = (0, (3, 2))
COMPANION_ALPHA = 0.45


@dataclass(frozen=True, slots=True)
class Panel:
    """A regime: its words, and the columns of its solid and of its faint line.

    ``metric`` and ``companion`` are columns of the curves; in the metrics table ``accuracy_query``
    is called ``accuracy``, and the split is appended.
    """

    regime: Regime
    split: str
    title: str
    short: str
    metric: str
    companion: str | None

    @property
    def metric_text(self) -> str:
        """What the solid line is."""
        return CLOSED_TEXT if self.metric == "accuracy_closed" else QUERY_TEXT

    def table_column(self, metric: str) -> str:
        """Return the metrics table's name of ``metric`` in this regime."""
        return f"{metric.removesuffix('_query')}_{self.split}"


IN_CONTEXT = Panel(
    "in_context",
    "holdout",
    "in-context: held-out classes",
    "in-context",
    "accuracy_closed",
    "accuracy_query",
)
IN_WEIGHTS = Panel(
    "in_weights", "no_support", "in-weights: trained classes", "in-weights", "accuracy_query", None
)
PANELS = (IN_CONTEXT, IN_WEIGHTS)


def accuracy_axis(ax: Axes) -> None:
    """Show the whole range of an accuracy, 0 to 1."""
    ax.set_ylim(-0.025, 1.025)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def reference_lines(ax: Axes, panel: Panel, rows: Rows) -> list[EndLabel]:
    """Draw chance, and the ceiling where all runs share it; return their labels.

    Both classes of a few-shot sequence are drawn with replacement: of H holdout classes, one
    sequence in H shows the same class under both labels, so 1 - 1/(2H) is the best possible.
    """
    lines: dict[float, str] = {}
    if panel.regime == "in_context":
        lines[CONTEXT_CHANCE] = f"chance {CONTEXT_CHANCE:g}"
        holdout = {row.get("n_holdout_classes") for row in rows}
        if len(holdout) == 1 and (count := holdout.pop()):
            ceiling = 1 - 0.5 / count
            lines[ceiling] = f"ceiling {ceiling:.3g}"
    else:
        counts = {row["class_count"] for row in rows}
        chance = 1 / min(counts)
        lines[chance] = f"chance {'≤ ' if len(counts) > 1 else ''}{chance:.1g}"
    for height in lines:
        ax.axhline(height, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    return [EndLabel(height, text, MUTED) for height, text in lines.items()]


def metric_handles(panel: Panel, *, markers: bool = True) -> list[Any]:
    """Return the legend entries that say which accuracy a line shows."""
    from matplotlib.lines import Line2D

    marker = "o" if markers else None
    handles = [Line2D([], [], color=INK, marker=marker, label=panel.metric_text)]
    if panel.companion:
        faint = Line2D([], [], color=INK, marker=marker, label=QUERY_TEXT, linewidth=0.9)
        faint.set(
            alpha=COMPANION_ALPHA,
            linestyle=COMPANION_DASH,
            markersize=3,
            markerfacecolor="white",
        )
        handles.append(faint)
    return handles


def variant_handles(code: Encoding, *, published: str | None, cross: bool) -> list[Any]:
    """Return legend entries for several variants, for publication and for divergence."""
    from matplotlib.lines import Line2D

    handles = []
    if len(code.variants) > 1:
        handles += [
            Line2D(
                [], [], color=INK, marker=code.marker(name), linestyle=code.dash(name), label=name
            )
            for name in code.variants
        ]
    if published is not None:
        text = f"{CITATION}{published}, read off plots (±{READ_ERROR:g})"
        handles.append(
            Line2D(
                [],
                [],
                marker="*",
                markersize=8,
                markerfacecolor="white",
                markeredgecolor=INK,
                linestyle="none",
                label=text,
            )
        )
    if cross:
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="none", label="diverged"))
    return handles


def legend_above(
    ax: Axes, handles: Sequence[Any], *, columns: int = 1, lines: int | None = None
) -> None:
    """Put a legend of so many lines (as many as it needs, unless given) below the title."""
    ax.legend(
        handles=list(handles),
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        borderaxespad=0.1,
        borderpad=0.1,
        labelspacing=0.25,
        ncol=columns,
        columnspacing=1.2,
        handletextpad=0.5,
    )
    lines = lines or -(-len(handles) // columns)
    ax.set_title(ax.get_title(loc="left"), pad=5 + 10.5 * lines)


def header(fig: Figure, rows: Rows, parts: Iterable[str]) -> None:
    """Write one line above the figure: the data, then ``parts``; synthetic data in red."""
    name, synthetic = data_name(rows)
    shown = f"{name.upper()} (not Omniglot)" if name == "synthetic glyphs" else name
    fig.suptitle(
        "  ·  ".join(part for part in (shown, *parts) if part),
        x=0.01,
        ha="left",
        fontsize=7.5,
        color=WARNING if synthetic else INK,
    )
