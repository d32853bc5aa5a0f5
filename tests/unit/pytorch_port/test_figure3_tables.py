"""Tables of Figure 3: schema, exact round trip, caching, and faults named by place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pytorch_port.figures.figure3_series import summarize
from pytorch_port.sweep import figure3_tables as tables
from pytorch_port.sweep.runs_table import read_runs


def metrics_row(**changes):
    row = {
        "class_count": 100,
        "n_rare_classes": 80,
        "n_common_classes": 10,
        "n_holdout_classes": 10,
        "weight_decay": 0.0,
        "global_step": 400,
        "accuracy_holdout": 0.1,
        "accuracy_no_support": 0.9,
        "loss_holdout": 3.0,
        "loss_no_support": 0.5,
        "accuracy_closed_holdout": 0.1 + 0.2,
        "backend": "torch",
        "seed": 0,
    }
    return row | changes


def run_row(**changes):
    row = {
        "class_count": 100,
        "weight_decay": 0.0,
        "checkpoint": Path("sweep/class100_wd0/checkpoints/models/latest/step_400/weights.pt"),
        "backend": "torch",
        "seed": 0,
        "completed_steps": 400,
        "n_rare_classes": 80,
        "n_common_classes": 10,
        "n_holdout_classes": 10,
        "status": "complete",
    }
    return row | changes


EVALUATED = {
    "global_step": 400,
    "accuracy_holdout": 0.2,
    "accuracy_no_support": 0.8,
    "loss_holdout": 1.0,
    "loss_no_support": 2.0,
}


def test_metrics_have_the_prescribed_columns_and_order(tmp_path):
    path = tmp_path / "figure3_adamw_metrics.csv"
    rows = [
        metrics_row(class_count=1600),
        metrics_row(weight_decay=0.1, **{"weight_l2/head": 2.5}),
        metrics_row(),
    ]
    tables.write_metrics(rows, path)
    header, *lines = path.read_text().splitlines()
    assert header == (
        "class_count,n_rare_classes,n_common_classes,n_holdout_classes,weight_decay,global_step,"
        "accuracy_holdout,accuracy_no_support,loss_holdout,loss_no_support,"
        "accuracy_closed_holdout,backend,seed,weight_l2__head"
    )
    assert [line.split(",")[0] + " " + line.split(",")[4] for line in lines] == [
        "100 0.0",
        "100 0.1",
        "1600 0.0",
    ]


def test_metrics_round_trip_exactly(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = [metrics_row(), metrics_row(weight_decay=3e-4, accuracy_holdout=None)]
    tables.write_metrics(rows, path)
    assert tables.read_metrics(path) == rows


def test_table_of_the_jax_sweep_is_read_with_its_first_columns_only(tmp_path):
    path = tmp_path / "metrics.csv"
    names = list(tables.METRICS_REQUIRED)
    row = metrics_row()
    path.write_text(",".join(names) + "\n" + ",".join(str(row[name]) for name in names) + "\n")
    (read,) = tables.read_metrics(path, backend="jax")
    assert read["backend"] == "jax"
    assert tables.run_key(read) == (100, 0.0, "jax", "decoupled", 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy_holdout": 45.2}, r"row 2: accuracy_holdout is 45\.2; a share in \[0, 1\]"),
        ({"weight_decay": -0.1}, r"row 2: weight_decay is -0\.1; a number >= 0"),
        ({"weight_decay": math.nan}, "row 2: weight_decay is nan"),
        ({"weight_decay": 0.0}, "row 2 repeats the run class_count 100, weight_decay 0"),
    ],
)
def test_impossible_rows_are_refused(tmp_path, changes, message):
    rows = [metrics_row(), metrics_row(weight_decay=0.5) | changes]
    with pytest.raises(ValueError, match=message):
        tables.write_metrics(rows, tmp_path / "metrics.csv")
    assert list(tmp_path.iterdir()) == []


def test_missing_columns_are_named(tmp_path):
    row = metrics_row()
    del row["loss_holdout"]
    with pytest.raises(ValueError, match="row 1 lacks loss_holdout"):
        tables.write_metrics([row], tmp_path / "metrics.csv")
    (tmp_path / "runs.csv").write_text("class_count,weight_decay,checkpont\n100,0,x\n")
    with pytest.raises(
        ValueError, match=r"column 'checkpoint' is missing; did you mean 'checkpont'"
    ):
        read_runs(tmp_path / "runs.csv")


def test_runs_are_read_relative_to_their_file(tmp_path):
    (tmp_path / "runs.csv").write_text(
        "class_count,weight_decay,checkpoint\n"
        "100,0,class100_wd0/checkpoints/models/latest/step_4/weights.pt\n"
    )
    (row,) = read_runs(tmp_path / "runs.csv")
    assert tables.run_directory(row["checkpoint"]) == tmp_path / "class100_wd0"
    with pytest.raises(ValueError, match="not a checkpoint of a run"):
        tables.run_directory(Path("class100_wd0/weights.pt"))


def test_only_runs_without_current_metrics_are_evaluated():
    seen = []

    def evaluate(path):
        seen.append(path)
        return EVALUATED

    runs = [run_row(), run_row(weight_decay=0.1), run_row(weight_decay=1.0)]
    cached = [metrics_row(), metrics_row(weight_decay=0.1, global_step=200)]
    rows = tables.collect_metrics(runs, evaluate, cached)
    assert seen == [Path("sweep/class100_wd0")] * 2  # λ = 0.1 has moved on, λ = 1 is new
    assert rows[0] is cached[0]
    assert rows[2]["accuracy_holdout"] == 0.2
    assert rows[2]["n_rare_classes"] == 80
    assert "checkpoint" not in rows[2]


@pytest.mark.parametrize("other", [{"sum_lr": 0.5}, {"optimizer": "sgd"}, {"source": "synthetic"}])
def test_a_cached_row_of_another_sweep_is_not_taken_for_a_run(other):
    facts = {"sum_lr": 0.25, "optimizer": "adamw", "source": "files"}
    cached = [metrics_row(**facts, **{"accuracy_holdout": 0.9}) | other]
    (row,) = tables.collect_metrics([run_row() | facts], lambda path: EVALUATED, cached)
    assert row["accuracy_holdout"] == EVALUATED["accuracy_holdout"] != 0.9
    (same,) = tables.collect_metrics([run_row() | facts], None, [cached[0] | facts])
    assert same["accuracy_holdout"] == 0.9


def test_a_diverged_run_gets_no_accuracies(tmp_path):
    run = run_row(status="diverged", completed_steps=300)
    (row,) = tables.collect_metrics([run], evaluate=None)
    assert (row["status"], row["global_step"]) == ("diverged", 300)
    assert row["accuracy_holdout"] is None
    tables.write_metrics([row], tmp_path / "metrics.csv")
    assert tables.read_metrics(tmp_path / "metrics.csv") == [row]


def test_a_run_of_another_backend_cannot_be_evaluated():
    with pytest.raises(ValueError, match="backend 'jax' cannot be evaluated here"):
        tables.collect_metrics([run_row(backend="jax")], evaluate=None)


def test_a_run_in_two_tables_counts_once_and_the_last_one(capsys):
    old, new = metrics_row(accuracy_holdout=0.25), metrics_row(accuracy_holdout=0.75)
    other = metrics_row(seed=1)
    assert tables.merge_metrics([old, other], [new]) == [new, other]
    assert "seed 0 is there 2 times; it counts once, the newest" in capsys.readouterr().err
    longer = new | {"global_step": new["global_step"] + 1}
    with pytest.raises(ValueError, match="seed 0 with another setting; one row each"):
        tables.merge_metrics([old], [longer])


def test_curves_of_a_run_in_two_tables_count_once():
    facts = {"class_count": 100, "weight_decay": 0.0, "backend": "torch", "l2_mode": "decoupled"}
    rows = [
        facts | {"seed": seed, "step": 5, "split": "holdout", "accuracy_closed": value}
        for seed, value in ((0, 0.25), (1, 0.5), (0, 0.75))
    ]
    merged = tables.merge_curves(rows[:2], rows[2:])
    assert [(row["seed"], row["accuracy_closed"]) for row in merged] == [(0, 0.75), (1, 0.5)]
    (series,) = summarize(rows, "accuracy_closed", x="step")
    (point,) = series.points
    assert (point.n, point.mean) == (2, 0.625)


def test_curves_come_from_progress_and_round_trip(tmp_path):
    progress = tmp_path / "progress.txt"
    progress.write_text(
        "step=100 split=train loss=4.5\n"
        "step=200 split=holdout loss=1.25 accuracy_query=0.1 accuracy_closed=0.5\n"
        "step=200 split=no_support loss=nan accuracy_query=0.3\n"
    )
    rows = tables.curves_of_run(run_row(seed=3), progress)
    assert [(row["step"], row["split"], row["seed"]) for row in rows] == [
        (200, "holdout", 3),
        (200, "no_support", 3),
    ]
    assert rows[1]["accuracy_closed"] is None
    rows[1]["loss"] = None  # NaN is not equal to itself
    tables.write_curves(rows, tmp_path / "curves.csv")
    assert tables.read_curves(tmp_path / "curves.csv") == rows


def test_curves_with_an_unknown_regime_or_no_step_are_refused(tmp_path):
    (tmp_path / "progress.txt").write_text("split=holdout loss=1.0\n")
    with pytest.raises(ValueError, match=r"progress\.txt: an evaluation has no step"):
        tables.curves_of_run(run_row(), tmp_path / "progress.txt")
    names = list(tables.CURVES_REQUIRED)
    values = [100, 0.0, "torch", "decoupled", 0, 5, "test", 0.5, 0.5, 1.0]
    text = ",".join(names) + "\n" + ",".join(map(str, values)) + "\n"
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(ValueError, match="split is 'test'; holdout or no_support is expected"):
        tables.read_curves(tmp_path / "curves.csv")


def test_shrink_factor_of_the_published_grid():
    # Σlr of 50,000 steps at the paper's schedule is 6.69 (warm-up 4000, then inverse square root)
    assert tables.shrink_factor(1e-2, 6.69) == pytest.approx(0.935, abs=5e-4)
    assert tables.shrink_factor(1.0, 6.69) == pytest.approx(0.0012, abs=5e-5)
