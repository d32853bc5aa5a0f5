"""Results known by setting and seed: what is equal, and which of equal ones counts."""

from __future__ import annotations

import json
import math
import os

import pytest

from trainrig.repeats import canonical, count_once, setting_key
from trainrig.report.records import each_once, read_run
from trainrig.report.write import write_report


def test_the_newest_of_equal_results_counts_in_the_place_of_the_first():
    items = [("a", 3), ("b", 1), ("a", 5), ("c", 0), ("a", 4), (None, 1), (None, 1)]
    once = count_once(items, lambda item: item[0], lambda item: item[1])
    assert once.kept == [("a", 5), ("b", 1), ("c", 0), (None, 1), (None, 1)]
    assert once.dropped == [(("a", 5), [("a", 3), ("a", 4)])]


def test_values_are_equal_however_they_are_written():
    one = {"lr": 0.1, "betas": (0.9, 0.999), "steps": 10, "flag": True, "x": None}
    other = {"flag": True, "x": None, "steps": 10.0, "lr": 1e-1, "betas": [0.9, 0.999]}
    assert canonical(one) == canonical(other)
    for key, value in (("lr", 0.1000001), ("steps", 11), ("flag", False), ("x", 0), ("lr", "0.1")):
        assert canonical(one | {key: value}) != canonical(one)
    assert canonical({"x": math.nan}) == canonical({"x": math.nan})


CONFIG = {
    "seed": 1,
    "optimizer": {"name": "adam", "lr": 0.1, "weight_decay": 0.0},
    "training": {"batch_size": 32, "log_interval": 100, "precision": "fp32"},
    "training_steps": 500,
    "device": "cpu",
}


def changed(**values):
    tree = json.loads(json.dumps(CONFIG))
    for key, value in values.items():
        *parents, last = key.split("__")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    return tree


@pytest.mark.parametrize(
    "same",
    [
        {"optimizer__name": "Adam"},
        {"optimizer__lr": 1e-1},
        {"optimizer__weight_decay": 0},
        {"training__log_interval": 7},
        {"device": "cuda"},
        {"data_dir": "/elsewhere"},
    ],
    ids=str,
)
def test_what_merely_names_or_logs_is_the_same_run(same):
    assert setting_key(changed(**same)) == setting_key(CONFIG)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"optimizer__name": "sgd"},
        {"optimizer__lr": 0.2},
        {"optimizer__weight_decay": 0.1},
        {"training__batch_size": 64},
        {"training__precision": "bf16"},
        {"training_steps": 501},
    ],
    ids=str,
)
def test_what_decides_the_numbers_is_another_run(other):
    assert setting_key(changed(**other)) != setting_key(CONFIG)


def test_without_a_seed_nothing_says_which_runs_are_equal():
    assert setting_key({"optimizer": {"lr": 0.1}}) is None


@pytest.fixture
def write(tmp_path):
    def write(name, config, accuracy, age, status="complete"):
        path = tmp_path / "runs" / name
        (path / "logs").mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(config))
        (path / "environment.json").write_text("{}")
        (path / "status.json").write_text(json.dumps({"status": status, "step": 2}))
        os.utime(path / "status.json", (age, age))
        row = {"step": 2, "split": "test", "accuracy": accuracy}
        (path / "logs/metrics.jsonl").write_text(json.dumps(row) + "\n")
        return path

    return write


def test_a_copied_run_counts_once_in_the_report(write, tmp_path):
    write("one", CONFIG, 0.5, 1000)
    write("copy", changed(optimizer__name="Adam", device="cuda"), 0.75, 2000)
    write("at_work", CONFIG, 0.25, 3000, status="running")
    write("two", changed(seed=2), 0.5, 1000)
    page = write_report(tmp_path / "runs").read_text()
    assert "copy is there 2 times; it counts once, the newest" in page
    assert "3 runs in runs" in page
    paths = [tmp_path / "runs" / name for name in ("one", "copy", "two", "at_work")]
    runs = each_once(map(read_run, paths))
    assert [(run.name, run.repeated) for run in runs] == [("copy", 1), ("two", 0), ("at_work", 0)]


def test_a_copied_run_is_one_row_of_a_table_with_a_warning(write, tmp_path):
    pytest.importorskip("pandas")
    from trainrig.results import load, load_curves

    for name, seed, accuracy, age in (("a", 1, 0.5, 2), ("b", 1, 0.5, 3), ("c", 2, 0.7, 1)):
        write(name, changed(seed=seed), accuracy, age)
    with pytest.warns(UserWarning, match="b is there 2 times; it counts once, the newest"):
        runs = load(tmp_path / "runs")
    assert list(runs.index) == ["b", "c"]
    assert runs["test/accuracy"].mean() == pytest.approx(0.6)
    with pytest.warns(UserWarning, match="b is there 2 times"):
        assert set(load_curves(tmp_path / "runs")["run"]) == {"b", "c"}
