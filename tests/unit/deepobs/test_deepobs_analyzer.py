from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest

from deepobs.analyzer import plots, tables
from deepobs.analyzer.aggregate import (
    best_setting,
    choose_metric,
    published_moments,
    published_speed,
    rank_settings,
    sensitivity,
    summarise,
    threshold_of,
)
from deepobs.analyzer.baselines import load_baselines
from deepobs.analyzer.profiles import (
    left_out,
    performance_profile,
    times_to_threshold,
)
from deepobs.analyzer.results import read_results
from deepobs.describe import describe, find_runs
from trainrig.stats import holm, welch


def write(root, problem, optimizer, lr, seed, test, *, schema="1.1", accuracy=False, **extra):
    losses = list(test)
    content = {
        "testproblem": problem,
        "batch_size": 128,
        "num_epochs": len(losses) - 1,
        "random_seed": seed,
        "train_losses": losses,
        "test_losses": losses,
        "minibatch_train_losses": [],
    }
    if accuracy:
        content |= {"test_accuracies": losses, "train_accuracies": losses}
    if schema == "1.1":
        content |= {"optimizer": optimizer, "learning_rate": lr, "hyperparams": {"momentum": 0.9}}
    else:
        hyperparams = {"lr": lr, "momentum": 0.9}
        content |= {"optimizer_name": optimizer, "optimizer_hyperparams": hyperparams}
    content |= extra
    folder = root / problem / optimizer / f"lr__{lr}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"random_seed__{seed}__2020-01-01-00-00-00.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def folder(tmp_path):
    for seed, shift in ((42, 0.0), (43, 0.2)):
        write(tmp_path, "quadratic_deep", "Mine", 0.1, seed, [350, 90, 87 + shift])
    write(tmp_path, "quadratic_deep", "Mine", 0.2, 42, [350, 80, 95], schema="1.2")
    write(tmp_path, "quadratic_deep", "Mine", 0.3, 42, [350, math.nan, math.inf])
    write(tmp_path, "fmnist_2c2d", "Mine", 0.1, 42, [0.1, 0.9, 0.95], accuracy=True)
    return tmp_path


def test_both_schemas_are_read(folder):
    results = read_results(folder)
    assert results.testproblems == ["fmnist_2c2d", "quadratic_deep"]
    settings = results.of("quadratic_deep", "Mine")
    assert [s.learning_rate for s in settings] == [0.1, 0.2, 0.3]
    assert settings[1].hyperparams == {"lr": 0.2, "momentum": 0.9}
    assert settings[2].runs[0].status == "diverged"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", '{"a": 1}', '{"testproblem": "x", "train_losses": 3}', "\x00\xff"],
)
def test_broken_and_foreign_files_are_named_skipped_and_counted(folder, content):
    path = folder / "quadratic_deep" / "Mine" / "lr__0.1" / "random_seed__9__x.json"
    path.write_text(content)
    results = read_results(folder)
    assert [skipped.path for skipped in results.skipped] == [path]
    assert str(path) in results.skipped[0].reason
    assert sum(1 for _ in results) == 5


def test_absent_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such results folder"):
        read_results(tmp_path / "absent")


def test_figures_follow_the_published_conventions(folder):
    setting = read_results(folder).of("quadratic_deep", "Mine")[0]
    summary = summarise(setting, "test_losses")
    assert summary.mean == pytest.approx(87.1)
    assert summary.std == pytest.approx(0.1)  # population
    assert summary.best == pytest.approx(87.1)
    assert summary.speed == 2
    assert summary.reached == 2
    late = read_results(folder).of("quadratic_deep", "Mine")[2]
    never = summarise(late, "test_losses")
    assert (never.speed, never.reached) == (None, 0)
    assert math.isnan(summarise(late, "test_losses").mean)


def test_ranking_by_mode(folder):
    settings = read_results(folder).of("quadratic_deep", "Mine")

    def best(mode):
        return rank_settings(settings, "test_losses", mode)[0].learning_rate

    assert best("final") == 0.1
    assert best("best") == 0.2
    assert best("most") == 0.1
    assert rank_settings(settings, "test_losses", "final")[-1].learning_rate == 0.3
    with pytest.raises(ValueError, match="accepted: final, best, most"):
        best("first")


