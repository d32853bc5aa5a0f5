"""Figure 3: accuracy against weight decay, and against training step, in both regimes.

Rows in, figure out; matplotlib is imported inside the functions. In-context accuracy is shown as
``accuracy_closed`` (argmax over the labels of the context, what Chan et al. 2022 publish), with
``accuracy_query`` (argmax over all classes) faint and dashed beside it: they are different curves.
In-weights accuracy is ``accuracy_query``. The tables are in ``figure3_tables``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytorch_port.figures.figure3_axes import (
    PANELS,
    header,
    legend_above,
    metric_handles,
    variant_handles,
)
from pytorch_port.figures.figure3_panels import (
    StepLook,
    lambda_handles,
    lambda_panel,
    published_points,
    step_panel,
    step_text,
)
from pytorch_port.figures.figure3_series import (
    Encoding,
    Rows,
    diverged,
    inert_text,
    range_text,
    seeds_text,
    summarize,
)
from pytorch_port.figures.headlines import headline
from pytorch_port.sweep.figure3_tables import read_metrics, write_metrics
from trainrig.plotting.style import MUTED, TEXT_IN, new_figure, paper_style, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Overlay",
    "plot_curves",
    "plot_lambda_panels",
    "read_metrics",
    "save_figure",
    "write_metrics",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlay:
    """What is drawn besides the rows themselves.

    Attributes:
        published: the curves of Chan et al. 2022, Fig. 3.
        rows: metrics rows of archived runs; their key ``origin`` names them.
        curves: curve rows of archived runs, likewise.
    """

    published: bool = False
    rows: Rows = ()
    curves: Rows = ()


def plot_lambda_panels(
    rows: Rows, *, curves: Rows = (), overlay: Overlay | None = None, note: str = ""
) -> Figure:
    """Draw final accuracy against λ, and below it, given ``curves``, accuracy against step.

    Args:
        rows: metrics rows (``read_metrics``), of any mix of backends, modes and seeds.
        curves: curve rows (``figure3_tables.read_curves``) of the same runs.
        overlay: published curves and archived runs to draw as well.
        note: a line below the figure, such as which runs it leaves out.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("figure 3: no rows to draw; at least one evaluated run is needed")
    overlay = overlay or Overlay()
    every_row, every_curve = [*rows, *overlay.rows], [*curves, *overlay.curves]
    code = Encoding.of(every_row, every_curve)
    step = max(row["global_step"] for row in rows)
    with paper_style():
        fig = new_figure(TEXT_IN, 5.9 if every_curve else 3.2)
        axes = fig.subplots(2 if every_curve else 1, 2, sharey=True, squeeze=False)
        stars: set[int] = set()
        for ax, letter, panel in zip(axes[0], "ab", PANELS, strict=True):
            lambda_panel(ax, panel, every_row, code)
            if overlay.published:
                stars |= published_points(ax, panel, code, step)
            ax.set_title(f"({letter}) {panel.title}")
            legend_above(ax, metric_handles(panel), lines=2)
        averaged = any(headline(row, "accuracy_holdout")[1] for row in every_row)
        what = "accuracy at the end" + (", mean of 3" if averaged else "")
        axes[0, 0].set_ylabel(what)
        if every_curve:
            look = StepLook(code=code, by_lambda=False, published=overlay.published)
            _second_row(axes[1], every_curve, look)
        at = None
        if stars:
            span = " to ".join(step_text(end) for end in sorted({min(stars), max(stars)}))
            at = f" at {span} steps, λ = 0"
        handles = variant_handles(code, published=at, cross=bool(diverged(every_row)))
        _legend_below(fig, handles, 3, note=_lines(inert_text(rows), note))
        lines = summarize(every_row, "accuracy_no_support", x="weight_decay")
        steps = range_text(row["global_step"] for row in rows)
        header(fig, every_row, [f"{steps} training steps", seeds_text(lines)])
    return fig


def _second_row(axes: Sequence[Axes], curves: Rows, look: StepLook) -> None:
    shown, known = len(look.weight_decays), len(look.code.weight_decays)
    note = f" ({shown} of {known} λ shown)" if shown < known else ""
    for ax, letter, panel in zip(axes, "cd", PANELS, strict=True):
        step_panel(ax, panel, curves, look)
        ax.set_xlabel(f"training step{note}")
        ax.set_title(f"({letter}) {panel.short}, {panel.metric}")
        legend_above(ax, lambda_handles(look), columns=2 if shown == 4 else 3)
    axes[0].set_ylabel("accuracy during training")


def _lines(*notes: str) -> str:
    """Return notes as lines that fit the width of the figure."""
    return "\n".join(line for note in notes if note for line in textwrap.wrap(note, 130))


def _legend_below(fig: Figure, handles: Sequence[Any], columns: int, *, note: str = "") -> None:
    if not handles and not note:
        return
    legend = fig.legend(
        handles=list(handles),
        title=note or None,
        alignment="left",
        loc="outside lower left",
        ncol=max(1, min(columns, len(handles))),
    )
    legend.get_title().set(fontsize=6.5, color=MUTED)


def plot_curves(
    curves: Rows, *, rows: Rows = (), overlay: Overlay | None = None, note: str = ""
) -> Figure:
    """Draw accuracy against training step: a row of panels per class count, a line per λ.

    Args:
        curves: curve rows (``figure3_tables.read_curves``).
        rows: metrics rows of the same runs; they say what the data were.
        overlay: as for ``plot_lambda_panels``.
        note: as for ``plot_lambda_panels``.

    Raises:
        ValueError: there are no curve rows.
    """
    if not curves:
        raise ValueError("figure 3 curves: nothing to draw; at least one evaluation is needed")
    overlay = overlay or Overlay()
    every_curve = [*curves, *overlay.curves]
    code = Encoding.of(every_curve)
    look = StepLook(code=code, by_lambda=True, published=overlay.published)
    with paper_style():
        fig = new_figure(TEXT_IN, 0.8 + 2.1 * len(code.class_counts))
        axes = fig.subplots(len(code.class_counts), 2, sharey=True, sharex=True, squeeze=False)
        for ax_row, count in zip(axes, code.class_counts, strict=True):
            chosen = [row for row in every_curve if row["class_count"] == count]
            for ax, panel in zip(ax_row, PANELS, strict=True):
                step_panel(ax, panel, chosen, look)
                ax.set_title(f"{count} classes, {panel.title}")
            ax_row[0].set_ylabel("accuracy")
        for ax, panel in zip(axes[-1], PANELS, strict=True):
            ax.set_xlabel(f"training step\naccuracy {panel.metric_text}")
        handles = lambda_handles(look)
        handles += variant_handles(code, published="" if overlay.published else None, cross=False)
        _legend_below(fig, handles, 6, note=_lines(note))
        in_context = [row for row in every_curve if row["split"] == "holdout"]
        lines = summarize(in_context, "accuracy_query", x="step")
        header(fig, rows, [seeds_text(lines)])
    return fig
