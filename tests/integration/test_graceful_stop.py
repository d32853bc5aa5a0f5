"""Asked to stop, by a signal or by the clock, each system saves after its step and resumes."""

from __future__ import annotations

import itertools
import json
import signal
import time

import numpy as np
import pytest

from deepobs.pytorch.runners.smoke import write_generated_data
from trainrig.runs import read_status
from trainrig.soak import fingerprint
from trainrig.stopping import EXIT_REQUEUE, EXIT_TERMINATED, StopRequest, job_end_time

DUE = StopRequest.due
ICL = """
    --config configs/icl/symbolic.py --device cpu --no-track --num-layers 1 --num-heads 2 --n-rare 6
    --n-common 2 --n-holdout 4 --symbolic-dataset-size 12 --max-steps 12 --save-interval 4
    --log-interval 3 --eval-interval 6 --eval-batches 1 --eval-batch-size 4 --batch-size 4
    --set embedding.emb_dim=16 --set transformer.dropout_prob=0.1
"""
CIFAR = """
    --config configs/optimizer_quality/base_config.yaml --dataset synthetic --num-epochs 2
    --no-track --quiet --set model=resnet8_6n2 --set batch_size=100 --set train_items=300
"""
DEEPOBS = "cifar10_3c3d --optimizer Adam --lr 1e-3 -N 2 --bs 20 --threads 1 --quiet"
PTYCHO = """
    --nepochs 2 --batch_size 4 --n_groups 16 --gridsize 1 --n_filters_scale 1 --accelerator cpu
    --no-do_stitching --quiet
"""

CIFAR_PACK = """
    --config configs/optimizer_quality/base_config.yaml --dataset synthetic --num-epochs 2 --pack 2
    --no-track --optimizers sgd=0.1,0.01 --seeds 0 --name packed --jobs 1
    --set model=resnet8_6n2 --set batch_size=100 --set train_items=300
"""
DEEPOBS_PACK = """
    mnist_mlp --optimizer Adam --grid lr=1e-3,1e-2 --seeds 1 -N 2 --bs 20 --pack 2 --jobs 1
    --threads 1
"""
SYSTEMS = ("icl", "optimizer_quality", "deepobs", "ptycho", "cifar_pack", "deepobs_pack")


@pytest.fixture
def signalled(monkeypatch):
    """Return a function: send a signal to this process before the n-th look at a request."""

    def arm(number: int | None, n: int) -> None:
        looks = itertools.count(1)

        def due(request):
            if number is not None and next(looks) == n:
                signal.raise_signal(number)
            return DUE(request)

        monkeypatch.setattr(StopRequest, "due", due)

    return arm


@pytest.fixture
def commands(tmp_path, toy_scan_file):
    """Script and arguments of each system, for an output folder."""
    data = tmp_path / "data"

    def deepobs(folder):
        if not data.exists():
            write_generated_data(data, examples=160)
        return [*DEEPOBS.split(), "--data_dir", data, "--output_dir", folder]

    def deepobs_pack(folder):
        if not data.exists():
            write_generated_data(data, examples=160)
        return [*DEEPOBS_PACK.split(), "--data_dir", data, "--output_dir", folder]

    def cifar(folder):
        places = f"--set results_dir={folder} --set log_dir={folder}/logs"
        return [*CIFAR.split(), *places.split()]

    def ptycho(folder):
        files = f"--train_data_file {toy_scan_file} --output_dir {folder}"
        return [*files.split(), *PTYCHO.split(), "--resume"]

    return {
        "icl": ("pytorch_train", lambda folder: [*ICL.split(), "--output-dir", folder]),
        "optimizer_quality": ("run_experiment", cifar),
        "deepobs": ("run_deepobs", deepobs),
        "ptycho": ("train_ptycho", ptycho),
        "cifar_pack": (
            "sweep_optimizers",
            lambda folder: [*CIFAR_PACK.split(), "--output-dir", folder],
        ),
        "deepobs_pack": ("tune_deepobs", deepobs_pack),
    }


