"""Headlines: the mean of the last three evaluations, with its standard error, everywhere."""

from __future__ import annotations

import json

import pytest

from pytorch_port.figures.figure3 import plot_lambda_panels
from pytorch_port.figures.figure3_series import seeds_text, summarize
from pytorch_port.figures.figure3a import last_rows
from pytorch_port.figures.headlines import headline, headline_lines, with_headlines

VALUES = (0.2, 0.9, 0.6, 0.75)  # mean of the last three 0.75, standard error 0.0866
FACTS = {"class_count": 100, "weight_decay": 0.0, "backend": "torch", "seed": 0}


def metrics_row(**changes):
    row = {"n_rare_classes": 80, "n_common_classes": 10, "n_holdout_classes": 10}
    row |= {"accuracy_holdout": 0.75, "accuracy_no_support": 0.75, "accuracy_closed_holdout": 0.75}
    return {**FACTS, **row, "global_step": 400, **changes}


def curve_rows(values=VALUES, **changes):
    return [
        {**FACTS, "l2_mode": "decoupled", "step": 100 * k, "split": split, **changes}
        | {"accuracy_closed": value, "accuracy_query": value / 2, "loss": 1.0}
        for k, value in enumerate(values, start=1)
        for split in ("holdout", "no_support")
    ]


def test_a_metrics_row_gets_mean_and_standard_error_of_the_last_three():
    (row,) = with_headlines([metrics_row()], curve_rows())
    assert row["accuracy_closed_holdout"] == 0.75  # the last evaluation keeps its column
    assert row["accuracy_closed_holdout_last3"] == pytest.approx(0.75)
    assert row["accuracy_closed_holdout_last3_se"] == pytest.approx(0.08660254)
    assert row["accuracy_no_support_last3"] == pytest.approx(0.375)
    assert headline(row, "accuracy_closed_holdout") == pytest.approx((0.75, 0.08660254))


def test_evaluations_after_the_checkpoint_and_of_other_runs_do_not_count():
    curves = curve_rows() + curve_rows((0.0,) * 4, seed=1)
    (row,) = with_headlines([metrics_row(global_step=300)], curves)
    assert row["accuracy_closed_holdout_last3"] == pytest.approx((0.2 + 0.9 + 0.6) / 3)


def test_a_diverged_run_has_no_headline_and_one_evaluation_no_error():
    diverged = metrics_row(status="diverged", accuracy_holdout=None)
    (row,) = with_headlines([diverged], curve_rows())
    assert "accuracy_holdout_last3" not in row
    (row,) = with_headlines([metrics_row(global_step=100)], curve_rows())
    assert (row["accuracy_closed_holdout_last3"], row["accuracy_closed_holdout_last3_se"]) == (
        0.2,
        None,
    )


def test_a_table_without_headlines_is_drawn_from_its_last_evaluations():
    assert headline(metrics_row(), "accuracy_holdout") == (0.75, 0.0)


def test_the_figure_shows_headlines_with_bars_and_says_so():
    rows = with_headlines([metrics_row()], curve_rows((0.2, 0.1, 0.6, 0.5)))
    (series,) = summarize(rows, "accuracy_closed_holdout", x="weight_decay")
    (point,) = series.points
    assert point.mean == pytest.approx(0.4)
    assert point.bar == pytest.approx(0.1527525)
    assert seeds_text([series]) == "n = 1 seed, bars: s.e. of its last 3 evaluations"
    figure = plot_lambda_panels(rows)
    assert figure.axes[0].get_ylabel() == "accuracy at the end, mean of 3"
    bars = figure.axes[0].containers[0]
    assert bars.lines[0].get_ydata() == pytest.approx([0.4])
    assert bars.has_yerr


def test_figure_3a_has_headlines_in_its_metrics_table():
    rows = [{**row, "progress_path": "p"} for row in curve_rows() if row["split"] == "holdout"]
    (last,) = last_rows(rows)
    assert (last["step"], last["accuracy_closed"]) == (400, 0.75)
    assert last["accuracy_closed_last3"] == pytest.approx(0.75)
    assert last["accuracy_query_last3_se"] == pytest.approx(0.0433, abs=1e-4)


def test_the_terminal_shows_headlines_and_no_closed_accuracy_of_training(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "config.json").write_text("{}")
    zero = {"accuracy_closed": 0.0, "accuracy_query": 0.5, "loss": 1.25}
    lines = [{"step": 400, "split": "train", **zero}, *curve_rows()]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "logs/metrics.jsonl").write_text(text)
    train, holdout, no_support, note = headline_lines(tmp_path)
    assert train.split() == ["train", "loss", "1.2500", "accuracy_query", "0.5000"]
    assert holdout.endswith("accuracy_query 0.3750 ± 0.0433  accuracy_closed 0.7500 ± 0.0866")
    assert no_support.startswith("no_support  loss 1.0000 ± 0.0000")
    assert note == "(mean ± standard error of the last 3 evaluations)"
