"""Toy sweeps through their scripts: files, columns, skipping, divergence, exit status."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pytorch_port.figures.figure3a import FIRST_COLUMNS, LAST_COLUMNS, METRIC_COLUMNS
from pytorch_port.sweep.figure3_tables import METRICS_REQUIRED, RUNS_COLUMNS
from trainrig.runs import read_status

CONFIG = """
def get_config():
    return {
        "data": {
            "example_type": "symbolic",
            "symbolic_config": {"dataset_size": 1623},
        },
        "embedding": {"example_encoding": "embedding", "emb_dim": 16},
        "transformer": {"num_layers": 1, "num_heads": 2},
        "optimizer": {"name": "adamw", "max_lr": 1e-2, "warmup_steps": 5},
        "training": {
            "batch_size": 4, "log_interval": 2, "eval_interval": 3, "save_interval": 3,
        },
        "evaluation": {"batches": 2, "batch_size": 4},
    }
"""
IMAGES = """
def get_config():
    return {
        "data": {"generator_config": {"n_common_classes": 4, "n_holdout_classes": 6}},
        "preproc": {"downsample": True},
        "embedding": {"example_encoding": "linear", "emb_dim": 16},
        "transformer": {"num_layers": 1, "num_heads": 2},
        "training": {
            "batch_size": 4, "log_interval": 2, "eval_interval": 3, "save_interval": 3,
        },
        "evaluation": {"batches": 2, "batch_size": 4},
    }
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(CONFIG)
    return path


def table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames), list(reader)


def snapshot(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".pt", ".jsonl")}


@pytest.mark.parametrize(("panel", "split"), [("a", "holdout"), ("b", "no_support")])
def test_figure3a(call_script, config, tmp_path, panel, split):
    output = tmp_path / "out"
    words = f"--config-path {config} --output-dir {output} --class-counts 25 30 --max-steps 6"
    more = ["--panel", panel, "--plot", "--no-track", "--jobs", "1", "--device", "cpu"]
    ended = call_script("run_figure3a_torch", [*words.split(), *more])
    assert ended.code == 0, ended.err
    stem = f"figure3{panel}_torch"
    columns, last = table(output / f"{stem}_metrics.csv")
    same, every = table(output / f"{stem}_timeseries.csv")
    assert columns == same
    assert columns[:2] == list(FIRST_COLUMNS)
    assert columns[-1:] == list(LAST_COLUMNS)
    assert columns[2:-1] == sorted(columns[2:-1])
    assert set(METRIC_COLUMNS) <= set(columns)
    assert [(row["class_count"], row["step"]) for row in last] == [("25", "6"), ("30", "6")]
    assert [(row["class_count"], row["step"]) for row in every] == [
        (count, step) for count in ("25", "30") for step in ("3", "6")
    ]
    assert all((output / row["progress_path"]).is_file() for row in every)
    logged = (output / last[0]["progress_path"]).read_text().splitlines()[-2:]
    (line,) = [line for line in logged if f"split={split} " in line]
    assert f"accuracy_query={float(last[0]['accuracy_query'])!r} " in line
    for suffix in ("png", "pdf"):
        assert (output / f"{stem}.{suffix}").stat().st_size > 5_000
    assert str(output / f"{stem}.png") in ended.out


