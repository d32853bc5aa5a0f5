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

from trainrig.checkpoint import latest_checkpoint, list_checkpoints, load_checkpoint
from trainrig.runs import LATEST

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
    for name in ("logs/metrics.jsonl", "metrics.json", "split_indices.json"):
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
    kept = list_checkpoints(run / LATEST)
    assert [path.name for _, path in kept] == ["step_3", "step_6"]
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
    log = (tmp_path / "r/sgd_seed42/logs/train.log").read_text()
    assert "resumed from" in log
    assert "step_3" in log
    assert_equal_runs(finished, tmp_path)


def test_stopped_before_the_final_files_ends_identically(finished, run_main, tmp_path, monkeypatch):
    from optimizer_quality import experiment

    def no_space(*_):
        raise OSError("no space left")

    monkeypatch.setattr(experiment, "save_final_model", no_space)
    assert run_main(tmp_path) == 1
    monkeypatch.undo()
    assert run_main(tmp_path) == 0
    assert "step_6" in (tmp_path / "r/sgd_seed42/logs/train.log").read_text()
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


@pytest.fixture(scope="session")
def longer(tmp_path_factory, run_main):
    """The same run, of four epochs, to compare with."""
    folder = tmp_path_factory.mktemp("longer")
    assert run_main(folder, "--num-epochs", "4", "--output-dir", str(folder / "r/sgd_seed42")) == 0
    return folder


def test_a_finished_run_becomes_longer_bit_for_bit(longer, run_main, tmp_path, capsys):
    run = tmp_path / "r/sgd_seed42"
    place = ("--output-dir", str(run))
    for epochs in ("1", "3", "4"):  # weight norms are logged at each end
        assert run_main(tmp_path, *place, "--num-epochs", epochs) == 0
        assert len(json.loads((run / "metrics.json").read_text())["history"]) == 2 * int(epochs) + 1
    assert_equal_runs(longer, tmp_path)
    ends = [latest_checkpoint(f / "r/sgd_seed42" / LATEST)[0].state for f in (longer, tmp_path)]
    assert repr(ends[0]["optimizer"]) == repr(ends[1]["optimizer"])
    assert json.loads((run / "config.json").read_text())["num_epochs"] == 4
    record = json.loads((run / "environment.json").read_text())["lengthened"]
    assert record == [{"from": 1, "to": 3}, {"from": 3, "to": 4}]
    capsys.readouterr()
    assert run_main(tmp_path, *place, "--num-epochs", "2") == 1
    assert "a run can only become longer" in capsys.readouterr().err


def test_the_folder_of_a_shorter_run_is_named(finished, run_main, tmp_path, capsys):
    run = tmp_path / "r/sgd_seed42"
    shutil.copytree(finished / "r/sgd_seed42", run)
    assert run_main(tmp_path, "--num-epochs", "3") == 0
    said = capsys.readouterr().err
    assert f"--output-dir {run} makes that run longer" in said
    assert run_main(tmp_path, "--num-epochs", "1") == 0
    assert "longer" not in capsys.readouterr().err


def test_an_optimizer_that_was_told_the_length_keeps_it(run_main, tmp_path, capsys, monkeypatch):
    place = ("--optimizer", "toy_schedules.Falling", "--lr", "0.1", "--output-dir", str(tmp_path))
    toy = tmp_path / "modules"
    toy.mkdir()
    (toy / "toy_schedules.py").write_text(
        "import torch\n"
        "class Falling(torch.optim.SGD):\n"
        "    def __init__(self, params, lr=0.1, total_steps=6):\n"
        "        super().__init__(params, lr=lr)\n"
    )
    monkeypatch.syspath_prepend(str(toy))
    told = ("--set", "optimizer.arguments.total_steps=6")
    assert run_main(tmp_path, *place, *told) == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    capsys.readouterr()
    assert run_main(tmp_path, *place, *told, "--num-epochs", "4") == 1
    error = capsys.readouterr().err
    assert "cannot go from 2 to 4 (num_epochs), since its optimizer was told its length" in error
    assert "total_steps 6" in error
    assert error.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_run_without_checkpoints_from_before_they_were_kept(finished, run_main, tmp_path, capsys):
    run = tmp_path / "r/sgd_seed42"
    shutil.copytree(finished / "r/sgd_seed42", run)
    shutil.rmtree(run / "checkpoints")
    place = ("--output-dir", str(run))
    assert run_main(tmp_path, *place) == 0
    assert run_main(tmp_path, *place, "--num-epochs", "3") == 1
    assert "has kept no checkpoint and cannot go from 2 to 3" in capsys.readouterr().err


def test_a_branch_with_state_continues_as_the_unbroken_run(longer, finished, run_main, tmp_path):
    source, run = finished / "r/sgd_seed42", tmp_path / "r/sgd_seed42"
    begin = ("--output-dir", str(run), "--init-from", f"{source}@3", "--init-state")
    assert run_main(tmp_path, *begin, "--num-epochs", "4") == 0
    ours, theirs = (latest_checkpoint(f / "r/sgd_seed42" / LATEST)[0] for f in (tmp_path, longer))
    assert repr(ours.weights) == repr(theirs.weights)
    assert repr(ours.state["optimizer"]) == repr(theirs.state["optimizer"])
    branch = json.loads((run / "config.json").read_text())["branch"]
    assert (branch["step"], branch["state"], len(branch["sha256"])) == (3, True, 2)
    rows = (run / "logs/metrics.jsonl").read_text().splitlines()
    unbroken = (longer / "r/sgd_seed42/logs/metrics.jsonl").read_text().splitlines()
    assert rows == unbroken[2:]  # the first epoch is the other run's


