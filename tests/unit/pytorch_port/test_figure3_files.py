"""When a cached metrics row still speaks of the run that lies on the disk."""

from __future__ import annotations

import json
import os

import pytest

from pytorch_port.figures.figure3_files import current_rows, draw_runs
from pytorch_port.sweep.figure3_tables import METRICS_REQUIRED, write_metrics


@pytest.fixture
def sweep(tmp_path):
    """Two runs with a checkpoint each, and a metrics table one second younger."""
    runs, rows = [], []
    for decay in (0.0, 1.0):
        folder = tmp_path / f"class100_wd{decay:g}"
        weights = folder / "checkpoints/models/latest/step_5/weights.pt"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"")
        os.utime(weights, (1000, 1000))
        (folder / "config.json").write_text(json.dumps({"evaluation": {"batch_size": 8}}))
        runs.append({"class_count": 100, "weight_decay": decay, "checkpoint": weights})
        row = dict.fromkeys(METRICS_REQUIRED, 0) | {"class_count": 100, "weight_decay": decay}
        rows.append({**row, "n_sequences": 32})
    table = tmp_path / "figure3_adamw_metrics.csv"
    write_metrics(rows, table)
    os.utime(table, (1001, 1001))
    return table, runs


def decays(rows):
    return [row["weight_decay"] for row in rows]


def test_rows_younger_than_their_checkpoints_are_current(sweep):
    assert decays(current_rows(*sweep)) == [0.0, 1.0]


def test_a_run_trained_anew_is_evaluated_again(sweep):
    table, runs = sweep
    os.utime(runs[1]["checkpoint"], (1002, 1002))
    assert decays(current_rows(table, runs)) == [0.0]


def test_a_table_without_its_runs_is_taken_as_it_is(sweep):
    table, runs = sweep
    elsewhere = [
        run | {"checkpoint": run["checkpoint"].with_name("gone") / "checkpoints/w.pt"}
        for run in runs
    ]
    assert decays(current_rows(table, elsewhere)) == [0.0, 1.0]


@pytest.mark.parametrize(("batches", "current"), [(4, [0.0, 1.0]), (5, [])])
def test_another_number_of_sequences_is_measured_again(sweep, batches, current):
    assert decays(current_rows(*sweep, max_eval_batches=batches)) == current


def test_no_table_no_rows(sweep):
    table, runs = sweep
    table.unlink()
    assert current_rows(table, runs) == []


def test_no_run_leaves_no_file(tmp_path):
    runs_csv = tmp_path / "runs.csv"
    runs_csv.write_text("class_count,weight_decay,checkpoint\n")
    with pytest.raises(ValueError, match="lists no run"):
        draw_runs(runs_csv, tmp_path / "out")
    assert not (tmp_path / "out").exists()
