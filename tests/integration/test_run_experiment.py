"""The command on the drawn set: equal bits when repeated, with workers, and after SIGKILL."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

SMALL = ["--no-track", "--quiet"]
SMALL_CONFIG = """
dataset: synthetic
num_epochs: 2
model: resnet8_6n2
batch_size: 100
"""


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """Build the arguments of one small run below a folder."""
    config = tmp_path_factory.mktemp("config") / "small.yaml"
    config.write_text(SMALL_CONFIG)

    def build(folder, *extra):
        places = ["--set", f"results_dir={folder}/r", "--set", f"log_dir={folder}/l"]
        return ["--config", str(config), *SMALL, *places, *extra]

    return build


@pytest.fixture(scope="session")
def run_main(command):
    """Run the script in this process."""

    def run(folder, *extra):
        from run_experiment import main

        return main(command(folder, *extra))

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory, run_main):
    """One uninterrupted run to compare with."""
    folder = tmp_path_factory.mktemp("reference")
    assert run_main(folder) == 0
    return folder


def assert_equal_runs(one, other):
    for name in ("logs/metrics.jsonl", "split_indices.json"):
        left, right = (f / "r/sgd_seed42" / name for f in (one, other))
        assert left.read_bytes() == right.read_bytes(), name
    first, second = (
        torch.load(f / "r/sgd_seed42/final_model.pt", weights_only=True) for f in (one, other)
    )
    assert first["metrics"] == second["metrics"]
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name


def test_outputs(finished):
    run = finished / "r/sgd_seed42"
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["final"]) == {"train", "val", "test"}
    logs = json.loads((finished / "l/sgd_seed42/trackio_logs.json").read_text())
    assert [(row["epoch"], row["split"]) for row in logs["logs"]] == [
        (1, "train"),
        (1, "val"),
        (2, "train"),
        (2, "val"),
        (2, "test"),
    ]
    assert logs["logs"][0]["grad_norm/fc"] > 0
    assert all(row["timestamp"] > 0 for row in logs["logs"])
    split = json.loads((run / "split_indices.json").read_text())
    assert (len(split["train_indices"]), len(split["val_indices"])) == (270, 30)
    assert split["source"] == "synthetic (drawn shapes)"
    assert not (run / "checkpoints").exists()
    rows = list(csv.DictReader((finished / "r/runs.csv").open()))
    assert [(row["run"], row["status"], row["synthetic"]) for row in rows] == [
        ("sgd_seed42", "complete", "1")
    ]
    assert len((run / "logs/progress.txt").read_text().splitlines()) == 5


def test_repeat_is_identical(finished, run_main, tmp_path):
    assert run_main(tmp_path) == 0
    assert_equal_runs(finished, tmp_path)


@pytest.mark.parametrize("workers", ["0", "4"])
def test_torchvision_pipeline_and_workers_are_identical(finished, run_main, tmp_path, workers):
    pytest.importorskip("torchvision")
    folder = tmp_path / workers
    assert run_main(folder, "--pipeline", "torchvision", "--num-workers", workers) == 0
    (other,) = (folder / "r").glob("sgd_*_seed42")  # its name says what differs from the file
    left, right = (run / "logs/metrics.jsonl" for run in (finished / "r/sgd_seed42", other))
    assert left.read_bytes() == right.read_bytes()


def kill_after_one_epoch(folder, arguments, repo_root):
    script = str(repo_root / "scripts/run_experiment.py")
    environment = {**os.environ, "PYTHONPATH": str(repo_root / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, script, *arguments], env=environment)
    checkpoints = folder / "r/sgd_seed42/checkpoints/models/latest"
    deadline = time.monotonic() + 300
    while not any(checkpoints.glob("step_*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "r/sgd_seed42/final_model.pt").exists()


def test_killed_run_continues_identically(finished, command, repo_root, tmp_path, run_main):
    kill_after_one_epoch(tmp_path, command(tmp_path), repo_root)
    assert run_main(tmp_path) == 0
    assert "starts after epoch 1" in (tmp_path / "r/sgd_seed42/logs/train.log").read_text()
    assert_equal_runs(finished, tmp_path)


def test_stopped_before_the_final_files_ends_identically(finished, run_main, tmp_path, monkeypatch):
    from optimizer_quality import session

    def no_space(*_):
        raise OSError("no space left")

    monkeypatch.setattr(session, "save_final_model", no_space)
    assert run_main(tmp_path) == 1
    monkeypatch.undo()
    assert run_main(tmp_path) == 0
    assert "starts after epoch 2" in (tmp_path / "r/sgd_seed42/logs/train.log").read_text()
    assert_equal_runs(finished, tmp_path)


@pytest.mark.slow  # compiles three times
def test_killed_compiled_run_continues_identically(command, repo_root, tmp_path, run_main):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    engine = ("--engine", "compile")
    assert run_main(whole, *engine) == 0
    kill_after_one_epoch(killed, command(killed, *engine), repo_root)
    assert run_main(killed) == 1  # another engine is another run
    assert run_main(killed, *engine) == 0
    assert_equal_runs(whole, killed)


def test_another_configuration_in_the_same_place_is_refused(finished, run_main, tmp_path, capsys):
    config = json.loads((finished / "r/sgd_seed42/config.json").read_text())
    config["optimizer"]["lr"] = 0.2
    (tmp_path / "r/sgd_seed42").mkdir(parents=True)
    (tmp_path / "r/sgd_seed42/config.json").write_text(json.dumps(config))
    assert run_main(tmp_path) == 1
    assert "optimizer.lr: 0.2 -> 0.1" in capsys.readouterr().err


def test_two_rates_that_diverge_are_reported_in_folders_of_their_own(run_main, tmp_path, capsys):
    for lr in ("1e30", "1e31"):
        assert run_main(tmp_path, "--lr", lr) == 1
        assert "diverged: epoch 1" in capsys.readouterr().err
    for name in ("sgd_lr1e+30_seed42", "sgd_lr1e+31_seed42"):
        status = json.loads((tmp_path / "r" / name / "status.json").read_text())
        assert status["status"] == "diverged"
        assert not (tmp_path / "r" / name / "final_model.pt").exists()
    with (tmp_path / "r/runs.csv").open(newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == [1e30, 1e31]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "num_classes=7"], "num_classes: 7 given; synthetic has 10"),
        (["--optimizer", "adamq"], "did you mean 'adam"),
        (["--set", "train_val_split=1"], "inside (0, 1)"),
        (["--device", "cuda:7"], "--device cuda:7"),
        (["--dataset", "cifar10", "--data-dir", "nowhere"], "in nowhere/cifar-10-batches-py"),
    ],
)
def test_mistakes_are_one_line(run_main, tmp_path, capsys, extra, message):
    assert run_main(tmp_path, *extra) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_checkpoint_of_another_network_is_refused(finished, run_main, tmp_path, capsys):
    from trainrig.checkpoint import save_checkpoint

    run = tmp_path / "r/sgd_seed42"
    run.mkdir(parents=True)
    shutil.copy(finished / "r/sgd_seed42/config.json", run)
    folder = run / "checkpoints/models/latest"
    save_checkpoint(folder, 5, {"fc.weight": torch.zeros(1)}, {"optimizer": {}, "epoch": 1})
    assert run_main(tmp_path) == 1
    assert "does not fit this model or optimizer" in capsys.readouterr().err


def test_absent_cuda_falls_back_and_says_so(capsys, monkeypatch):
    from optimizer_quality.experiment import resolve_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("cuda") == torch.device("cpu")
    assert "running on the CPU" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--device cuda:0"):
        resolve_device("cuda:0")
