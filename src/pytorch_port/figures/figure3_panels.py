"""The panels of Figure 3: accuracy against weight decay, and accuracy against training step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytorch_port.figures.figure3_axes import (
    COMPANION_ALPHA,
    COMPANION_DASH,
    PANELS,
    Panel,
    accuracy_axis,
    reference_lines,
)
from pytorch_port.figures.figure3_series import (
    Encoding,
    Rows,
    Series,
    diverged,
    shrink_texts,
    summarize,
)
from pytorch_port.figures.published import figure3_curve
from trainrig.plotting.style import (
    INK,
    LINE_STYLES,
    MUTED,
    EndLabel,
    label_line_ends,
    sequence,
    shades,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLook:
    """How lines over steps are told apart.

    Attributes:
        code: colours of class counts, all λ.
        by_lambda: colour stands for λ (class counts have panels of their own); otherwise colour
            stands for the class count, and shade and dash for λ, of which four are shown at most.
        published: draw the published curves as well, on logarithmic steps: they go far beyond.
    """

    code: Encoding
    by_lambda: bool
    published: bool

    @property
    def weight_decays(self) -> list[float]:
        """The λ that are drawn: all, or the first, the last and two in between."""
        known = list(self.code.weight_decays)
        if self.by_lambda or len(known) <= len(LINE_STYLES):
            return known
        last, count = len(known) - 1, len(LINE_STYLES)
        return [known[round(i * last / (count - 1))] for i in range(count)]

    def dash(self, weight_decay: float) -> Any:
        """Return the line style of λ."""
        return LINE_STYLES[self.weight_decays.index(weight_decay) % len(LINE_STYLES)]

    def colour(self, class_count: int | None, weight_decay: float) -> Any:
        """Return the colour of a line; grey for no class count in particular."""
        rank, count = self.weight_decays.index(weight_decay), len(self.weight_decays)
        if self.by_lambda:
            return sequence(count)[rank]
        base = "#777777" if class_count is None else self.code.colours[class_count]
        return shades(base, count)[rank]


def lambda_panel(ax: Axes, panel: Panel, rows: Rows, code: Encoding) -> None:
    """Draw the mean of the last evaluations against λ (categorical, equally spaced).

    A grey row below the axis gives exp(-λΣlr), so that a reader sees which λ can have an effect.
    """
    ends: dict[int, EndLabel] = {}
    for metric in filter(None, (panel.metric, panel.companion)):
        main = metric == panel.metric
        for series in summarize(rows, panel.table_column(metric), x="weight_decay"):
            _draw_at_lambdas(ax, series, code, main=main)
            label = EndLabel(
                series.points[-1].mean,
                f"{series.class_count} classes",
                code.colours[series.class_count],
            )
            ends.setdefault(series.class_count, label)
    for class_count, weight_decay in diverged(rows):
        place = code.position(weight_decay), 0.0
        ax.plot(*place, marker="x", color=code.colours[class_count], clip_on=False, zorder=4)
    ax.set_xlim(-0.35, len(code.weight_decays) - 0.65)
    ax.set_xticks(
        range(len(code.weight_decays)), [lambda_text(value) for value in code.weight_decays]
    )
    ax.grid(axis="x", visible=False)
    accuracy_axis(ax)
    for position, text in enumerate(shrink_texts(rows, code.weight_decays)):
        _below(ax, (position, 0), ("data", "axes fraction"), text, "center")
    if panel is PANELS[0]:
        _below(ax, (-0.03, 0), "axes fraction", "exp(-λΣlr)", "right")
    ax.set_xlabel("weight decay λ", labelpad=12)
    label_line_ends(ax, [*ends.values(), *reference_lines(ax, panel, rows)])


def lambda_text(weight_decay: float) -> str:
    """Return λ as briefly as possible.

    >>> [lambda_text(x) for x in (0.0, 3e-4, 2.5e-3, 0.01, 0.1, 1.0)]
    ['0', '3e-4', '2.5e-3', '0.01', '0.1', '1']
    """
    if 0 < weight_decay < 0.01:
        digits, _, exponent = f"{weight_decay:e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{weight_decay:g}"


def _draw_at_lambdas(ax: Axes, series: Series, code: Encoding, *, main: bool) -> None:
    shift = 0.07 * code.variants.index(series.variant)
    ax.errorbar(
        [code.position(point.x) + shift for point in series.points],
        [point.mean for point in series.points],
        yerr=bars if any(bars := [point.bar for point in series.points]) else None,
        color=code.colours[series.class_count],
        marker=code.marker(series.variant),
        markerfacecolor=None if main else "white",
        markersize=4 if main else 3,
        linestyle=code.dash(series.variant) if main else COMPANION_DASH,
        linewidth=1.4 if main else 0.9,
        alpha=1.0 if main else COMPANION_ALPHA,
        zorder=3 if main else 2,
    )


def _below(ax: Axes, xy: tuple[float, float], coordinates: Any, text: str, side: str) -> None:
    ax.annotate(
        text,
        xy=xy,
        xycoords=coordinates,
        xytext=(0, -14),
        textcoords="offset points",
        ha=side,
        va="top",
        fontsize=6,
        color=MUTED,
        annotation_clip=False,
    )


def published_points(ax: Axes, panel: Panel, code: Encoding, step: int) -> set[int]:
    """Draw the published accuracies at λ = 0, at the published step nearest to ``step``.

    Returns:
        The steps that were drawn; empty where λ = 0 is not on the axis.
    """
    drawn: set[int] = set()
    if 0.0 not in code.weight_decays:
        return drawn
    for class_count in code.class_counts:
        curve = figure3_curve(panel.regime, class_count)
        if curve is None:
            continue
        nearest, accuracy = min(curve.points, key=lambda point: abs(point[0] - step))
        _star(ax, [code.position(0.0)], [accuracy], code.colours[class_count], line="none")
        drawn.add(nearest)
    return drawn


def _star(ax: Axes, x: Any, y: Any, colour: Any, *, line: Any) -> None:
    ax.plot(
        x,
        y,
        marker="*",
        markersize=8,
        markerfacecolor="white",
        markeredgecolor=colour,
        color=colour,
        linestyle=line,
        linewidth=0.8,
        zorder=4,
        clip_on=False,
    )


def step_panel(ax: Axes, panel: Panel, curves: Rows, look: StepLook) -> None:
    """Draw accuracy against training step.

    Args:
        ax: the axes.
        panel: the regime.
        curves: curve rows of both regimes.
        look: what colours and dashes stand for, and whether published curves are drawn.
    """
    code = look.code
    ends: dict[int, EndLabel] = {}
    for series in _chosen(panel, curves, look):
        _draw_over_steps(ax, series, look)
        text, colour = f"{series.class_count} classes", code.colours[series.class_count]
        ends.setdefault(series.class_count, EndLabel(series.points[-1].mean, text, colour))
    for class_count in code.class_counts if look.published else ():
        curve = figure3_curve(panel.regime, class_count)
        if curve is not None and class_count in ends:
            steps, accuracies = zip(*curve.points, strict=True)
            colour = INK if look.by_lambda else code.colours[class_count]
            _star(ax, steps, accuracies, colour, line=(0, (1, 1)))
            ends[class_count] = dataclasses.replace(ends[class_count], y=accuracies[-1])
    accuracy_axis(ax)
    _step_axis(ax, curves, log=look.published)
    labels = reference_lines(ax, panel, curves)
    label_line_ends(ax, labels if look.by_lambda else [*ends.values(), *labels])


def _chosen(panel: Panel, curves: Rows, look: StepLook) -> list[Series]:
    regime = [row for row in curves if row["split"] == panel.split]
    lines = summarize(regime, panel.metric, x="step")
    return [series for series in lines if series.weight_decay in look.weight_decays]


def _draw_over_steps(ax: Axes, series: Series, look: StepLook) -> None:
    x = [point.x for point in series.points]
    assert series.weight_decay is not None  # a series over steps is of one λ
    colour = look.colour(series.class_count, series.weight_decay)
    first = series.variant == look.code.variants[0]
    ax.plot(
        x,
        [point.mean for point in series.points],
        color=colour,
        linestyle=look.dash(series.weight_decay),
        linewidth=1.2,
        marker=None if first and len(x) > 1 else look.code.marker(series.variant),
        markersize=3,
        markevery=max(1, len(x) // 6),
        alpha=1.0 if first else 0.7,
        zorder=3,
    )
    if series.repeated:
        low = [point.mean - point.sd for point in series.points]
        high = [point.mean + point.sd for point in series.points]
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _step_axis(ax: Axes, curves: Rows, *, log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if log:
        ax.set_xscale("log")
        ax.set_xlim(0.9 * min((row["step"] for row in curves if row["step"]), default=1), 600_000)
        ax.xaxis.set_major_locator(LogLocator(10))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(0, 1.02 * max(row["step"] for row in curves))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: step_text(value)))


def step_text(step: float) -> str:
    """Return a number of steps for an axis.

    >>> [step_text(x) for x in (0, 250, 1500, 50_000, 1_000_000)]
    ['0', '250', '1.5k', '50k', '1M']
    """
    for size, unit in ((1_000_000, "M"), (1000, "k")):
        if step >= size:
            return f"{step / size:g}{unit}"
    return f"{step:g}"


def lambda_handles(look: StepLook) -> list[Any]:
    """Return legend entries for λ; in greys where colour stands for the class count."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [],
            [],
            color=look.colour(None, decay),
            linestyle=look.dash(decay),
            label=f"λ = {lambda_text(decay)}",
        )
        for decay in look.weight_decays
    ]
