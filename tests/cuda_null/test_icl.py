"""In-context learning on a device that computes nothing: engines, precision, rows, interruptions.

No value is looked at: only exit status, files, broken rules of CUDA, and counts of a step.
"""

from __future__ import annotations

import json
import signal

import commands
import pytest
from null_gpu import run


def ended_well(result, *, refusals=0):
    assert result.status == 0, result.said()
    assert len(result.tally.refusals) == refusals, result.tally.refusals[:3]
    return result.tally


def test_a_graph_of_the_published_model_is_small_and_replayed_once_a_step(tmp_path, within_table):
    tally = ended_well(run(commands.icl_images(tmp_path / "run")))
    step = tally.per_step()
    within_table("icl 105 px, graph", step)
    assert step["nodes"] <= 780
    assert step["replays"] == 1
    assert step["waits"] == 0


def test_auto_takes_the_graph_on_the_second_device_and_says_so(tmp_path):
    out = tmp_path / "run"
    argv = commands.icl(out, engine="auto", device="cuda:1")
    tally = ended_well(run(argv, devices=2))
    assert tally.peak_bytes[1] > 0
    assert tally.peak_bytes[0] == 0
    engine = commands.environment_of(out)["engine"]
    assert engine["engine"] == "graph"
    assert "agree with eager ones" in engine["reason"]
    assert engine["streams"] == 1
    assert 0 < engine["free_bytes"] <= engine["total_bytes"]
    assert "engine graph (its first" in (out / "logs/train.log").read_text("utf-8")


def test_a_fall_back_to_eager_is_said_with_its_reason(tmp_path):
    out = tmp_path / "run"
    argv = commands.icl(out, "--sampler", "exact", engine="auto", steps=12)
    ended_well(run(argv))
    engine = commands.environment_of(out)["engine"]
    assert engine["engine"] == "eager"
    assert "the exact sampler draws in Python" in engine["reason"]
    log = (out / "logs/train.log").read_text("utf-8")
    assert "WARNING engine eager (no graph: --engine graph: the exact sampler" in log


def test_a_row_and_an_evaluation_wait_once_each(tmp_path):
    """Two runs, the second with one more row and one more evaluation of both regimes."""
    waits, launches = [], []
    for rows, name in ((12, "few"), (6, "more")):
        argv = commands.icl(tmp_path / name, "--eval-batches", "64", steps=12, engine="eager")
        argv[argv.index("--log-interval") + 1] = str(rows)
        argv[argv.index("--eval-interval") + 1] = str(rows)
        tally = ended_well(run(argv))
        waits.append(tally.waits)
        launches.append(tally.launches)
    assert waits[1] - waits[0] <= 3  # the row, and each regime
    assert launches[1] - launches[0] < 1500  # one batch at a time these were over 20,000


@pytest.mark.parametrize(
    "by", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_graphed_run_begun_beside_two_devices_continues_beside_one(tmp_path, by):
    out = tmp_path / "run"
    commands.stop_and_resume(commands.icl(out, steps=240), out, by, devices=(2, 1))


@pytest.mark.slow
def test_a_profile_holds_steps_of_a_graph(tmp_path):
    folder = tmp_path / "profile"
    ended_well(run(commands.icl(tmp_path / "run", "--profile", str(folder), engine="auto")))
    assert (folder / "summary.txt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_steps_are_within_the_table(tmp_path, within_table, engine, precision):
    argv = commands.icl_images(tmp_path / "run", "--precision", precision, engine=engine)
    step = ended_well(run(argv)).per_step()
    assert step["waits"] == 0
    within_table(f"icl 105 px, {engine}, {precision}", step)


@pytest.mark.slow
@pytest.mark.parametrize("l2_mode", ["sum_squares", "sum_norms"])
def test_a_penalty_on_the_weights_is_a_few_kernels(tmp_path, within_table, l2_mode):
    argv = commands.icl(tmp_path / "run", "--l2-mode", l2_mode, "--weight-decay", "1e-4")
    step = ended_well(run(argv)).per_step()
    within_table(f"icl symbols, graph, {l2_mode}", step)


@pytest.mark.slow
def test_too_small_a_memory_is_one_clear_sentence(tmp_path):
    result = run(commands.icl_images(tmp_path / "run"), mib=64)
    assert result.status not in (0, None)
    assert "Traceback" not in result.output, result.said()
    said = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "the device's memory does not hold the run (CUDA out of memory. Tried to" in said[0]
    status = json.loads((tmp_path / "run/status.json").read_text("utf-8"))
    assert status["status"] == "failed"


def test_runs_of_a_sweep_take_turns_each_with_the_graph_that_it_has_alone(tmp_path):
    tally = ended_well(run(commands.sweep(tmp_path / "sweep", runs=3, steps=12)))
    *_, last = tally.graphs
    assert len(last) > 100
    assert all(graph == last for graph in tally.graphs)  # kernels by name, in order
    assert sorted(tally.replays_by_stream)[-3:] == [12, 12, 12]  # each on a stream of its own
    folders = sorted(p.parent for p in tmp_path.glob("sweep/*/status.json"))
    assert len(folders) == 3
    for folder in folders:
        assert json.loads((folder / "status.json").read_text("utf-8"))["status"] == "complete"
        found = commands.environment_of(folder)
        assert found["engine"]["streams"] == 3
        assert found["pack"] == []  # as if it were alone
    alone = ended_well(run(commands.sweep(tmp_path / "alone", "--pack", "1", runs=1, steps=12)))
    assert alone.graphs[-1] == last
    assert not list(tmp_path.glob("**/manifest.json")) or all(
        "checkpoints" in p.parts for p in tmp_path.glob("**/manifest.json")
    )


@pytest.mark.slow
def test_a_sweep_side_by_side_continues_after_a_kill(tmp_path):
    out = tmp_path / "sweep"
    argv = commands.sweep(out, runs=2, steps=200)
    commands.stop_and_resume(argv, out, signal.SIGKILL, after=2)  # one of each run


@pytest.mark.slow
def test_a_sweep_takes_as_many_runs_at_a_time_as_the_memory_holds(tmp_path):
    tally = ended_well(run(commands.sweep(tmp_path / "sweep", runs=4, steps=12), mib=420))
    assert len(list(tmp_path.glob("sweep/*/status.json"))) == 4
    assert len(tally.replays_by_stream) > 1
