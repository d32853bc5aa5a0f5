"""One ptychography training in two processes: equal to one to rounding, and resumed bit by bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import simulate_ptycho
import torch
import train_ptycho

from trainrig.checkpoint import latest_checkpoint
from trainrig.files import read_json
from trainrig.recorder import Recorder
from trainrig.run_status import read_status
from trainrig.runs import LATEST

# 7 groups in batches of 4 and 3, and one for validation: neither part is even.
FLAGS = """
    --batch_size 4 --n_groups 8 --n_filters_scale 1 --accelerator cpu --no-do_stitching
    --quiet
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    assert simulate_ptycho.main([str(folder / "scan.npz"), "--rows", "3"]) == 0
    return folder


def train(folder, *flags):
    words = [*FLAGS.split(), *flags, "--train_data_file", str(folder.parent / "scan.npz")]
    return train_ptycho.main([*words, "--output_dir", str(folder)])


def train_in_float64(folder):  # in float32, Adam enlarges gradients that are only rounding
    assert train(folder, "--nepochs", "1", "--precision", "64-true") == 0


def train_to_the_end(folder):
    assert train(folder, "--nepochs", "2") == 0


def stop_after_a_batch(folder):
    settle = Recorder.settle

    def stopping(self, step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        settle(self, step)

    Recorder.settle = stopping  # the process that leads has a record
    assert train(folder, "--nepochs", "2") == (85 if os.environ["RANK"] == "0" else 0)


def left_by(folder):
    found = latest_checkpoint(folder / LATEST)[0]
    table = np.loadtxt(folder / "logs/metrics.csv", delimiter=",", skiprows=1)
    return found.weights, found.state["optimizer"]["state"], table


def test_two_processes_equal_one(in_team, folder):
    train_in_float64(folder / "alone")
    assert "refinement" not in read_status(folder / "alone")  # nor a reconstruction
    in_team(train_in_float64, folder / "shared")
    weights, _, losses = left_by(folder / "alone")
    shared, _, shared_losses = left_by(folder / "shared")
    for key, value in weights.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(shared_losses, losses, rtol=1e-9)


@pytest.mark.slow
def test_devices_starts_the_second_process_and_resumes_with_it(folder, repo_root):
    words = [*FLAGS.split(), "--train_data_file", str(folder / "scan.npz"), "--devices", "2"]
    words += ["--strategy", "ddp", "--output_dir", str(folder / "devices"), "--nepochs"]
    for epochs in ("1", "2"):
        command = [sys.executable, "scripts/train_ptycho.py", *words, epochs]
        done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(left_by(folder / "devices")[2]) == 2
    assert read_json(folder / "devices" / "environment.json")["processes"] == 2


def test_two_processes_stop_together_and_resume_exactly(in_team, folder):
    in_team(train_to_the_end, folder / "together")
    in_team(stop_after_a_batch, folder / "stopped")
    assert not (folder / "stopped/logs/metrics.csv").exists()
    in_team(train_to_the_end, folder / "stopped")
    through, resumed = left_by(folder / "together"), left_by(folder / "stopped")
    torch.testing.assert_close(resumed[:2], through[:2], rtol=0, atol=0)
    np.testing.assert_array_equal(resumed[2], through[2])