def test_a_branch_of_weights_is_another_run_by_name_and_identity(
    finished, run_main, tmp_path, capsys
):
    source = finished / "r/sgd_seed42"
    assert run_main(tmp_path, "--init-from", str(source), "--num-epochs", "1") == 0
    (run,) = (tmp_path / "r").glob("sgd_*init-*_seed42")
    branch = json.loads((run / "config.json").read_text())["branch"]
    assert (branch["step"], branch["state"], len(branch["sha256"])) == (6, False, 1)
    first = load_checkpoint(run / LATEST / "step_3").weights["fc.weight"]
    assert not torch.equal(first, load_checkpoint(source / LATEST / "step_6").weights["fc.weight"])
    capsys.readouterr()
    again = ("--output-dir", str(run), "--num-epochs", "1")
    assert run_main(tmp_path, *again) == 1  # not from the seed
    assert "branch" in capsys.readouterr().err
    other = ("--init-from", str(source), "--init-state", "--set", "batch_size=50")
    assert run_main(tmp_path, *other, "--num-epochs", "4") == 1
    assert "3 steps per epoch, here 6" in capsys.readouterr().err
    assert run_main(tmp_path, "--init-from", f"{source}@4") == 1
    assert "has no checkpoint of step 4; it has 3, 6" in capsys.readouterr().err
    assert run_main(tmp_path, "--init-state") == 1
    assert "name a run (--init-from RUN)" in capsys.readouterr().err


def test_checkpoints_by_time_leave_the_files_of_any_other_run(
    finished, run_main, tmp_path, monkeypatch
):
    from trainrig import recorder

    seen, save = [], recorder.save_checkpoint

    def watched(folder, step, *arguments, **options):
        seen.append((step, options["interim"]))
        return save(folder, step, *arguments, **options)

    monkeypatch.setattr(recorder, "save_checkpoint", watched)
    monkeypatch.setattr(recorder, "COST_FACTOR", 0)
    monkeypatch.setattr(recorder.Intervals.__init__, "__kwdefaults__", {
        **recorder.Intervals.__init__.__kwdefaults__, "save_seconds": 1e-9,
    })  # fmt: skip
    assert run_main(tmp_path) == 0
    assert seen == [(1, True), (2, True), (3, False), (4, True), (5, True), (6, False)]
    assert_equal_runs(finished, tmp_path)
    kept = list_checkpoints(tmp_path / "r/sgd_seed42" / LATEST)
    assert [path.name for _, path in kept] == ["step_3", "step_6"]


def test_weights_that_are_not_finite_are_not_saved(run_main, tmp_path, capsys, monkeypatch):
    from optimizer_quality import train

    write_rows = train.write_rows

    def spoil(record, step, sums, model, *rest):
        write_rows(record, step, sums, model, *rest)
        model.fc.weight.data.fill_(float("nan"))

    monkeypatch.setattr(train, "write_rows", spoil)
    assert run_main(tmp_path) == 1
    assert "diverged: weights not finite between steps 3 and 3" in capsys.readouterr().err
    assert not list_checkpoints(tmp_path / "r/sgd_seed42" / LATEST)
    status = json.loads((tmp_path / "r/sgd_seed42/status.json").read_text())
    assert status["status"] == "diverged"


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
        assert "diverged: loss" in capsys.readouterr().err
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


def test_the_specifications_own_path_of_the_configuration_works(repo_root, monkeypatch, capsys):
    from run_experiment import main

    monkeypatch.chdir(repo_root)
    assert main(["--config", "config/base_config.yaml", "--print-config"]) == 0
    assert "config/base_config.yaml" in capsys.readouterr().out
    assert main(["--config", "conf/base_config.yaml"]) == 1
    meant = "did you mean configs/optimizer_quality/base_config.yaml?"
    assert meant in capsys.readouterr().err


def test_checkpoint_of_another_network_is_refused(finished, run_main, tmp_path, capsys):
    from trainrig.checkpoint import save_checkpoint

    run = tmp_path / "r/sgd_seed42"
    run.mkdir(parents=True)
    shutil.copy(finished / "r/sgd_seed42/config.json", run)
    folder = run / "checkpoints/models/latest"
    save_checkpoint(folder, 5, {"fc.weight": torch.zeros(1)}, {"optimizer": {}, "epoch": 1})
    assert run_main(tmp_path) == 1
    assert "belongs to another model" in capsys.readouterr().err


def test_absent_cuda_falls_back_and_says_so(capsys, monkeypatch):
    from optimizer_quality.experiment import resolve_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("cuda") == torch.device("cpu")
    assert "running on the CPU" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--device cuda:0"):
        resolve_device("cuda:0")
