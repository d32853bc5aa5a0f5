"""What lies in a sweep's folder is what its tables and figures say, whoever put it there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytorch_port.sweep.runs_table import read_runs
from trainrig.optim.schedules import total_lr, warmup_rsqrt
from trainrig.tracking.tables import write_table

TOY = """
def get_config():
    return {
        "data": {"example_type": "symbolic", "symbolic_config": {"dataset_size": 1609},
            "generator_config": {"n_common_classes": 2, "n_holdout_classes": 4}},
        "embedding": {"example_encoding": "embedding", "emb_dim": 8},
        "transformer": {"num_layers": 1, "num_heads": 2},
        "optimizer": {"name": "adamw", "max_lr": 1e-2, "warmup_steps": 5},
        "training": {"batch_size": 2, "log_interval": 2, "eval_interval": 2, "save_interval": 2},
        "evaluation": {"batches": 1, "batch_size": 2},
        "training_steps": 4,
        "seed": 0,
    }
"""


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def words(tmp_path):
    """Return a function: further words -> the command line of a toy sweep in one folder."""
    config = tmp_path / "toy.py"
    config.write_text(TOY)
    common = f"--config_path {config} --base_output_dir {tmp_path}/out --class_counts 12"
    return lambda more: (
        f"{common} --training_steps 4 --device cpu --no-track --jobs 1 {more}".split()
    )


def trained(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/config.json")}


def test_a_second_grid_keeps_the_first_in_every_table(call_script, words, tmp_path):
    out = tmp_path / "out"
    first = call_script("run_adamw_sweep_torch", words("--weight_decays 0 --seeds 0"))
    assert first.code == 0, first.err
    before = trained(out)
    assert set(before) == {"class12_wd0"}
    second = call_script("run_adamw_sweep_torch", words("--weight_decays 0 1 --seeds 0 1"))
    assert second.code == 0, second.err
    assert trained(out)["class12_wd0"] == before["class12_wd0"]  # seed 0 is not trained again
    assert set(trained(out)) == {
        "class12_wd0", "class12_wd0_seed1", "class12_wd1p0", "class12_wd1p0_seed1"
    }  # fmt: skip
    third = call_script("run_adamw_sweep_torch", words("--weight_decays 0.5 --class_counts 13"))
    assert third.code == 0, third.err
    for name in ("runs.csv", "figure3_adamw_metrics.csv"):
        rows = table(out / name)
        assert len(rows) == 5
        marked = {
            (row["class_count"], row["weight_decay"]) for row in rows if row["in_grid"] == "1"
        }
        assert marked == {("13", "0.5")}
    assert {row["differs"] for row in table(out / "runs.csv")} == {""}
    curves = {
        (r["class_count"], r["weight_decay"], r["seed"])
        for r in table(out / "figure3_adamw_curves.csv")
    }
    assert len(curves) == 5


def test_a_run_of_another_setting_is_listed_and_left_out(call_script, words, tmp_path):
    out = tmp_path / "out"
    more = "--weight_decays 1 --training_steps 2"
    assert call_script("run_adamw_sweep_torch", words(more)).code == 0
    ended = call_script("run_adamw_sweep_torch", words("--weight_decays 0"))
    assert ended.code == 0, ended.err
    rows = {row["weight_decay"]: row for row in table(out / "runs.csv")}
    assert (rows["0.0"]["differs"], rows["0.0"]["in_grid"]) == ("", "1")
    assert (rows["1.0"]["differs"], rows["1.0"]["in_grid"]) == ("training_steps: 4 -> 2", "0")
    assert [row["weight_decay"] for row in table(out / "figure3_adamw_metrics.csv")] == ["0.0"]
    assert "class12_wd1p0: not shown: training_steps: 4 -> 2" in ended.err


def test_a_damaged_neighbour_is_named_and_stops_nothing(call_script, words, tmp_path):
    (tmp_path / "out/other").mkdir(parents=True)
    (tmp_path / "out/other/config.json").write_text("{")
    ended = call_script("run_adamw_sweep_torch", words("--weight_decays 0"))
    assert ended.code == 0, ended.err
    assert "other/config.json: not valid JSON" in ended.err
    assert len(table(tmp_path / "out/runs.csv")) == 1


def test_two_sweeps_at_once_both_end_with_a_whole_summary(words, tmp_path, repo_root):
    script = repo_root / "analysis/run_adamw_sweep_torch.py"
    both = [
        subprocess.Popen(
            [sys.executable, script, *words(f"--weight_decays {decays}")],
            cwd=repo_root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for decays in ("0 0.5", "1 2")
    ]
    for process in both:
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text
    for name in ("runs.csv", "figure3_adamw_metrics.csv"):
        rows = table(tmp_path / "out" / name)
        assert {row["weight_decay"] for row in rows} == {"0.0", "0.5", "1.0", "2.0"}


def test_figure3a_keeps_the_runs_of_an_earlier_call(call_script, tmp_path):
    config = tmp_path / "toy.py"
    config.write_text(TOY)
    common = f"--config-path {config} --output-dir {tmp_path}/out --device cpu --no-track --jobs 1"
    common += " --max-steps 4"

    def call(more):
        ended = call_script("run_figure3a_torch", f"{common} --plot {more}".split())
        assert ended.code == 0, ended.err
        return table(tmp_path / "out/figure3a_torch_metrics.csv"), ended.err

    call("--class-counts 12 --seeds 0")
    rows, _ = call("--class-counts 12 14 --seeds 1")
    assert [(row["class_count"], row["seed"], row["in_grid"]) for row in rows] == [
        ("12", "0", "0"), ("12", "1", "1"), ("14", "1", "1")
    ]  # fmt: skip
    decayed = "--class-counts 12 --seeds 2 --set optimizer.weight_decay=0.5"
    rows, said = call(decayed)
    assert [row["seed"] for row in rows] == ["2"]
    assert "optimizer.weight_decay: 0.5 -> 0.0" in said


def test_a_table_that_was_edited_by_hand_is_refused(call_script, words, tmp_path):
    out = tmp_path / "out"
    assert call_script("run_adamw_sweep_torch", words("--weight_decays 0")).code == 0
    runs_csv = out / "runs.csv"
    text = runs_csv.read_text()
    runs_csv.write_text(text.replace("12,0.0,", "12,0.25,"))
    drawn = call_script("plot_figure3_adamw", ["--runs_csv", str(runs_csv)])
    assert drawn.code == 1
    assert "weight_decay of class12_wd0 is 0.25, its own files say 0.0" in drawn.error_lines[0]
    page = call_script("make_report", [str(out)])
    assert page.code == 0
    assert "weight_decay of class12_wd0 is 0.25" in (out / "report.html").read_text()
    again = call_script("run_adamw_sweep_torch", words("--weight_decays 0"))
    assert again.code == 0, again.err
    assert runs_csv.read_text() == text
    assert json.loads((out / "class12_wd0/status.json").read_text())["status"] == "complete"


#: A column of ``runs.csv``: what its cell is changed to, and what is said.
EDITS = {
    "class_count": "13",
    "weight_decay": "0.5",
    "checkpoint": "class12_wd0/checkpoints/models/latest/step_2/weights.pt",
    "backend": "jax",
    "seed": "5",
    "optimizer": "adam",
    "completed_steps": "3",
    "n_rare_classes": "5",
    "n_common_classes": "5",
    "n_holdout_classes": "5",
    "config_module": "",
    "example_type": "omniglot",
    "source": "files",
    "l2_mode": "sum_squares",
    "status": "diverged",
    "sum_lr": "0.5",
    "shrink": "0.5",
    "in_grid": "0",
    "differs": "training_steps: 9 -> 4",
}


def test_an_edit_of_any_column_is_refused(call_script, words, tmp_path):
    runs_csv = tmp_path / "out/runs.csv"
    assert call_script("run_adamw_sweep_torch", words("--weight_decays 0")).code == 0
    (row,) = table(runs_csv)
    assert row.keys() == EDITS.keys()
    read_runs(runs_csv)
    for column, value in EDITS.items():
        write_table([{**row, column: value}], runs_csv, list(row))
        named = "in_grid" if column == "config_module" else column
        with pytest.raises(ValueError, match=f"own files: .*{named} of class12_wd0 is "):
            read_runs(runs_csv)

    # A table that is older than its runs must agree with itself.
    status = tmp_path / "out/class12_wd0/status.json"
    older = {"checkpoint": EDITS["checkpoint"], "completed_steps": "2", "status": "running"}
    config = json.loads((status.parent / "config.json").read_text())
    schedule = warmup_rsqrt(config["optimizer"]["max_lr"], config["optimizer"]["warmup_steps"])
    older |= {"sum_lr": str(total_lr(schedule, 2)), "shrink": "1.0"}
    write_table([{**row, **older}], runs_csv, list(row))
    later = runs_csv.stat().st_mtime_ns + 1
    with pytest.raises(
        ValueError, match="completed_steps of class12_wd0 is 2, its own files say 4"
    ):
        read_runs(runs_csv)
    os.utime(status, ns=(later, later))
    assert read_runs(runs_csv)[0]["completed_steps"] == 2
    for column in ("completed_steps", "sum_lr", "shrink", "in_grid"):
        write_table([{**row, **older, column: EDITS[column]}], runs_csv, list(row))
        os.utime(runs_csv, ns=(later - 1, later - 1))
        with pytest.raises(ValueError, match=f"{column} of class12_wd0 is .* follows from the"):
            read_runs(runs_csv)


def test_a_damaged_newest_checkpoint_is_refused_and_no_older_one_drawn(
    call_script, words, tmp_path
):
    out = tmp_path / "out"
    assert call_script("run_adamw_sweep_torch", words("--weight_decays 0")).code == 0
    weights = out / "class12_wd0/checkpoints/models/latest/step_4/weights.pt"
    weights.write_bytes(weights.read_bytes()[:-9])
    before = (out / "figure3_adamw.png").stat().st_mtime_ns
    drawn = call_script("plot_figure3_adamw", ["--runs_csv", str(out / "runs.csv"), "--recompute"])
    assert drawn.code == 1
    (line,) = drawn.error_lines
    assert "step_4/weights.pt" in line
    assert "the one of step 2 is not shown in its place" in line
    assert (out / "figure3_adamw.png").stat().st_mtime_ns == before


@pytest.mark.parametrize("gone", ["step_4", "all"])
def test_a_complete_run_without_its_last_checkpoint_is_listed_and_no_older_one_drawn(
    call_script, words, tmp_path, gone
):
    out = tmp_path / "out"
    assert call_script("run_adamw_sweep_torch", words("--weight_decays 0")).code == 0
    for path in (out / "class12_wd0/checkpoints/models/latest").iterdir():
        if gone in (path.name, "all"):
            shutil.rmtree(path)
    again = call_script("run_adamw_sweep_torch", words("--weight_decays 0"))
    assert again.code == 0, again.err  # what was measured while it was there is still true
    (row,) = table(out / "runs.csv")
    assert (row["completed_steps"], row["status"]) == ("4", "complete")
    (out / "figure3_adamw_metrics.csv").unlink()
    again = call_script("run_adamw_sweep_torch", words("--weight_decays 0"))
    assert again.code == 1
    (line,) = [line for line in again.err.splitlines() if line.startswith("error: ")]
    assert "class12_wd0" in line
    assert "is complete, but its checkpoint of step 4 is not there" in line
    assert ("the one of step 2 is not shown in its place" in line) == (gone != "all")
    assert not (out / "figure3_adamw_metrics.csv").exists()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_if_all_runs_fail_the_last_line_is_the_first_reason(call_script, words, tmp_path, jobs):
    for name in ("class12_wd0", "class12_wd1p0"):  # a file where a run's logs are to be
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "logs").write_text("in the way")
    ended = call_script("run_adamw_sweep_torch", words(f"--weight_decays 0 1 --jobs {jobs}"))
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert last.startswith("error: all 2 runs failed; class12_wd")
    assert "logs" in last


def test_a_renamed_run_is_found_and_not_trained_again(call_script, words, tmp_path):
    out = tmp_path / "out"
    assert call_script("run_adamw_sweep_torch", words("--weight_decays 0")).code == 0
    (out / "class12_wd0").rename(out / "mine")
    ended = call_script("run_adamw_sweep_torch", words("--weight_decays 0"))
    assert ended.code == 0, ended.err
    assert "mine: complete was finished before" in ended.out + ended.err
    assert set(trained(out)) == {"mine"}
    assert len(table(out / "figure3_adamw_metrics.csv")) == 1
