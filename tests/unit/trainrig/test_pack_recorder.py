"""Runs that go in step: saved by step and by time, stopped, diverged and resumed together."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
import torch
from torch import nn

from trainrig import recorder
from trainrig.checkpoint import latest_checkpoint, list_checkpoints
from trainrig.files import read_json
from trainrig.loop import train_steps
from trainrig.pack_recorder import PackRecorder, keep_length_of_diverged
from trainrig.recorder import Intervals, recorded
from trainrig.runs import LATEST
from trainrig.stopping import Interruption
from trainrig.vectorized import Stack, StackedOptimizer


def batches(start):
    number = start
    while True:
        yield torch.randn(8, 1, generator=torch.Generator().manual_seed(number))
        number += 1


def losses(stack, x):
    return (stack(x, in_dims=None) - 2 * x).square().mean(dim=(1, 2)), None


def fit(folder, total=12, *, runs=3, at=None, **intervals):
    """Train lines in step, each at a rate of its own; ``at`` maps a step to what happens then."""
    settings = {"log": 4, "save": 4, "save_seconds": 0.0} | intervals
    torch.manual_seed(0)
    models = [nn.Linear(1, 1) for _ in range(runs)]
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=0.01 * (r + 1), momentum=0.9)
        for r, model in enumerate(models)
    ]
    with contextlib.ExitStack() as stack:
        records = []
        for r in range(runs):
            config = {"run": r, "total": total}
            keep_length_of_diverged(folder / str(r), config, "total")
            opened = recorded(
                folder / str(r), config, {}, total=total, length="total",
                intervals=Intervals(**settings),
            )  # fmt: skip
            records.append(stack.enter_context(opened))
        pack = PackRecorder(records)
        start = pack.restore(models, [{"optimizer": optimizer} for optimizer in optimizers])
        joint = Stack(models)
        pack.follow(StackedOptimizer(joint, optimizers))
        for step in train_steps(
            joint, pack.optimizer, batches(start), losses,
            schedule=None, total_steps=total, start_step=start,
        ):  # fmt: skip
            if at and step.step in at:
                at[step.step](models)
            if records[0].logs(step.step):
                pack.write(lambda r, own, s=step: own.row("train", s.step, loss=s.loss[r].item()))
            pack.settle(step.step)
            if not pack.running:
                break
    return [record.result for record in records]


def content(folder, runs=3):
    found = []
    for r in range(runs):
        checkpoint, ignored = latest_checkpoint(folder / str(r) / LATEST)
        assert not ignored
        state = {k: v for k, v in checkpoint.state.items() if k not in ("elapsed", "log_sizes")}
        state.pop("before_ending", None)
        rows = (folder / str(r) / "logs/metrics.jsonl").read_text()
        names = [path.name for _, path in list_checkpoints(folder / str(r) / LATEST)]
        found.append((checkpoint.step, repr(checkpoint.weights), repr(state), rows, names))
    return found


def steps_in(folder, runs=3):
    return [[p.name for _, p in list_checkpoints(folder / str(r) / LATEST)] for r in range(runs)]


def spoil(place):
    def act(models):
        models[place].weight.data.fill_(float("nan"))

    return act


def test_a_pack_saves_by_time_and_leaves_the_files_of_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "COST_FACTOR", 0)
    seen, timed = [], tmp_path / "timed"
    fit(timed, save_seconds=1e-9, at={7: lambda _: seen.append(steps_in(timed))})
    assert seen == [[["step_4", "step_6_interim"]] * 3]
    fit(tmp_path / "plain")
    assert content(tmp_path / "timed") == content(tmp_path / "plain")


def test_a_stopped_pack_resumes_to_the_same_bits(tmp_path):
    fit(tmp_path / "whole")
    with pytest.raises(Interruption):
        fit(tmp_path / "part", at={6: lambda _: os.kill(os.getpid(), signal.SIGTERM)})
    assert steps_in(tmp_path / "part") == [["step_4", "step_6_interim"]] * 3
    assert all(
        read_json(tmp_path / "part" / str(r) / "status.json")["status"] == "interrupted"
        for r in range(3)
    )
    assert all(result.ok for result in fit(tmp_path / "part"))
    assert content(tmp_path / "part") == content(tmp_path / "whole")


def test_weights_that_are_not_finite_end_their_run_alone(tmp_path):
    results = fit(tmp_path, at={5: spoil(1)}, log=0)
    assert [result.status for result in results] == ["complete", "diverged", "complete"]
    assert "weights not finite between steps 1 and 8" in results[1].message
    assert steps_in(tmp_path) == [["step_8", "step_12"], ["step_4"], ["step_8", "step_12"]]


def test_a_diverged_run_keeps_its_place_in_a_longer_pack(tmp_path):
    for first, folder in ((12, "grown"), (20, "whole")):
        fit(tmp_path / folder, first, at={3: spoil(1)})
    assert [r.status for r in fit(tmp_path / "grown", 20)] == ["complete", "diverged", "complete"]
    ends = [content(tmp_path / folder, 1) for folder in ("grown", "whole")]
    assert ends[0] == ends[1]


def test_killed_between_two_checkpoints_a_pack_goes_back_to_the_common_one(tmp_path, monkeypatch):
    fit(tmp_path / "whole")
    save, calls = recorder.Recorder.write_checkpoint, []

    def dies(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 5:  # the second run's second one
            raise OSError("no space left")
        save(self, *arguments, **options)

    monkeypatch.setattr(recorder.Recorder, "write_checkpoint", dies)
    with pytest.raises(OSError, match="no space"):
        fit(tmp_path / "part")
    monkeypatch.undo()
    fit(tmp_path / "part")
    assert content(tmp_path / "part") == content(tmp_path / "whole")


def test_a_pack_of_ended_runs_is_left_as_it_is(tmp_path):
    first = fit(tmp_path)
    before = content(tmp_path)
    assert fit(tmp_path) == first
    assert content(tmp_path) == before
