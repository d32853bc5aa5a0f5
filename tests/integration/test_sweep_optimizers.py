"""The sweep command: two processes side by side, a table, and nothing done twice."""

from __future__ import annotations

import csv


def test_sweep_runs_and_resumes(repo_root, tmp_path, capsys):
    from sweep_optimizers import main

    arguments = [
        *("--config", str(repo_root / "configs/optimizer_quality/base_config.yaml")),
        *("--output-dir", str(tmp_path), "--name", "s", "--dataset", "synthetic", "--no-track"),
        *("--optimizers", "sgd=0.1,0.01", "--seeds", "0", "--num-epochs", "1"),
        *("--set", "model=resnet8_6n2", "--set", "batch_size=100", "--jobs", "2"),
    ]
    assert main(arguments) == 0
    names = {path.name for path in (tmp_path / "s").glob("sgd_*")}
    rest = "dataset-synthetic_model-resnet8_6n2_batch_size100_num_epochs1_seed0"
    assert names == {f"sgd_lr{lr}_{rest}" for lr in ("0.1", "0.01")}
    assert all((tmp_path / "s" / name / "logs/trackio_logs.json").exists() for name in names)
    rows = list(csv.DictReader((tmp_path / "s/runs.csv").open()))
    assert {row["status"] for row in rows} == {"complete"}
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("was finished before") == 2
    assert main([*arguments, "--optimizers", "sgd=0.1", "--num-epochs", "2"]) == 0
    rows = list(csv.DictReader((tmp_path / "s/runs.csv").open()))
    assert [(row["in_grid"], row["differs"]) for row in rows] == [
        ("1", ""), ("0", "num_epochs: 2 -> 1"), ("0", "num_epochs: 2 -> 1")
    ]  # fmt: skip
    assert "Not compared: runs with num_epochs: 2 -> 1." in capsys.readouterr().out


def test_if_all_runs_fail_the_last_line_is_the_first_reason(repo_root, tmp_path, capsys):
    from sweep_optimizers import main

    arguments = [
        *("--config", str(repo_root / "configs/optimizer_quality/base_config.yaml")),
        *("--output-dir", str(tmp_path), "--name", "s", "--no-track", "--jobs", "1"),
        *("--optimizers", "sgd=0.1,0.01", "--seeds", "0", "--data-dir", str(tmp_path / "none")),
    ]
    assert main(arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: all 2 runs failed; sgd_lr0.1_seed0: ")
    assert "cifar-10" in last