@pytest.mark.parametrize("mode", ["final", "best", "most"])
def test_a_setting_of_which_a_run_diverged_is_last_in_every_mode(tmp_path, mode):
    for seed in (42, 43, 44):
        write(tmp_path, "quadratic_deep", "Mine", 0.3, seed, [350, 60, math.inf])
    write(tmp_path, "quadratic_deep", "Mine", 0.1, 42, [350, 90, 88])
    settings = read_results(tmp_path).of("quadratic_deep", "Mine")
    ranked = rank_settings(settings, "test_losses", mode)
    assert [setting.learning_rate for setting in ranked] == [0.1, 0.3]


@pytest.mark.parametrize("mode", ["final", "best", "most"])
def test_settings_are_judged_by_a_curve_that_all_of_them_have(tmp_path, mode):
    curve = [350.0, 95.0]
    extra = {"compat": "fixed", "valid_losses": curve}
    write(tmp_path, "quadratic_deep", "Mine", 0.1, 42, curve, **extra)
    for seed in (42, 43):
        write(tmp_path, "quadratic_deep", "Mine", 0.2, seed, [350.0, 90.0])
    row = tables.make_rows(read_results(tmp_path), mode)[0]
    assert (row.metric, row.performance, row.n) == ("test_losses", 90.0, 2)


def test_repaired_data_are_not_compared_with_published_runs(tmp_path):
    write(tmp_path, "quadratic_deep", "Mine", 0.1, 42, [350.0, 80.0], compat="fixed")
    row = tables.make_rows(read_results(tmp_path))[0]
    assert row.verdict == "not compared: the published runs have no repaired data"
    assert row.tunability == "lr 1.00e-01, momentum 0.9, compat fixed"


def test_a_diverged_setting_has_no_figures_in_any_table(tmp_path):
    for seed in (42, 43):
        write(tmp_path, "quadratic_deep", "Mine", 0.3, seed, [350, 60, math.inf])
    rows = tables.make_rows(read_results(tmp_path))
    for text in (tables.to_markdown(rows), tables.to_latex(rows)):
        assert "nan" not in text
        assert "diverged" in text
    table = next(csv.DictReader(io.StringIO(tables.to_csv(rows))))
    assert [table[key] for key in ("performance", "std", "low", "n")] == ["", "", "", "2"]
    (tile,) = describe(tmp_path, find_runs(tmp_path)).tiles
    assert (tile.value, tile.note) == ("diverged", "test losses, 2 seeds")


def test_one_seed_has_no_deviation_in_the_csv(tmp_path):
    write(tmp_path, "quadratic_deep", "Mine", 0.3, 42, [350, 60, 90])
    text = tables.to_csv(tables.make_rows(read_results(tmp_path)))
    row = next(csv.DictReader(io.StringIO(text)))
    assert [row[key] for key in ("performance", "std", "low", "n")] == ["90.0", "", "", "1"]


def test_metric_follows_from_the_curves(folder):
    results = read_results(folder)
    metric = choose_metric(best_setting(results, "fmnist_2c2d", "Mine"))
    assert metric == "test_accuracies"
    with pytest.raises(ValueError, match="available: train_losses"):
        choose_metric(best_setting(results, "quadratic_deep", "Mine"), "test_accuracies")
    assert threshold_of("fmnist_2c2d", "test_accuracies") == pytest.approx(0.9198093)
    assert threshold_of("fmnist_2c2d", "test_losses") is None
    assert threshold_of("two_d_beale", "test_losses") is None


def test_sensitivity_is_relative_to_the_best(folder):
    x, y = sensitivity(read_results(folder).of("quadratic_deep", "Mine"), "test_losses")
    assert x.tolist() == [0.1, 0.2, 0.3]
    np.testing.assert_allclose(y, [1.0, 87.1 / 95, 0.0])


