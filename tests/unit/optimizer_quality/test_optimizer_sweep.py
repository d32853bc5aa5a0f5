"""The sweep's plan and its table, from recorded metrics alone."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer_quality.config import CifarConfig, OptimizerConfig, with_optimizer
from optimizer_quality.describe import describe
from optimizer_quality.experiment import place_of
from optimizer_quality.runs_table import edited_cells, list_runs
from optimizer_quality.sweep import (
    found_in,
    markdown,
    parse_grid,
    plan_runs,
    summarise,
    write_summary,
)
from trainrig.files import write_json
from trainrig.report.describers import find_runs
from trainrig.stats import welch
from trainrig.tracking.tables import Column, read_table, write_table

BASE = CifarConfig()

GRID = {"sgd": (0.1, 0.01), "adamw": (1e-3,)}


def record(folder, name, val, test, status="complete", base=BASE):
    """Leave what a run of that name leaves."""
    optimizer, lr = name.split("_")[0], float(name.split("_lr")[1].split("_")[0])
    config = replace(with_optimizer(base, optimizer, lr), seed=int(name.rpartition("seed")[2]))
    identity = {**config.identity(), "device": "cpu", "images": {"synthetic": True}}
    write_json(folder / name / "config.json", identity)
    write_json(folder / name / "environment.json", {})
    write_json(folder / name / "status.json", {"status": status})
    final = {"val": {"accuracy": val}, "test": {"accuracy": test}}
    write_json(folder / name / "metrics.json", {"final": final})


def summary(runs, folder):
    listed, unread = list_runs(folder, [run.name for run in runs])
    assert not unread
    return summarise(runs, folder, listed)


@pytest.fixture
def recorded(tmp_path):
    runs = plan_runs(BASE, GRID, (0, 1, 2))
    for seed, shift in enumerate((-0.01, 0.0, 0.01)):
        record(tmp_path, f"sgd_lr0.1_seed{seed}", 0.80 + shift, 0.70 + shift)
        record(tmp_path, f"sgd_lr0.01_seed{seed}", 0.70 + shift, 0.99)
        record(tmp_path, f"adamw_lr0.001_seed{seed}", 0.60, 0.71 + shift)
    return runs, tmp_path


def test_rate_is_chosen_on_validation_although_the_test_set_prefers_another(recorded):
    rows = summary(*recorded)
    chosen = {row["optimizer"]: row for row in rows if row["chosen"]}
    assert chosen["sgd"]["lr"] == 0.1
    assert chosen["sgd"]["test_accuracy_mean"] == pytest.approx(0.70)
    assert chosen["sgd"]["test_accuracy_sd"] == pytest.approx(0.01)


def test_close_results_are_not_distinguishable(recorded):
    rows = summary(*recorded)
    marks = {row["optimizer"]: row["against_best"] for row in rows if row["chosen"]}
    assert marks == {"adamw": "best", "sgd": "not distinguishable"}
    assert "70.00 % ± 1.00" in markdown(rows)


def test_diverged_seeds_count_as_absent(recorded):
    runs, folder = recorded
    record(folder, "sgd_lr0.1_seed0", 0.99, 0.99, status="diverged")
    rows = {(row["optimizer"], row["lr"]): row for row in summary(runs, folder)}
    assert rows["sgd", 0.1]["n_seeds"] == 2
    assert rows["sgd", 0.01]["chosen"] == 1


def test_a_difference_that_only_an_uncorrected_test_sees_is_not_called_worse(tmp_path):
    best, near, shift = 0.80, 0.7769, 0.01
    optimizers = ("sgd", "adamw", "adam", "lion")
    runs = plan_runs(CifarConfig(), {name: (1e-3,) for name in optimizers}, (0, 1, 2))
    for seed in range(3):
        for name, mean in zip(optimizers, (best, near, near, near), strict=True):
            record(tmp_path, f"{name}_lr0.001_seed{seed}", 0.6, mean + shift * (seed - 1))
    rows = summary(runs, tmp_path)
    alone = welch([best - shift, best, best + shift], [near - shift, near, near + shift]).p
    assert alone < 0.05 < 3 * alone
    assert [row["against_best"] for row in rows] == ["best", *["not distinguishable"] * 3]
    assert [row["p_value"] for row in rows[1:]] == pytest.approx([3 * alone] * 3)
    assert "Holm-corrected over 3 comparisons" in markdown(rows)


def test_one_seed_is_not_tested(tmp_path):
    runs = plan_runs(CifarConfig(), {"sgd": (0.1,), "adamw": (1e-3,)}, (0,))
    record(tmp_path, "sgd_lr0.1_seed0", 0.6, 0.6)
    record(tmp_path, "adamw_lr0.001_seed0", 0.6, 0.1)
    marks = {row["optimizer"]: row["against_best"] for row in summary(runs, tmp_path)}
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


configurations = st.builds(
    CifarConfig,
    seed=st.integers(0, 3),
    num_epochs=st.integers(1, 30),
    batch_size=st.integers(1, 300),
    dataset=st.sampled_from(("cifar10", "fashion_mnist", "synthetic")),
    crop_epochs=st.none() | st.integers(0, 9),
    train_val_split=st.floats(0.01, 0.99),
    channels_last=st.booleans(),
    optimizer=st.builds(
        OptimizerConfig,
        type=st.sampled_from(("sgd", "adamw", "torch.optim.SGD")),
        lr=st.none() | st.floats(0, 10) | st.sampled_from((0.1, 0.01, 1e-3)),
        weight_decay=st.floats(0, 1),
        betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
        arguments=st.sampled_from(({}, {"maximize": True}, {"maximize": False})),
    ),
)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_two_runs_share_a_name_exactly_if_they_are_equal(data):
    drawn = st.sampled_from(["seed", "num_epochs", "batch_size", "dataset", "optimizer"])
    one, other = data.draw(configurations), data.draw(configurations)
    near = replace(one, **{key: getattr(other, key) for key in data.draw(st.sets(drawn))})
    for two in (other, near):
        equal = one.identity() == two.identity()
        assert (one.run_name() == two.run_name()) == equal
        assert len(one.run_name()) < 200
        assert "/" not in one.run_name()


def test_a_name_says_what_differs_from_the_file():
    short = CifarConfig(num_epochs=6, seed=0)
    assert short.run_name(short) == "sgd_seed0"
    assert replace(short, batch_size=64).run_name(short) == "sgd_batch_size64_seed0"
    faster = with_optimizer(short, "adamw", 3e-3)
    assert faster.run_name(short) == "adamw_lr0.003_seed0"
    assert with_optimizer(short, "adamw", None).run_name(short) == "adamw_seed0"


def test_rates_that_agree_to_six_digits_have_folders_of_their_own():
    runs = plan_runs(BASE, {"sgd": (0.1234567, 0.1234568)}, (0,))
    assert len({run.name for run in runs}) == 2


def test_a_run_is_found_by_its_configuration_whatever_its_name(recorded):
    _, folder = recorded
    (folder / "sgd_lr0.1_seed0").rename(folder / "mine")
    (one, other) = found_in(folder, plan_runs(BASE, {"sgd": (0.1,)}, (0, 1)))
    assert (one.name, other.name) == ("mine", "sgd_lr0.1_seed1")
    config = replace(BASE, seed=0, results_dir=str(folder))
    assert place_of(config) == folder / "mine"
    assert place_of(replace(config, num_epochs=3)) == folder / "sgd_num_epochs3_seed0"


def test_a_second_grid_keeps_the_first_in_every_table(recorded):
    _, folder = recorded
    runs = plan_runs(BASE, {"sgd": (0.1, 0.5)}, (2, 3))
    for name in ("sgd_lr0.1_seed3", "sgd_lr0.5_seed2", "sgd_lr0.5_seed3"):
        record(folder, name, 0.5, 0.5)
    shorter = replace(BASE, num_epochs=1)
    record(folder, "sgd_lr0.1_num_epochs1_seed0", 0.99, 0.99, base=shorter)
    text = write_summary(runs, folder)
    rows = {
        (row["optimizer"], row["lr"], row["differs"] or ""): (row["n_in_grid"], row["n_seeds"])
        for row in read_table(folder / "summary.csv", {"lr": Column(float)})
    }
    assert rows == {
        ("sgd", 0.1, ""): (2, 4),
        ("sgd", 0.5, ""): (2, 2),
        ("sgd", 0.01, ""): (0, 3),
        ("adamw", 0.001, ""): (0, 3),
        ("sgd", 0.1, "num_epochs: 200 -> 1"): (0, 1),
    }
    assert "Not compared: runs with num_epochs: 200 -> 1." in text
    assert "99.00 %" not in text  # the run of one epoch is never chosen
    listed = read_table(folder / "runs.csv", {"run": Column(str)})
    assert len(listed) == 13
    assert {row["run"] for row in listed if row["in_grid"]} == {run.name for run in runs}


def test_a_copy_of_a_run_counts_once(recorded):
    runs, folder = recorded
    shutil.copytree(folder / "sgd_lr0.1_seed0", folder / "copy")
    rows = {(row["lr"], row["differs"] or ""): row for row in summary(runs, folder)}
    assert rows[0.1, ""]["n_seeds"] == 3
    assert rows[0.1, "the same run as sgd_lr0.1_seed0"]["n_seeds"] == 1


@pytest.mark.parametrize("content", [None, "", "<html>", "[]", "{}", '{"final": {"val": 1}}'])
def test_a_run_whose_metrics_are_damaged_is_named_and_stops_no_table(recorded, capsys, content):
    runs, folder = recorded
    name = next(run.name for run in runs if run.name.startswith("sgd_lr0.01_"))
    before = {row["lr"]: row["n_seeds"] for row in summary(runs, folder)}
    file = folder / name / "metrics.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    text = write_summary(runs, folder)
    assert f"Not counted: {file}: " in text
    assert f"{file}: " in capsys.readouterr().err
    (row,) = [r for r in read_table(folder / "runs.csv", {}) if r["run"] == name]
    assert (row["status"], row["test_accuracy"]) == ("complete", None)
    rows = {row["lr"]: row["n_seeds"] for row in summary(runs, folder)}
    assert rows == {**before, 0.01: before[0.01] - 1}


def test_a_table_that_was_edited_by_hand_is_said_on_the_page(recorded):
    runs, folder = recorded
    write_summary(runs, folder)
    assert edited_cells(folder) == []
    table = folder / "runs.csv"
    table.write_text(
        table.read_text().replace(
            "adamw_lr0.001_seed0,adamw,0.001,", "adamw_lr0.001_seed0,adamw,0.5,"
        )
    )
    assert describe(folder, find_runs(folder)).warnings[-1] == (
        "runs.csv: lr of adamw_lr0.001_seed0 is 0.5, its own files say 0.001"
    )


def test_an_edit_of_any_column_is_said(recorded):
    runs, folder = recorded
    write_summary(runs, folder)
    table = folder / "runs.csv"
    first, *others = read_table(table, {"run": Column(str)})
    for column in first.keys() - {"run", "in_grid"}:
        value = 7 if first[column] is None else "other" if column == "status" else 0.125
        write_table([{**first, column: value}, *others], table, list(first))
        (line,) = edited_cells(folder)
        assert line.startswith(f"runs.csv: {column} of {first['run']} is {value}, its own files")


def test_a_run_that_has_ended_since_the_table_was_written_is_no_edit(recorded):
    runs, folder = recorded
    record(folder, runs[0].name, 0.9, 0.9, status="running")
    write_summary(runs, folder)
    record(folder, runs[0].name, 0.9, 0.9)
    later = (folder / "runs.csv").stat().st_mtime_ns + 1
    os.utime(folder / runs[0].name / "status.json", ns=(later, later))
    assert edited_cells(folder) == []
    os.utime(folder / "runs.csv", ns=(later, later))
    assert len(edited_cells(folder)) == 3  # the status, and the two accuracies
