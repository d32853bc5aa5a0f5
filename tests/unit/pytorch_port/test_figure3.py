"""Figure 3 from made-up rows: what is drawn, what it says, and that nothing overlaps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pytorch_port.figures.figure3 import Overlay, plot_curves, plot_lambda_panels
from pytorch_port.figures.figure3_series import (
    data_name,
    diverged,
    inert_text,
    shrink_texts,
    summarize,
)
from trainrig.plotting.style import PALETTE

DECAYS = (0.0, 0.1, 1.0)


@pytest.fixture
def rows():
    made = []
    for count, decay, seed in itertools.product((100, 1600), DECAYS, (0, 1)):
        few = count == 100
        closed = 0.5 if few else 0.8 - 0.2 * decay
        made.append(
            {
                "class_count": count,
                "n_rare_classes": count - 20,
                "n_common_classes": 10,
                "n_holdout_classes": 10,
                "weight_decay": decay,
                "global_step": 400,
                "accuracy_holdout": closed - 0.1,
                "accuracy_no_support": 0.99 if few else 0.3,
                "loss_holdout": 1.0,
                "loss_no_support": 1.0,
                "accuracy_closed_holdout": closed + 0.02 * seed,
                "backend": "torch",
                "seed": seed,
                "shrink": math.exp(-1.5 * decay),
                "source": "synthetic",
                "example_type": "omniglot",
            }
        )
    return made


@pytest.fixture
def curves():
    return [
        {
            "class_count": count,
            "weight_decay": decay,
            "backend": "torch",
            "l2_mode": "decoupled",
            "seed": 0,
            "step": step,
            "split": split,
            "accuracy_closed": 0.5 + 0.001 * step,
            "accuracy_query": 0.4,
            "loss": 1.0,
        }
        for count, decay, step, split in itertools.product(
            (100, 1600), DECAYS, (100, 200, 300), ("holdout", "no_support")
        )
    ]


def texts(figure):
    found = [text.get_text() for ax in figure.axes for text in ax.texts]
    found += [ax.get_title(loc="left") for ax in figure.axes]
    for legend in [*figure.legends, *(ax.get_legend() for ax in figure.axes)]:
        if legend is not None:
            found += [legend.get_title().get_text(), *(t.get_text() for t in legend.get_texts())]
    return "\n".join([*found, figure._suptitle.get_text()])


def test_two_panels_over_equally_spaced_lambdas(rows):
    figure = plot_lambda_panels(rows)
    in_context, in_weights = figure.axes
    assert [tick.get_text() for tick in in_context.get_xticklabels()] == ["0", "0.1", "1"]
    assert list(in_weights.get_xticks()) == [0, 1, 2]
    assert in_context.get_ylim()[0] <= 0
    assert in_context.get_ylim()[1] >= 1
    said = texts(figure)
    for words in (
        "among the 2 labels in context (accuracy_closed)",
        "over all classes (accuracy_query)",
        "chance 0.5",
        "ceiling 0.95",
        "1600 classes",
        "SYNTHETIC GLYPHS (not Omniglot)",
        "400 training steps",
        "n = 2 seeds, mean ± s.d.",
        "exp(-λΣlr)",
        "0.86",  # exp(-0.15)
    ):
        assert words in said


def test_solid_line_is_accuracy_closed_averaged_over_seeds(rows):
    in_context, in_weights = plot_lambda_panels(rows).axes
    solid = [line for line in in_context.lines if line.get_color() == PALETTE[1]]
    assert np.allclose(solid[0].get_ydata(), [0.81, 0.79, 0.61])
    assert np.allclose(
        next(line for line in in_context.lines if line.get_alpha() == 0.45).get_ydata(), [0.4] * 3
    )
    assert np.allclose(
        next(line for line in in_weights.lines if line.get_color() == PALETTE[1]).get_ydata(), 0.3
    )


def test_second_row_shows_training_steps(rows, curves):
    figure = plot_lambda_panels(rows, curves=curves)
    assert len(figure.axes) == 4
    assert "λ = 0.1" in texts(figure)
    lines = [line for line in figure.axes[2].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 6
    assert np.allclose(lines[0].get_ydata(), [0.6, 0.7, 0.8])


def test_curves_figure_has_a_row_per_class_count(rows, curves):
    figure = plot_curves(curves, rows=rows)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "100 classes, in-context: held-out classes",
        "100 classes, in-weights: trained classes",
        "1600 classes, in-context: held-out classes",
        "1600 classes, in-weights: trained classes",
    ]
    assert "SYNTHETIC GLYPHS" in texts(figure)


def test_backends_modes_and_archives_are_told_apart(rows, curves):
    jax = [row | {"backend": "jax"} for row in rows if row["weight_decay"] == 0]
    for row in jax:
        del row["accuracy_closed_holdout"]
    norms = [row | {"l2_mode": "sum_norms"} for row in rows]
    archived = Overlay(published=True, rows=[row | {"origin": "archived x"} for row in rows])
    said = texts(plot_lambda_panels([*rows, *jax, *norms], curves=curves, overlay=archived))
    for words in ("torch", "jax", "torch, sum_norms", "archived x (torch)", "Chan et al. 2022"):
        assert words in said


def test_published_points_stand_at_lambda_zero(rows):
    in_context, _ = plot_lambda_panels(rows, overlay=Overlay(published=True)).axes
    stars = [line for line in in_context.lines if line.get_marker() == "*"]
    assert sorted(float(line.get_ydata()[0]) for line in stars) == [0.5, 0.78]
    assert all(line.get_xdata()[0] == 0 for line in stars)


def test_diverged_runs_are_crosses_not_values(rows):
    for row in rows[-2:]:
        row.update(status="diverged", accuracy_holdout=None, accuracy_no_support=None)
        row["accuracy_closed_holdout"] = None
    assert diverged(rows) == [(1600, 1.0)]
    figure = plot_lambda_panels(rows)
    assert "diverged" in texts(figure)
    many = [line for line in figure.axes[1].lines if line.get_color() == PALETTE[1]]
    assert [len(line.get_xdata()) for line in many if line.get_marker() == "o"] == [2]


@pytest.mark.parametrize("drawn", ["lambda", "both", "curves", "eight"])
def test_no_two_texts_overlap_and_none_leaves_the_page(rows, curves, drawn):
    if drawn == "eight":
        rows = [
            row | {"weight_decay": decay, "shrink": math.exp(-6.69 * decay)}
            for row in rows
            if row["weight_decay"] == 0
            for decay in (0.0, 3e-4, 1e-3, 3e-3, 1e-2, 0.1, 0.3, 1.0)
        ]
        figure = plot_lambda_panels(rows, overlay=Overlay(published=True))
    elif drawn == "curves":
        figure = plot_curves(curves, rows=rows)
    else:
        figure = plot_lambda_panels(rows, curves=curves if drawn == "both" else ())
    FigureCanvasAgg(figure).draw()
    boxes = []
    for ax in figure.axes:
        labels = [*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts, ax.xaxis.label]
        boxes += [text.get_window_extent() for text in labels if text.get_text()]
        boxes.append(ax._left_title.get_window_extent())
        if ax.get_legend() is not None:
            boxes.append(ax.get_legend().get_window_extent())
    boxes += [legend.get_window_extent() for legend in figure.legends]
    boxes = [box.padded(-1) for box in boxes if box.width > 2 and box.height > 2]
    for one, two in itertools.combinations(boxes, 2):
        assert not one.overlaps(two)
    page = figure.bbox
    for box in boxes:
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="figure 3: no rows to draw"):
        plot_lambda_panels([])
    with pytest.raises(ValueError, match="figure 3 curves: nothing to draw"):
        plot_curves([])


def test_rows_without_a_finite_value_are_left_out():
    rows = [
        {"class_count": 100, "weight_decay": 0.0, "backend": "torch", "seed": seed, "v": value}
        for seed, value in enumerate((0.4, None, math.nan, 0.6))
    ]
    (series,) = summarize(rows, "v", x="weight_decay")
    assert (series.points[0].mean, series.points[0].n) == (0.5, 2)
    assert series.points[0].sd == pytest.approx(0.1414, abs=1e-4)


def test_shrink_row_gives_value_range_or_gap():
    rows = [
        {"weight_decay": 0.1, "shrink": 0.5},
        {"weight_decay": 0.1, "shrink": 0.6},
        {"weight_decay": 1e-3, "shrink": 0.9979},
        {"weight_decay": 1.0, "shrink": None},
    ]
    assert shrink_texts(rows, [1e-3, 0.1, 1.0]) == ["0.998", "0.50-0.60", "n/a"]
    assert "λ = 0.001 leaves 0.99 or more: nearly no decay" in inert_text(rows)
    assert inert_text([{"weight_decay": 0.0}]) == ""


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"source": "synthetic", "example_type": "omniglot"}, ("synthetic glyphs", True)),
        ({"source": "files", "example_type": "omniglot"}, ("Omniglot", False)),
        ({"source": "symbolic", "example_type": "symbolic"}, ("symbols", False)),
        ({}, ("", False)),
    ],
)
def test_data_are_named(row, expected):
    assert data_name([row]) == expected