def test_verdicts_are_welch_tests_holm_corrected_over_the_table(tmp_path):
    for seed in range(10):
        for name, final in (("Same", 87.05), ("Better", 86.9), ("Worse", 88.0)):
            curve = [350.0] * 100 + [final + 0.01 * (seed % 2)]
            write(tmp_path, "quadratic_deep", name, 0.1, seed, curve)
    rows = {row.optimizer: row for row in tables.make_rows(read_results(tmp_path))}
    assert rows["Same"].verdict == "not distinguishable from published Momentum"
    assert rows["Better"].verdict == "better than published Momentum"
    assert rows["Worse"].verdict == "worse than published Momentum"
    published = published_moments(
        load_baselines().row("quadratic_deep", "Momentum"), "test_losses", 100
    )
    finals = {
        name: [final + 0.01 * (seed % 2) for seed in range(10)]
        for name, final in (("Same", 87.05), ("Better", 86.9), ("Worse", 88.0))
    }
    p_values = dict(
        zip(finals, holm([welch(v, published).p for v in finals.values()]), strict=True)
    )
    assert {name: rows[name].p_value for name in finals} == pytest.approx(p_values)
    assert "Holm-corrected over the 3 comparisons" in tables.to_markdown(list(rows.values()))


def test_a_run_longer_than_the_published_ones_is_not_held_against_their_last_value(tmp_path):
    for seed in range(3):
        write(tmp_path, "quadratic_deep", "Mine", 0.1, seed, [350.0] * 150 + [10.0 + seed])
    row = tables.make_rows(read_results(tmp_path))[0]
    assert (row.verdict, row.p_value) == ("published runs end at epoch 100", None)
    momentum = load_baselines().row("quadratic_deep", "Momentum")
    with pytest.raises(ValueError, match="end at epoch 100, not 101"):
        published_moments(momentum, "test_losses", 101)


def test_one_seed_is_not_tested(tmp_path):
    write(tmp_path, "quadratic_deep", "Mine", 0.1, 42, [350.0] * 100 + [10.0])
    row = tables.make_rows(read_results(tmp_path))[0]
    assert "| 1 | 100 | 10 |" in tables.to_markdown([row])  # one run has no scatter
    assert "$10$" in tables.to_latex([row])
    assert (row.verdict, row.p_value) == (
        "not tested against published Momentum: one seed",
        None,
    )


def test_a_short_run_is_compared_at_its_own_length(tmp_path):
    mean = load_baselines().band("fmnist_2c2d", "Adam", "test_accuracies")[0]
    for seed in range(3):
        curve = (mean[:6] + 1e-3 * (seed - 1)).tolist()
        write(tmp_path, "fmnist_2c2d", "Mine", 0.1, seed, curve, accuracy=True)
    (mine, *_) = tables.make_rows(read_results(tmp_path))
    assert mine.epochs == 5
    assert mine.verdict.startswith("not distinguishable from published")
    assert mine.verdict.endswith("at epoch 5")
    axis = plots.plot_performance(read_results(tmp_path)).axes[0]
    assert {len(line.get_xdata()) for line in axis.lines} <= {6, 2}


def test_tables(folder):
    rows = tables.make_rows(read_results(folder))
    published = [row.optimizer for row in rows if row.source == "published"]
    assert published == ["SGD", "Momentum", "Adam"] * 2
    table = list(csv.DictReader(io.StringIO(tables.to_csv(rows))))
    assert len(table) == len(rows)
    assert float(table[-1]["performance"]) == pytest.approx(87.112, abs=1e-3)
    assert "| quadratic_deep | Mine | run | 2 | 2 | 87.1 ± 0.1 |" in tables.to_markdown(rows)
    latex = tables.to_latex(rows)
    assert r"\cellcolor{green!100!red}" in latex
    assert latex.count(r"\\") == len(rows) + 1


