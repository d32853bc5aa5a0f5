"""A DeepOBS run in two processes: equal to one process to rounding, and resumed exactly."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import run_deepobs
from torch import nn

from deepobs.pytorch import config
from deepobs.pytorch.datasets.generated import write_idx, write_image_folder
from deepobs.pytorch.runners.curves import Curves
from deepobs.pytorch.testproblems import imagenet_vgg16
from deepobs.pytorch.testproblems._layers import Conv2d, Dense, Dropout, batch_norm

CURVES = ("minibatch_train_losses", "train_losses", "test_losses")
FLAGS = """
    --optimizer Adam --lr 0.01 --bs 4 --num_epochs 2 --train_log_interval 1 --dtype float64
    --device cpu --quiet
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    r = np.random.RandomState(0)
    write_image_folder(folder / "data/imagenet", 8, r)
    write_idx(folder / "data/mnist", 12, r)
    return folder


def run(folder, problem, *flags):
    words = [problem, *FLAGS.split(), "--data_dir", str(folder.parent / "data"), *flags]
    try:
        return run_deepobs.main([*words, "--output_dir", str(folder)])
    finally:
        config.reset()


def small_net(self):  # what the networks on ImageNet consist of, at a size for a test
    convolution = [Conv2d(3, 4, 3, stride=16), batch_norm(4, momentum=0.9, eps=1e-3), nn.ReLU()]
    return nn.Sequential(*convolution, nn.Flatten(), Dropout(0.5), Dense(4 * 14 * 14, 1001))


def train_small(folder):
    imagenet_vgg16.make_net = small_net
    assert run(folder, "imagenet_vgg16") == 0


def stop_small_after_three_steps(folder):
    take, steps = Curves.take, []

    def stopping(self, record, step):
        steps.append(step)
        if len(steps) == 3 and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, record, step)

    Curves.take, imagenet_vgg16.make_net = stopping, small_net
    assert run(folder, "imagenet_vgg16") == (143 if os.environ["RANK"] == "0" else 0)
    assert len(steps) == 3


def curves(folder):
    [file] = folder.rglob("random_seed__42__*.json")
    output = json.loads(file.read_text())
    found = {name: np.array(output[name], float) for name in CURVES}  # null is no finite number
    return found | {"status": output["status"]}


def assert_close(found, expected):
    assert found["status"] == expected["status"]
    for name in CURVES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-8, err_msg=name)


def test_two_processes_equal_one_and_resume_exactly(in_team, folder, monkeypatch, capsys):
    monkeypatch.setattr(imagenet_vgg16, "make_net", small_net)
    train_small(folder / "alone")
    in_team(train_small, folder / "together")
    in_team(stop_small_after_three_steps, folder / "stopped")
    assert not list((folder / "stopped").rglob("random_seed__42__*.json"))  # no result yet
    assert run(folder / "stopped", "imagenet_vgg16") == 1
    assert "processes: 2 -> 1" in capsys.readouterr().err
    in_team(train_small, folder / "stopped")
    together = curves(folder / "together")
    assert len(together["minibatch_train_losses"]) == 4
    assert_close(together, curves(folder / "alone"))
    resumed = curves(folder / "stopped")
    assert all(np.array_equal(resumed[name], together[name]) for name in CURVES)


def diverge(folder):  # seen within the epoch
    assert run(folder, "mnist_mlp", "--optimizer", "SGD", "--lr", "1e200") == 0


def test_all_processes_end_with_a_run_that_diverges(in_team, folder):
    diverge(folder / "diverged_alone")
    in_team(diverge, folder / "diverged_together")
    alone, together = curves(folder / "diverged_alone"), curves(folder / "diverged_together")
    assert alone["status"] == "diverged"
    assert_close(together, alone)


def train_in_vain(folder):
    assert run(folder, "mnist_mlp", "--bs", "3") == 1
    assert run(folder, "mnist_mlp", "--optimizer", "LBFGS") == 1
    assert run(folder, "tolstoi_char_rnn") == 1


def test_what_would_depend_on_the_number_of_processes_is_refused(in_team, folder, capfd):
    in_team(train_in_vain, folder / "refused")
    said = capfd.readouterr().err
    assert said.count("batch size 3: not divisible among 2 processes") == 2
    assert said.count("LBFGS: evaluates the loss within its step") == 2
    assert not (folder / "refused").exists()


def train_large(folder):
    problem, more = folder.name.partition("-")[2], "--optimizer SGD --lr 1e-4 --bs 2 --num_epochs 1"
    assert run(folder, problem, *more.split()) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "problem", ["imagenet_vgg16", "imagenet_vgg19", "imagenet_inception_v3", "mnist_vae"]
)
def test_large_problems(problem, in_team, tmp_path):
    write_image_folder(tmp_path / "data/imagenet", 4, np.random.RandomState(0))
    write_idx(tmp_path / "data/mnist", 4, np.random.RandomState(0))
    train_large(tmp_path / f"alone-{problem}")
    in_team(train_large, tmp_path / f"together-{problem}")
    assert_close(curves(tmp_path / f"together-{problem}"), curves(tmp_path / f"alone-{problem}"))
