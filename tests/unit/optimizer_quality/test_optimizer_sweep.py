"""The sweep's plan and its table, from recorded metrics alone."""

from __future__ import annotations

import pytest

from optimizer_quality.config import CifarConfig
from optimizer_quality.sweep import (
    markdown,
    parse_grid,
    plan_runs,
    summarise,
    write_summary,
)
from trainrig.files import write_json
from trainrig.stats import welch
from trainrig.tracking.tables import Column, read_table


def record(folder, name, val, test, status="complete"):
    write_json(folder / name / "status.json", {"status": status})
    final = {"val": {"accuracy": val}, "test": {"accuracy": test}}
    write_json(folder / name / "metrics.json", {"final": final})


@pytest.fixture
def recorded(tmp_path):
    runs = plan_runs(CifarConfig(), {"sgd": (0.1, 0.01), "adamw": (1e-3,)}, (0, 1, 2))
    for seed, shift in enumerate((-0.01, 0.0, 0.01)):
        record(tmp_path, f"sgd_lr0.1_seed{seed}", 0.80 + shift, 0.70 + shift)
        record(tmp_path, f"sgd_lr0.01_seed{seed}", 0.70 + shift, 0.99)
        record(tmp_path, f"adamw_lr0.001_seed{seed}", 0.60, 0.71 + shift)
    return runs, tmp_path


def test_rate_is_chosen_on_validation_although_the_test_set_prefers_another(recorded):
    rows = summarise(*recorded)
    chosen = {row["optimizer"]: row for row in rows if row["chosen"]}
    assert chosen["sgd"]["lr"] == 0.1
    assert chosen["sgd"]["test_accuracy_mean"] == pytest.approx(0.70)
    assert chosen["sgd"]["test_accuracy_sd"] == pytest.approx(0.01)


def test_close_results_are_not_distinguishable(recorded):
    rows = summarise(*recorded)
    marks = {row["optimizer"]: row["against_best"] for row in rows if row["chosen"]}
    assert marks == {"adamw": "best", "sgd": "not distinguishable"}
    assert "70.00 % ± 1.00" in markdown(rows)


def test_diverged_seeds_count_as_absent(recorded):
    runs, folder = recorded
    record(folder, "sgd_lr0.1_seed0", 0.99, 0.99, status="diverged")
    rows = {(row["optimizer"], row["lr"]): row for row in summarise(runs, folder)}
    assert rows["sgd", 0.1]["n_seeds"] == 2
    assert rows["sgd", 0.01]["chosen"] == 1


def test_a_difference_that_only_an_uncorrected_test_sees_is_not_called_worse(tmp_path):
    best, near, shift = 0.80, 0.7769, 0.01
    optimizers = ("sgd", "adamw", "adam", "lion")
    runs = plan_runs(CifarConfig(), {name: (1e-3,) for name in optimizers}, (0, 1, 2))
    for seed in range(3):
        for name, mean in zip(optimizers, (best, near, near, near), strict=True):
            record(tmp_path, f"{name}_lr0.001_seed{seed}", 0.6, mean + shift * (seed - 1))
    rows = summarise(runs, tmp_path)
    alone = welch([best - shift, best, best + shift], [near - shift, near, near + shift]).p
    assert alone < 0.05 < 3 * alone
    assert [row["against_best"] for row in rows] == ["best", *["not distinguishable"] * 3]
    assert [row["p_value"] for row in rows[1:]] == pytest.approx([3 * alone] * 3)
    assert "Holm-corrected over 3 comparisons" in markdown(rows)


def test_one_seed_is_not_tested(tmp_path):
    runs = plan_runs(CifarConfig(), {"sgd": (0.1,), "adamw": (1e-3,)}, (0,))
    record(tmp_path, "sgd_lr0.1_seed0", 0.6, 0.6)
    record(tmp_path, "adamw_lr0.001_seed0", 0.6, 0.1)
    marks = {row["optimizer"]: row["against_best"] for row in summarise(runs, tmp_path)}
    assert marks == {"sgd": "best", "adamw": "not tested: one seed"}


def test_grid_mistakes_are_named():
    with pytest.raises(ValueError, match="no list of numbers"):
        parse_grid(["sgd=fast"], [])
    with pytest.raises(ValueError, match="no learning rate"):
        parse_grid(["sgd"], [])
    with pytest.raises(ValueError, match="did you mean 'sgd'"):
        plan_runs(CifarConfig(), {"sgdd": (0.1,)}, (0,))


def test_summary_reads_back(recorded):
    runs, folder = recorded
    assert "against the best" in write_summary(runs, folder)
    rows = read_table(folder / "summary.csv", {"optimizer": Column(str), "lr": Column(float)})
    assert len(rows) == 3
