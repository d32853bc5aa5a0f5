"""Settings of the published conditions, and which number stands beside which."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytorch_port.config.schema import IclConfig
from pytorch_port.figures.reproduction import CONDITIONS, make_plan, runs_of
from pytorch_port.figures.reproduction_figures import _seeds_text
from pytorch_port.figures.reproduction_files import (
    comparison_rows,
    curve_rows,
    is_published_setting,
    published_points,
    published_range,
)
from trainrig.config import apply_overrides

TRAINED = {"100 classes": 100, "1600 classes": 1613, "12800 classes": 12800}


@pytest.mark.parametrize("figure", ["2", "3", "6", "7"])
def test_every_condition_is_a_valid_run(figure):
    for planned in make_plan(IclConfig(), [figure], [0, 1]):
        generator = planned.run.config.data.generator_config
        assert planned.run.config.seed == planned.seed
        trained = generator.n_rare_classes + generator.n_common_classes
        assert trained == TRAINED.get(f"{planned.condition.classes} classes")
        assert is_published_setting(planned.run.config)
        if figure == "6":
            assert generator.n_common_classes == 10


def test_other_scales_are_not_comparable():
    assert not is_published_setting(apply_overrides(IclConfig(), {"preproc.downsample": True}))
    assert not is_published_setting(apply_overrides(IclConfig(), {"transformer.num_layers": 2}))
    assert not is_published_setting(apply_overrides(IclConfig(), {"data.source": "synthetic"}))


def write_log(folder, values):
    (folder / "logs").mkdir(parents=True)
    lines = [
        {"step": step, "split": split, "accuracy_closed": value, "accuracy_query": value / 2}
        for step, value in values.items()
        for split in ("train", "holdout", "no_support")
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "logs" / "metrics.jsonl").write_text(text)


def test_ours_stands_beside_the_published_number_of_the_same_step(tmp_path):
    base = apply_overrides(IclConfig(), {"training_steps": 100_000})
    plan = make_plan(base, ["3"], [0, 1])
    for planned in plan:
        if planned.condition.classes == 1600:
            write_log(tmp_path / planned.run.name, {60_000: 0.7 + 0.1 * planned.seed, 90_000: 0.9})
    rows = comparison_rows(plan, curve_rows(plan, tmp_path), [])
    found = {(r["label"], r["quantity"], r["published_step"]): r for r in rows}
    row = found["1600 classes", "in_context", 60_000]
    assert (row["published"], row["our_step"], row["n_seeds"]) == (0.78, 60_000, 2)
    assert row["ours_mean"] == pytest.approx(0.75)
    assert row["ours_sd"] == pytest.approx(0.0707, abs=1e-3)
    assert row["comparable"] == "yes"
    assert found["1600 classes", "in_context", 500_000]["ours_mean"] is None
    assert found["1600 classes", "in_context", 500_000]["comparable"] == "no"
    assert found["100 classes", "in_weights", 50_000]["n_seeds"] == 0


def test_toy_runs_are_shown_at_their_end(tmp_path):
    base = apply_overrides(IclConfig(), {"training_steps": 200, "preproc.downsample": True})
    plan = make_plan(base, ["2"], [0])
    write_log(tmp_path / plan[0].run.name, {50: 0.1, 100: 0.5, 150: 0.7, 200: 0.6})
    rows = comparison_rows(plan, curve_rows(plan, tmp_path), [])
    first = [row for row in rows if row["label"] == "p_bursty = 0"]
    assert {(r["our_step"], r["comparable"]) for r in first} == {(200, "no")}
    assert {round(r["ours_mean"], 6) for r in first} == {0.6, 0.3}  # of the last three


def test_what_was_published_is_found_for_every_condition():
    assert all(published_points(c) or published_range(c) for c in CONDITIONS)
    burst = replace(CONDITIONS[0], p_bursty=0.5)
    assert ("in_weights", 500_000, 0.79) in published_points(burst)


def test_no_value_is_made_up_inside_a_published_range():
    plan = make_plan(IclConfig(), ["7"], [0])
    rows = comparison_rows(plan, [], [])
    (row,) = (r for r in rows if r["label"] == plan[0].condition.label)
    assert row["published"] is None
    assert (row["published_low"], row["published_high"]) == (0.58, 0.66)


def test_shared_conditions_are_one_run():
    names = [run.name for run in runs_of(make_plan(IclConfig(), ["2", "3", "7"], [3]))]
    assert len(names) == len(set(names)) == 8


def test_the_title_counts_the_seeds_of_each_condition():
    rows = [{"label": "a", "seed": 0}, {"label": "a", "seed": 1}, {"label": "b", "seed": 0}]
    assert _seeds_text(rows * 2) == "n = 1 to 2 seeds, mean and s.d."
    assert _seeds_text(rows[:2]) == "n = 2 seeds, mean and s.d."
    assert _seeds_text(rows[2:]) == "n = 1 seed"