def test_the_weight_decay_sweep(call_script, config, tmp_path):
    output = tmp_path / "out"
    words = f"""
        --config_path {config} --base_output_dir {output} --class_counts 12 --weight_decays 1e39 0
        --n_common_classes 2 --n_holdout_classes 4 --seeds 0 1 --training_steps 6
        --l2_modes sum_squares decoupled --device cpu --no-track --jobs 1
    """
    ended = call_script("run_adamw_sweep_torch", words.split())
    assert ended.code == 0, ended.err
    names = {p.name for p in output.glob("class*")}
    assert {f"class12_wd0_seed{s}{m}" for s in (0, 1) for m in ("_sum_squares", "")} < names
    assert len(names) == 8
    columns, runs = table(output / "runs.csv")
    assert columns == list(RUNS_COLUMNS)
    assert len(runs) == 8
    for row in runs:
        path = output / row["checkpoint"].split("/")[0]
        expected = "complete" if float(row["weight_decay"]) == 0 else "diverged"
        assert row["status"] == expected == read_status(path)["status"]
        assert (row["shrink"] == "") == (row["l2_mode"] == "sum_squares")
        if expected == "complete":
            assert row["completed_steps"] == "6"
            assert (output / row["checkpoint"]).is_file()
            assert row["n_rare_classes"] == "6"
    columns, metrics = table(output / "figure3_adamw_metrics.csv")
    assert columns[: len(METRICS_REQUIRED)] == list(METRICS_REQUIRED)
    assert columns[len(METRICS_REQUIRED) :] == sorted(columns[len(METRICS_REQUIRED) :])
    assert len(metrics) == 8
    for row in metrics:
        diverged = row["status"] == "diverged"
        assert (row["accuracy_holdout"] == "") == diverged
        assert (row["accuracy_closed_no_support"] == "") == diverged
    for name in ("figure3_adamw.png", "figure3_adamw.pdf", "figure3_adamw_curves.csv"):
        assert (output / name).stat().st_size > 500
        assert str(output / name) in ended.out

    before, text = snapshot(output), (output / "figure3_adamw_metrics.csv").read_text()
    again = call_script("run_adamw_sweep_torch", [*words.split(), "--skip_completed"])
    assert again.code == 0, again.err
    assert snapshot(output) == before
    assert (output / "figure3_adamw_metrics.csv").read_text() == text

    changed = call_script(
        "run_adamw_sweep_torch", [*words.split(), "--set", "optimizer.max_lr=0.5"]
    )
    assert changed.code == 1
    assert "max_lr" in changed.err
    shorter = call_script("run_adamw_sweep_torch", [*words.split(), "--training_steps", "5"])
    assert shorter.code == 1
    assert "can only become longer" in shorter.err
    assert snapshot(output) == before


def test_the_regression_says_by_its_exit_status(call_script, tmp_path, monkeypatch):
    config, bounds, output = tmp_path / "toy.py", tmp_path / "bounds.csv", tmp_path / "out"
    config.write_text(IMAGES)
    monkeypatch.setenv("TRAINRIG_CACHE_DIR", str(tmp_path / "cache"))
    header = "class_count,step,split,metric,low,high\n"
    good = "30,6,holdout,accuracy_closed,0,1\n40,3,no_support,loss,0,100\n30,6,train,loss,0,100\n"

    def check(rows, *more):
        bounds.write_text(header + rows)
        flags = f"--bounds {bounds} --config {config} --output-dir {output} --device cpu --jobs 1"
        return call_script("pytorch_regression", [*flags.split(), *more])

    ended = check(good)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[-1] == "3 passed, 0 failed"
    assert sum(line.endswith("  ok") for line in lines) == 3

    ended = check(good + "40,6,holdout,loss,0,0.001\n30,5,holdout,loss,0,9\n", "--quiet")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[-1] == "3 passed, 2 failed"
    assert len(lines) == 3
    assert all(line.endswith("FAIL") for line in lines[:-1])
    assert any("missing" in line for line in lines)
    assert not ended.error_lines

    assert check("").code == 1
    assert check("30,6,holdout,loss,low,1\n").code == 1


def test_naming_the_source_that_auto_chose_continues_and_glyphs_are_announced(
    call_script, tmp_path, monkeypatch
):
    monkeypatch.delenv("TRAINRIG_DATA_DIR", raising=False)
    command = (
        f"--preset quick --config_path configs/icl/quick.py --class_counts 30 --weight_decays 0 "
        f"--training_steps 2 --max_eval_batches 1 --device cpu --no-track --jobs 1 "
        f"--data-dir {tmp_path}/none --base_output_dir {tmp_path}/sweep "
        "--set training.batch_size=4 --set evaluation.batch_size=4"
    ).split()
    first = call_script("run_adamw_sweep_torch", command)
    assert first.code == 0
    assert "SYNTHETIC GLYPHS" in first.out
    again = call_script("run_adamw_sweep_torch", [*command, "--source", "synthetic"])
    assert again.code == 0
    assert "finished before" in again.out
