"""Figures of the published experiments: ours, and the published values.

Runs of the published setting share axes with the published values. Runs of any other scale are
drawn above them on axes of their own, with their size and steps in the title, since their numbers
are not to be compared.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_port.config.schema import IclConfig
from pytorch_port.figures.published import CITATION, READ_ERROR
from pytorch_port.figures.reproduction import Condition, Planned
from pytorch_port.figures.reproduction_files import (
    is_published_setting,
    published_points,
    published_range,
)
from trainrig.plotting.style import (
    INK,
    MUTED,
    TEXT_IN,
    EndLabel,
    colours,
    label_line_ends,
    new_figure,
    paper_style,
    save_figure,
    sequence,
)
from trainrig.stats import mean_and_sd
from trainrig.tracking.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "in_context": "in-context, holdout",
    "in_weights": "in-weights, no support",
    "common": "in-weights, 10 most common",
    "rare": "in-weights, rare",
}
SUBJECTS = {
    "2": "share of bursty sequences",
    "3": "number of training classes",
    "6": "Zipf exponent of class frequencies",
    "7": "sequence model",
}
PUBLISHED_TEXT = (
    f"PUBLISHED ({CITATION}): 12 layers, 105 px, resnet encoder, batch 32, 500,000 steps; "
    f"one run each, read off plots (±{READ_ERROR})"
)


def draw_figures(
    plan: Sequence[Planned],
    curves: Sequence[Row],
    finals: Sequence[Row],
    folder: Path,
    note: str = "",
) -> list[Path]:
    """Write ``figure2.png`` and so on for every figure of the plan that has data.

    ``note``: a line that each says besides, such as which runs are left out.
    """
    written: list[Path] = []
    for figure in dict.fromkeys(planned.condition.figure for planned in plan):
        part = [planned for planned in plan if planned.condition.figure == figure]
        rows = [row for row in curves if row["figure"] == figure]
        if figure == "6" and finals:
            written += _draw(
                part, finals, folder, _exponents, ("in_context", "common", "rare"), note
            )
        elif figure != "6" and rows:
            written += _draw(part, rows, folder, _steps, ("in_context", "in_weights"), note)
    return written


Panel = Callable[["Axes", Sequence[Planned], Sequence[Row] | None, str], None]


def _draw(
    plan: Sequence[Planned],
    rows: Sequence[Row],
    folder: Path,
    panel: Panel,
    quantities: Sequence[str],
    note: str,
) -> list[Path]:
    """Draw one figure: a column per quantity; ours and published in one row or in two."""
    config = plan[0].run.config
    together = is_published_setting(config)
    figure = plan[0].condition.figure
    with paper_style():
        fig = new_figure(TEXT_IN, 2.9 if together else 4.9)
        grid = fig.subfigures(1 if together else 2, 1, squeeze=False)[:, 0]
        for number, part in enumerate(grid):
            axes = part.subplots(1, len(quantities), sharey=True)
            ours, theirs = together or number == 0, together or number == 1
            for ax, quantity in zip(axes, quantities, strict=True):
                if theirs:
                    panel(ax, plan, None, quantity)
                if ours:
                    panel(ax, plan, rows, quantity)
                _decorate(ax, quantity)
            axes[0].set_ylabel("accuracy")
            title = _ours_text(plan, rows) if ours else PUBLISHED_TEXT
            if ours and note:
                title += f"\n{note}"
            if together:
                title += f"; dashed: {CITATION}"
            text = f"Fig. {figure}: {SUBJECTS[figure]}\n{title}"
            part.suptitle(text, fontsize=7, color=INK, x=0.01, ha="left")
        return list(save_figure(fig, folder / f"figure{figure}.png"))


def _decorate(ax: Axes, quantity: str) -> None:
    ax.set_ylim(-0.02, 1.02)
    ax.set_title(TITLES[quantity])
    if quantity == "in_context":
        ax.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=":", zorder=1)


def _ours_text(plan: Sequence[Planned], rows: Sequence[Row]) -> str:
    config, seeds = plan[0].run.config, _seeds_text(rows)
    if is_published_setting(config):
        return f"Ours: {config.training_steps:,} steps, {seeds}"
    glyphs = ", GLYPHS, not Omniglot" if config.data.source == "synthetic" else ""
    return f"OURS, TOY SCALE, not comparable: {_scale(config)}{glyphs}; {seeds}"


def _seeds_text(rows: Sequence[Row]) -> str:
    """Say how many seeds stand behind a line: of conditions that differ, the least and most."""
    pairs = {(row["label"], row["seed"]) for row in rows}
    counts = Counter(label for label, _ in pairs).values()
    least, most = min(counts), max(counts)
    n = f"{least} to {most}" if least < most else f"{most}"
    return f"n = {n} seeds, mean and s.d." if most > 1 else "n = 1 seed"


def _scale(config: IclConfig) -> str:
    pixels = 28 if config.preproc.downsample else 105
    layers, steps = config.transformer.num_layers, config.training_steps
    encoder, batch = config.embedding.example_encoding, config.training.batch_size
    plural = "s" if layers > 1 else ""
    return f"{layers} layer{plural}, {pixels} px, {encoder} encoder, batch {batch}, {steps:,} steps"


def _conditions(plan: Sequence[Planned]) -> list[Condition]:
    return list(dict.fromkeys(planned.condition for planned in plan))


def _steps(ax: Axes, plan: Sequence[Planned], rows: Sequence[Row] | None, quantity: str) -> None:
    """Accuracy against step, a line per condition; ``rows`` None draws the published values."""
    conditions = _conditions(plan)
    code = _colours(conditions)
    ends = []
    for condition in conditions:
        colour = code[condition.label]
        points: Sequence[tuple[float, float]]
        if rows is None:
            points = [(s, v) for q, s, v in published_points(condition) if q == quantity]
            _published_line(ax, sorted(points), colour)
            if (found := published_range(condition)) is not None and found[0] == quantity:
                points = [_published_bar(ax, *found[1:], colour)]
        else:
            mine = [row for row in rows if row["label"] == condition.label]
            points = _mean_line(ax, mine, quantity, colour)
        if points:
            ends.append(EndLabel(max(points)[1], condition.label, colour))
    if not ends and rows is None:
        ax.text(0.5, 0.5, "no values published", transform=ax.transAxes, ha="center", color=MUTED)
        ax.set_xlim(0, 500_000)
    ax.set_xlim(left=0)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("training step")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.locator_params(axis="x", nbins=5)
    label_line_ends(ax, ends, size=6.5)


def _colours(conditions: Sequence[Condition]) -> dict[str, Any]:
    labels = [condition.label for condition in conditions]
    if conditions[0].figure == "7":
        return colours(labels)
    return dict(zip(labels, sequence(len(labels)), strict=True))


def _mean_line(
    ax: Axes, rows: Sequence[Row], quantity: str, colour: Any
) -> list[tuple[float, float]]:
    """Draw mean and band over seeds; return the points of the mean."""
    by_step: dict[int, dict[int, float]] = defaultdict(dict)  # a seed counts once
    for row in rows:
        by_step[row["step"]][row["seed"]] = row[quantity]
    steps = sorted(by_step)
    summary = [mean_and_sd(by_step[step].values()) for step in steps]
    ax.plot(steps, [m for m, _ in summary], color=colour)
    if any(sd > 0 for _, sd in summary):
        low, high = ([m + sign * sd for m, sd in summary] for sign in (-1, 1))
        ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    return [(step, mean) for step, (mean, _) in zip(steps, summary, strict=True)]


def _published_line(ax: Axes, points: Sequence[Any], colour: Any) -> None:
    if points:
        x, y = zip(*points, strict=True)
        ax.plot(x, y, color=colour, linestyle="--", marker="o", markersize=3, linewidth=1)


def _published_bar(ax: Axes, step: int, low: float, high: float, colour: Any) -> tuple[int, float]:
    """Draw a range that was published without a value in it; return where its label stands."""
    ax.plot([step, step], [low, high], color=colour, marker="_", markersize=6, linewidth=1.2)
    return step, (low + high) / 2


def _exponents(
    ax: Axes, plan: Sequence[Planned], rows: Sequence[Row] | None, quantity: str
) -> None:
    """Accuracy against the Zipf exponent; ``rows`` None draws the published values."""
    labels, means, spreads = [], [], []
    for condition in _conditions(plan):
        if rows is None:
            values = [v for q, _, v in published_points(condition) if q == quantity]
        else:
            wanted = condition.label, quantity
            mine = (r for r in rows if (r["label"], r["quantity"]) == wanted)
            values = [*{r["seed"]: r["value"] for r in mine}.values()]
        if values:
            mean, sd = mean_and_sd(values)
            labels.append(condition.zipf_exponent)
            means.append(mean)
            spreads.append(sd)
    colour, inside, dash = (MUTED, "white", "--") if rows is None else (INK, INK, "-")
    ax.errorbar(
        labels, means, spreads, color=colour, marker="o", markerfacecolor=inside, linestyle=dash
    )
    ax.set_xlabel("Zipf exponent")