@pytest.fixture(scope="module")
def toy_scan_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("scan") / "toy.npz"
    x, y = (40 + 5.0 * part.ravel() for part in np.meshgrid(np.arange(4), np.arange(4)))
    axis = np.arange(64) - 32
    probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 50).astype(np.complex64)
    frames = np.sqrt(rng.poisson(50, (16, 64, 64))).astype(np.float32)
    obj = np.exp(1j * rng.uniform(0, 1, (120, 120))).astype(np.complex64)
    np.savez(path, xcoords=x, ycoords=y, diff3d=frames, probeGuess=probe, objectGuess=obj)
    return path


@pytest.mark.parametrize("system", SYSTEMS)
def test_stopped_runs_resume_exactly(system, commands, call_script, signalled, tmp_path):
    script, argv = commands[system]
    whole, part = tmp_path / "whole", tmp_path / "part"
    signalled(None, 0)
    assert call_script(script, argv(whole)).code == 0
    for number, code in ((signal.SIGUSR1, EXIT_REQUEUE), (signal.SIGTERM, EXIT_TERMINATED)):
        signalled(number, 5 if system == "deepobs_pack" else 2)  # within an epoch
        ended = call_script(script, argv(part))
        assert ended.code == code, ended.err
        (line,) = [line for line in ended.error_lines if "stopped" in line]
        assert number.name in line
        assert "step 0" not in line
        assert line.endswith("; the same command resumes")
        stopped = [read_status(path.parent)["status"] for path in part.rglob("status.json")]
        assert stopped == ["interrupted"] * (2 if system.endswith("pack") else 1)
    signalled(None, 0)
    ended = call_script(script, argv(part))
    assert ended.code == 0, ended.err
    if system == "deepobs_pack":  # as docs/determinism.md says: equal to rounding
        assert_equal_results(whole, part)
    else:
        assert fingerprint(whole) == fingerprint(part)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def assert_equal_results(one, other):
    files = [sorted(folder.rglob("random_seed__*.json")) for folder in (one, other)]
    assert len(files[0]) == len(files[1]) == 2
    for path, again in zip(*files, strict=True):
        ours, theirs = json.loads(path.read_text()), json.loads(again.read_text())
        for key in ("minibatch_train_losses", "train_losses", "test_losses", "test_accuracies"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key


def test_the_end_of_a_jobs_time_is_met_with_a_checkpoint(
    commands, call_script, tmp_path, monkeypatch
):
    script, argv = commands["icl"]
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 5))
    ended = call_script(script, argv(tmp_path / "run"))
    assert ended.code == EXIT_REQUEUE
    assert "before the end of the job's time" in ended.err
    assert read_status(tmp_path / "run")["step"] == 1
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 3600))
    assert call_script(script, argv(tmp_path / "run")).code == 0


def test_slow_steps_ask_for_a_larger_reserve(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0] + 1)
    monkeypatch.setattr(time, "time", lambda: now[0])
    request, stopped = StopRequest(end_time=1000.0), None
    while stopped is None:
        stopped = now[0] if request.due() else None
        now[0] += 60
    assert 1000 - 15 - 180 - 60 < stopped <= 1000 - 60


def test_end_time_is_read_where_somebody_says_it():
    assert job_end_time({}) is None
    assert job_end_time({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "12"}) == 12
    assert job_end_time({"TRAINRIG_END_TIME": "13", "SLURM_JOB_END_TIME": "12"}) == 13


def test_outside_a_run_a_signal_stops_at_once(capsys):
    from trainrig.cli import entry

    @entry
    def main(argv):
        signal.raise_signal(signal.SIGUSR1)
        return 0

    assert main() == EXIT_REQUEUE
    assert capsys.readouterr().err == "stopped (SIGUSR1); the same command resumes\n"
