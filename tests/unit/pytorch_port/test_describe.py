"""What the report page says of runs: a spread is over seeds of one setting, or there is none."""

from __future__ import annotations

from pytorch_port.figures.describe import describe
from trainrig.report.records import RunRecord


def run(name, value, *, seed=0, lr=1e-3, step=6):
    counts = {"n_rare_classes": 80, "n_common_classes": 10, "n_holdout_classes": 10}
    scalars = {"accuracy_closed": value, "accuracy_query": value}
    return RunRecord(
        path=None,
        name=name,
        step=step,
        config={
            "data": {"generator_config": counts},
            "optimizer": {"weight_decay": 0.0, "max_lr": lr},
            "seed": seed,
        },
        final={"holdout": scalars, "no_support": scalars},
    )


def tiles(folder, *runs):
    found = describe(folder, runs).tiles
    return [(tile.value, tile.note) for tile in found if tile.label.startswith("in-context")]


def test_seeds_of_one_setting_are_averaged(tmp_path):
    found = tiles(tmp_path, run("a", 0.4), run("b", 0.6, seed=1))
    assert found == [("50.0 ± 14.1 %", "λ = 0, 2 seeds, ± s.d. over seeds")]


def test_two_learning_rates_of_one_seed_are_no_two_seeds(tmp_path):
    found = tiles(tmp_path, run("a", 0.4), run("b", 0.6, lr=1e-2))
    assert found == [
        ("40.0 %", "λ = 0, a at step 6, 1 seed"),
        ("60.0 %", "λ = 0, b at step 6, 1 seed"),
    ]


def test_a_run_that_stands_earlier_is_not_averaged_with_a_finished_one(tmp_path):
    found = tiles(tmp_path, run("a", 0.4), run("b", 0.6, seed=1, step=2))
    assert [value for value, _ in found] == ["40.0 %", "60.0 %"]