def test_profiles():
    times = {"a": {"p": 1.0, "q": 4.0}, "b": {"p": 2.0, "q": 2.0}, "c": {"p": math.inf}}
    taus = np.array([1.0, 1.9, 2.0, 3.0])
    profile = performance_profile(times, taus)
    assert profile["a"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert profile["b"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert profile["c"].tolist() == [0.0] * 4


def test_times_contain_the_published_baselines(folder):
    assert list(times_to_threshold(read_results(folder))) == ["Mine"]  # 2 epochs; published 100
    assert left_out(read_results(folder))[1] == "quadratic_deep: published (not of 2 epochs)"
    write(folder, "quadratic_deep", "Long", 0.1, 42, [350.0] + [80.0] * 100)
    times = times_to_threshold(read_results(folder))
    assert times["Long"]["quadratic_deep"] == 1
    assert times["SGD (published)"]["quadratic_deep"] == pytest.approx(51.1)
    assert "quadratic_deep" not in times["Mine"]
    assert left_out(read_results(folder))[1] == "quadratic_deep: Mine (not of 100 epochs)"


def test_baselines_in_the_package():
    baselines = load_baselines()
    assert len(baselines.rows) == 24
    assert baselines.row("quadratic_deep", "SGD")["lr"] == pytest.approx(0.01584893)
    mean, std = baselines.band("fmnist_2c2d", "Adam", "test_accuracies")
    assert mean.shape == std.shape == (101,)
    assert baselines.band("fmnist_2c2d", "Adam", "valid_losses") is None


def test_figures_can_be_drawn(folder):
    results = read_results(folder)
    figure = plots.plot_performance(results)
    labels = {
        line.get_label()
        for axis in figure.axes
        for line in axis.lines
        if line.get_label()[0] != "_"
    }
    assert {"Mine (n=2)", "SGD (published)", "Adam (published)"} <= labels
    assert len(plots.plot_sensitivity(results).axes) == 2
    plots.plot_profiles(results)
    plots.plot_final_metric_vs_tuning_rank(results, "quadratic_deep", "Mine")
    plots.plot_sensitivity_2d(results, "quadratic_deep", "Mine", "lr", "momentum")
    plots.plot_budget({"grid": np.array([3.0, 2.0])}, "test_losses")
    with pytest.raises(ValueError, match="no setting has both"):
        plots.plot_sensitivity_2d(results, "quadratic_deep", "Mine", "lr", "eps")


def test_equal_seeds_of_a_setting_count_once_and_the_newest_wins(tmp_path):
    """Copies, other folder names, spellings and defaults that are given: one setting."""

    def copy(name, folder, final, **extra):
        path = write(tmp_path, "quadratic_deep", name, 0.1, 42, [350, 90, final], **extra)
        moved = tmp_path / "quadratic_deep" / name / folder
        moved.mkdir(exist_ok=True)
        return path.rename(moved / path.name)

    for year, name, folder, extra in (
        (2020, "Adam", "a", {"learning_rate": 1e-1, "hyperparams": {"eps": 1e-8}}),
        (2021, "Adam", "b", {"learning_rate": 0.1, "hyperparams": {}}),
        (2023, "adam", "c", {"learning_rate": 0.1, "hyperparams": {"betas": [0.9, 0.999]}}),
        (2022, "Adam", "d", {"learning_rate": 0.1, "hyperparams": {}, "weight_decay": 0.0}),
    ):
        path = copy(name, folder, 100 + year, **extra)
        path.rename(path.with_name(f"random_seed__42__{year}-01-01-00-00-00.json"))
    write(tmp_path, "quadratic_deep", "Adam", 0.1, 43, [350, 90, 2123], hyperparams={})
    results = read_results(tmp_path)
    (setting,) = results.of("quadratic_deep", "Adam")
    assert summarise(setting, "test_losses").n == 2
    assert sorted(run.curves["test_losses"][-1] for run in setting.runs) == [2123, 2123]
    (line,) = results.repeated
    assert "seed 42 is there 4 times; it counts once, the newest" in line
    row = tables.make_rows(results)[0]
    assert (row.n, row.std) == (2, 0.0)


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 64},
        {"weight_decay": 1e-3},
        {"hyperparams": {"momentum": 0.8}},
        {"l2": "optimizer-groups"},
        {"lr_sched_epochs": [1], "lr_sched_factors": [0.1]},
        {"compat": "fixed"},
        {"environment": {"dtype": "float64"}},
        {"optimizer_class": "mine.Momentum"},
        {"training_params": {"clip": 1.0}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_decides_the_numbers_makes_another_setting(tmp_path, other):
    problem = "cifar10_3c3d"  # has an L2 term
    write(tmp_path, problem, "Momentum", 0.1, 42, [2, 1], accuracy=True)
    path = write(tmp_path, problem, "Momentum", 0.1, 43, [2, 1], accuracy=True, **other)
    assert len(read_results(tmp_path).of(problem, "Momentum")) == 2
    path.unlink()
    write(tmp_path, problem, "Momentum", 0.1, 43, [2, 1], accuracy=True, weight_decay=2e-3)
    assert len(read_results(tmp_path).of(problem, "Momentum")) == 1  # the problem's default


def test_the_mode_most_does_not_prefer_what_was_repeated(tmp_path):
    for seed in (1, 2):
        write(tmp_path, "quadratic_deep", "Mine", 0.1, seed, [350, 87])
    path = write(tmp_path, "quadratic_deep", "Mine", 0.2, 1, [350, 99])
    for year in range(2001, 2006):
        copied = path.with_name(f"random_seed__1__{year}-01-01-00-00-00.json")
        copied.write_text(path.read_text())
    best = best_setting(read_results(tmp_path), "quadratic_deep", "Mine", "most")
    assert best.learning_rate == 0.1


def test_a_threshold_that_is_never_reached_gives_no_speed(tmp_path):
    for seed, final in ((1, 350.0), (2, 80.0)):
        write(tmp_path, "quadratic_deep", "Half", 0.1, seed, [350.0, 350.0, final])
        write(tmp_path, "quadratic_deep", "Never", 0.1, seed, [350.0, 350.0, 340.0])
        write(tmp_path, "quadratic_deep", "Whole", 0.1, seed, [350.0, 80.0, 80.0])
        write(tmp_path, "quadratic_deep", "Slow", 0.1, seed, [350.0, 350.0, 80.0])
    rows = tables.make_rows(read_results(tmp_path))
    shown = {row.optimizer: row.speed_text for row in rows if row.source == "run"}
    assert shown == {
        "Half": "2.0, 1 of 2 not reached in 2",
        "Never": "not reached in 2",
        "Whole": "1.0",
        "Slow": "2.0",
    }
    lines = {line.split(" & ")[1]: line for line in tables.to_latex(rows).splitlines()[2:-1]}
    speeds = {name: line.split(" & ")[6] for name, line in lines.items()}
    assert speeds["Never"] == "not reached in 2"
    assert speeds["Half"] == "2.0, 1 of 2 not reached in 2"
    assert (speeds["Whole"], speeds["Slow"]) == (
        r"\cellcolor{green!100!red}1.0",
        r"\cellcolor{green!0!red}\textcolor{white}{2.0}",
    )
    times = times_to_threshold(read_results(tmp_path))
    assert math.isinf(times["Never"]["quadratic_deep"])


def test_the_published_speed_is_without_runs_that_do_not_arrive():
    row = load_baselines().row("fmnist_2c2d", "Momentum")
    assert (row["nconv"], row["n"], row["speed"]) == (8, 10, 59.1)
    assert published_speed(row) == pytest.approx((591 - 2 * 101) / 8)


def test_settings_of_unequal_length_are_apart(tmp_path):
    for seed in (1, 2):
        write(tmp_path, "quadratic_deep", "Mine", 0.1, seed, [350.0, 90.0])
        write(tmp_path, "quadratic_deep", "Mine", 0.2, seed, [350.0, 200.0, 95.0])
    results = read_results(tmp_path)
    rows = [row for row in tables.make_rows(results) if row.source == "run"]
    assert [(row.epochs, row.performance) for row in rows] == [(2, 95.0), (1, 90.0)]
    assert best_setting(results, "quadratic_deep", "Mine", "final").learning_rate == 0.2
    assert sensitivity(results.of("quadratic_deep", "Mine"), "test_losses")[0].tolist() == [0.2]
    assert "not on one scale" in tables.to_markdown(rows)


def test_a_first_loss_without_a_published_one_is_refused():
    from deepobs_measurements import first_losses

    with pytest.raises(ValueError, match="cifar100_3c3d: no published baseline"):
        next(first_losses(["cifar100_3c3d"], 1, 1))
