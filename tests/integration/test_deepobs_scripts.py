"""The DeepOBS scripts through ``main``, and a run that is really killed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time

import pytest
import run_deepobs
import torch

from deepobs.pytorch import config
from deepobs.pytorch.datasets.generated import write_generated_data
from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runners.smoke import smoke_all
from deepobs.pytorch.testproblems import TESTPROBLEMS
from deepobs.pytorch.tuner import GridSearch
from trainrig.command import main as trainrig


@pytest.fixture(autouse=True)
def settings():
    config.reset()
    config.set_default_device("cpu")
    yield
    config.reset()
    torch.use_deterministic_algorithms(False)


@pytest.mark.slow  # each problem is stepped by tests/unit/deepobs and, counted, by tests/cuda_null
def test_smoke_tier_covers_every_problem():
    outcomes = smoke_all()
    assert {outcome.name for outcome in outcomes} == set(TESTPROBLEMS)
    assert not [(outcome.name, outcome.problem) for outcome in outcomes if outcome.problem]


def test_run_and_plot(tmp_path, capsys):
    import plot_deepobs

    results, figures = tmp_path / "results", tmp_path / "figures"
    for seed in ("1", "2"):
        arguments = ["quadratic_deep", "--optimizer", "Momentum", "--lr", "1e-3", "-N", "2"]
        arguments += ["--random-seed", seed, "--output_dir", str(results), "--quiet"]
        assert run_deepobs.main(arguments) == 0
    (path, _) = sorted(results.rglob("random_seed__*.json"))
    assert path.parts[-3] == "Momentum"
    assert json.loads(path.read_text())["hyperparams"] == {"momentum": 0.99, "nesterov": False}
    (results / "broken.json").write_text("{")
    assert plot_deepobs.main([str(results), "--output", str(figures)]) == 0
    out = capsys.readouterr().out
    assert "2 results read, 1 files skipped" in out
    names = {path.name for path in figures.iterdir()}
    assert {"performance.png", "performance.pdf", "lr_sensitivity.png"} <= names
    assert {"performance_table.csv", "performance_table.md", "performance_table.tex"} <= names


def test_longer_and_from_another_run_by_the_command(tmp_path, capsys):
    command = ["quadratic_deep", "--lr", "1e-3", "--quiet", "--output_dir", str(tmp_path)]
    assert run_deepobs.main([*command, "-N", "1"]) == 0
    assert run_deepobs.main([*command, "-N", "2"]) == 0
    (longer,) = tmp_path.glob("*/*/num_epochs__2*/random_seed__*.json")
    (record,) = tmp_path.glob("*/*/num_epochs__2*/.random_seed__42/environment.json")
    assert json.loads(record.read_text())["lengthened"] == [{"from": 1, "to": 2}]
    branch = [*command, "-N", "1", "--init-from", str(longer)]
    assert run_deepobs.main(branch) == 0
    (made,) = tmp_path.glob("*/*/*__init_from__*/random_seed__*.json")
    losses = [json.loads(path.read_text())["test_losses"] for path in (longer, made)]
    assert losses[0][-1] == losses[1][0]
    assert run_deepobs.main(branch) == 0
    assert f"{made}: there already; --again repeats it" in capsys.readouterr().out
    assert run_deepobs.main([*command, "-N", "1", "--init-state"]) == 1
    assert "name a run (--init-from RUN)" in capsys.readouterr().err


def test_a_command_given_three_times_is_one_seed(tmp_path, capsys):
    import plot_deepobs

    command = [
        "quadratic_deep",
        "--lr",
        "1e-3",
        "-N",
        "1",
        "--output_dir",
        str(tmp_path),
        "--quiet",
    ]
    for lr in ("1e-3", "0.001", "1e-3"):
        assert run_deepobs.main([*command, "--lr", lr]) == 0
    (path,) = tmp_path.rglob("random_seed__*.json")
    assert f"{path}: there already; --again repeats it" in capsys.readouterr().out
    for year in ("2001", "2002"):  # made before finished runs were skipped
        twin = path.parent / f"random_seed__42__{year}-01-01-00-00-00.json"
        twin.write_text(path.read_text())
    assert plot_deepobs.main([str(tmp_path), "--output", str(tmp_path / "f"), "--plot_table"]) == 0
    out = capsys.readouterr().out
    assert "seed 42 is there 3 times; it counts once, the newest" in out
    assert "1 results read" in out
    assert "| run | 1 | 1 |" in out
    assert "not tested against published" in out
    assert run_deepobs.main([*command, "--again"]) == 0
    assert len(list(tmp_path.rglob("random_seed__*.json"))) in (3, 4)  # 3 within one second


def test_a_command_of_the_script_is_the_run_of_the_setting(tmp_path):
    space = {"lr": [1e-3], "betas": [(0.8, 0.99)]}
    names = {"lr": {"type": float}, "betas": {"type": tuple}}
    tuner = GridSearch(torch.optim.Adam, names, space, 1, StandardRunner, optimizer_name="Mine")
    path = tuner.generate_commands_script(
        "quadratic_deep",
        "run_deepobs.py",
        tmp_path,
        generation_dir=tmp_path,
        num_epochs=1,
        batch_size=1000,
    )
    assert run_deepobs.main(shlex.split(path.read_text())[2:]) == 0
    tuner.tune("quadratic_deep", tmp_path / "direct", num_epochs=1, batch_size=1000)
    first, second = (
        json.loads(file.read_text()) for file in sorted(tmp_path.rglob("random_seed__*.json"))
    )
    assert first["optimizer"] == "Mine"
    assert first["optimizer_hyperparams"] == {"lr": 1e-3, "betas": [0.8, 0.99]}
    for output in (first, second):
        del output["timing"]
    assert first == second


def test_tune(tmp_path, capsys):
    import tune_deepobs

    arguments = ["quadratic_deep", "--optimizer", "Momentum", "--grid", "lr=1e-3,1e-2,1e9"]
    arguments += ["-N", "2", "--output_dir", str(tmp_path / "results"), "--jobs", "1"]
    assert tune_deepobs.main([*arguments, "--seeds", "1", "2"]) == 0
    assert "best of 3: {'lr': 0.01}, test_losses" in capsys.readouterr().out
    folder = tmp_path / "results" / "quadratic_deep" / "Momentum"
    assert len(list(folder.rglob("random_seed__*.json"))) == 6
    records = [json.loads(line) for line in (folder / "tuning_log.json").read_text().splitlines()]
    assert [record["trial"] for record in records] == [2, 1, 3]
    assert (folder / "budget.png").stat().st_size > 0
    assert tune_deepobs.main([*arguments, "--commands", str(tmp_path / "jobs")]) == 0
    (script,) = (tmp_path / "jobs").iterdir()
    assert len(script.read_text().splitlines()) == 3


def results(folder):
    found = {}
    for file in sorted(folder.rglob("random_seed__*.json")):
        found[file.parent.name, file.name[:15]] = content = json.loads(file.read_text())
        del content["timing"]
    return found


@pytest.mark.parametrize("pack", [1, 2])
def test_a_search_by_a_cluster_is_the_search_here(tmp_path, cluster, capsys, pack):
    import tune_deepobs

    data = tmp_path / "data"
    write_generated_data(data, examples=160)
    words = ["mnist_mlp", "--grid", "lr=0.1,0.01,1e9", "--seeds", "1", "2", "-N", "1", "--bs", "20"]
    words += ["--data_dir", str(data), "--pack", str(pack), "--output_dir"]
    here, there = tmp_path / "here", tmp_path / "there"
    cluster.in_a_new_process = config.reset  # knows nothing that was set from code
    assert tune_deepobs.main([*words, str(there), "--launcher", "slurm", "--dry-run"]) == 0
    assert "runs: 6, finished before: 0" in capsys.readouterr().out
    assert cluster.names == []
    assert tune_deepobs.main([*words, str(there), "--launcher", "slurm"]) == 0
    assert len(cluster.names) == {1: 6, 2: 4}[pack]
    assert tune_deepobs.main([*words, str(here), "--jobs", "1"]) == 0
    one, other = results(here), results(there)
    assert one.keys() == other.keys()
    assert len(one) == 6
    assert one == other
    again = [*words, str(there), "--launcher", "slurm"]
    count = len(cluster.names)
    assert tune_deepobs.main(again) == 0
    assert len(cluster.names) == count


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["mnist_mpl"], "did you mean 'mnist_mlp'"),
        (["mnist_mlp", "--optimizer", "Addam"], "did you mean 'adam'"),
        (["quadratic_deep", "--hp", "momentun=0.9"], "did you mean 'momentum'"),
        (
            ["quadratic_deep", "--lr", "0.1", "--lr_sched_epochs", "1"],
            "lr_sched_factors is missing",
        ),
        (["mnist_mlp", "--lr", "0.1", "--data_dir", "nowhere"], "no data found"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, text):
    assert run_deepobs.main([*arguments, "--output_dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert text in error


def test_killed_run_resumes_to_the_same_result(tmp_path, repo_root):
    data = tmp_path / "data"
    write_generated_data(data, examples=160)
    command = [sys.executable, "scripts/run_deepobs.py", "cifar10_3c3d", "--optimizer", "Adam"]
    command += ["--lr", "1e-3", "-N", "3", "--bs", "20", "--data_dir", str(data), "--threads", "1"]
    command += ["--checkpoint_interval_s", "0.05", "--quiet", "--output_dir"]
    part, whole = tmp_path / "part", tmp_path / "whole"
    child = subprocess.Popen([*command, str(part)], cwd=repo_root)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(part.rglob("manifest.json")):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert list(part.rglob("manifest.json"))
    for folder in (part, whole):
        subprocess.run([*command, str(folder)], cwd=repo_root, check=True)
    outputs = []
    for folder in (part, whole):
        (path,) = folder.rglob("random_seed__*.json")
        outputs.append(json.loads(path.read_text()))
        outputs[-1].pop("timing")
    assert outputs[0] == outputs[1]


def test_get_looks_into_linked_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "elsewhere").mkdir()
    with tarfile.open(tmp_path / "elsewhere" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            archive.addfile(tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    where = ["--source", str(source), "--data-dir", str(tmp_path)]
    assert trainrig(["data", "get", "cifar10", *where]) == 0
    assert (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").is_file()
    assert (
        trainrig(["data", "get", "imagenet", "cifar10", *where]) == 1
    )  # one that cannot be fetched does not stop the rest


def test_prepare_data_gets_what_is_chosen(tmp_path, capsys):
    import prepare_data

    source = tmp_path / "source"
    source.mkdir()
    (source / "war-and-peace.txt").write_text("too short\n" * 10)
    where = ["--data_dir", str(tmp_path / "data"), "--source", str(source)]
    assert prepare_data.main([*where, "--only", "tolstoi", "mnist", "--skip", "mnist"]) == 1
    said = capsys.readouterr()
    assert "tolstoi: " in said.err
    assert "mnist" not in said.out + said.err
    with pytest.raises(SystemExit, match="2"):
        prepare_data.main([*where, "--only", "mnist", "--skip", "mnist"])
    assert "--skip leaves no data set" in capsys.readouterr().err


def test_get_tolstoi_from_text(tmp_path):
    arguments = ["data", "get", "tolstoi", "--data-dir", str(tmp_path)]
    assert trainrig(arguments) == 1
    source = tmp_path / "source"
    source.mkdir()
    (source / "war-and-peace.txt").write_text("too short\n" * 10)
    assert trainrig([*arguments, "--source", str(source)]) == 1


@pytest.mark.data
def test_prepared_tolstoi_is_the_published_text(tmp_path, data_dir, capsys):
    source = tmp_path / "source"
    source.mkdir()
    (source / "war-and-peace.txt.gz").symlink_to(data_dir / "tolstoi" / "war-and-peace.txt.gz")
    where = ["--data-dir", str(tmp_path)]
    assert trainrig(["data", "get", "tolstoi", "--source", str(source), *where]) == 0
    assert trainrig(["data", "verify", "tolstoi", *where]) == 0
    assert "3,266,185 characters as published" in capsys.readouterr().out


def test_if_all_problems_of_the_smoke_tier_fail_the_last_line_says_why(monkeypatch, capsys):
    from deepobs.pytorch.runners import smoke

    outcome = smoke.SmokeResult("mnist_mlp", 0, float("nan"), 0.0, "no gradient on dense.weight")
    monkeypatch.setattr(smoke, "smoke_all", lambda names, say: [outcome, outcome])
    assert run_deepobs.main(["--smoke"]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "0 of 2 test problems passed"
    assert shown.err.splitlines()[-1] == "error: all failed; mnist_mlp: no gradient on dense.weight"
