"""Optimizer quality, DeepOBS and ptychography on a device that computes nothing."""

from __future__ import annotations

import json
import signal

import commands
import pytest
from null_gpu import HERE, run

SYSTEMS = {"cifar": commands.cifar, "deepobs": commands.deepobs, "ptycho": commands.ptycho}
SMALL = ("quadratic_deep", "mnist_logreg", "fmnist_2c2d", "cifar10_vgg16")


def ended_well(result):
    assert result.status == 0, result.said()
    assert not result.tally.refusals, result.tally.refusals[:3]
    return result.tally


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_waits_for_nothing_and_is_within_the_table(tmp_path, within_table, system):
    tally = ended_well(run(SYSTEMS[system](tmp_path / "run")))
    step = tally.per_step()
    assert step["waits"] == 0
    within_table(f"{system}, eager", step)


def problems(tmp_path, *names):
    result = run([str(HERE / "problems.py"), str(tmp_path / "data"), *names], limit_s=600)
    ended_well(result)
    return json.loads(result.output.splitlines()[-1])


def test_steps_of_deepobs_problems_are_within_the_table(tmp_path, within_table):
    for name, step in problems(tmp_path, *SMALL).items():
        assert step["waits"] == 0, name
        within_table(f"deepobs {name}", step)


@pytest.mark.slow
def test_steps_of_all_deepobs_problems_are_within_the_table(tmp_path, within_table):
    found = problems(tmp_path)
    assert len(found) >= 26
    for name, step in found.items():
        assert step["waits"] == 0, name
        within_table(f"deepobs {name}", step)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_begun_beside_two_devices_continues_beside_one(tmp_path, system, by):
    out = tmp_path / "run"
    often = ("--checkpoint_interval_s", "0") if system == "deepobs" else ()
    argv = SYSTEMS[system](out, *often, epochs=24)
    commands.stop_and_resume(argv, out, by, devices=(2, 1), after=2)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["cifar", "deepobs"])
def test_a_run_on_the_second_device_leaves_the_first_alone(tmp_path, system):
    tally = ended_well(run(SYSTEMS[system](tmp_path / "run", device="cuda:1"), devices=2))
    assert tally.peak_bytes[1] > 0
    assert tally.peak_bytes[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("--gridsize", "2"),
        ("--gridsize", "1", "--model_type", "supervised"),
        ("--accumulate-grad-batches", "2"),
    ],
    ids=" ".join,
)
def test_modes_of_ptychography(tmp_path, within_table, more):
    step = ended_well(run(commands.ptycho(tmp_path / "run", *more))).per_step()
    # The size of the canvas on which the frames of a group meet follows from their positions.
    assert step["waits"] <= int("2" in more and more[0] == "--gridsize")
    within_table(f"ptycho {' '.join(more)}", step)


@pytest.mark.slow
def test_refinement_runs_by_deterministic_kernels(tmp_path):
    scan = str(commands.scan(tmp_path))
    argv = ["scripts/infer_ptycho.py", "--test_data", scan, "--output_dir", str(tmp_path / "out")]
    waits = []
    for epochs in (3, 6):
        tally = ended_well(run([*argv, "--refine", str(epochs), "--accelerator", "cuda"]))
        # Additions by scatter or index are atomic on a device: their order is another each time.
        assert not [name for name in tally.calls if "ReduceAdd" in name or "indexFunc" in name]
        waits.append(tally.waits)
    assert waits[1] - waits[0] <= 3 * 2  # the loss of an epoch, and what is shown of it
