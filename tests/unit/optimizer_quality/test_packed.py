"""Runs trained as one program leave what they leave alone, and resume to the same bits."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from optimizer_quality import session
from optimizer_quality.config import CifarConfig
from optimizer_quality.run_tracker import RunTracker
from optimizer_quality.session import Runtime
from optimizer_quality.sweep import execute, parse_grid, plan_runs
from trainrig.data.device_loader import ImageBatches
from trainrig.launch.options import LaunchOptions

RUNTIME = Runtime(tracker="none", quiet=True)
ONE = LaunchOptions(jobs=1)
BASE = CifarConfig(
    device="cpu", dataset="synthetic", model="resnet8_6n2", batch_size=24, train_items=56
)


def plan(seeds, rates="0.01"):
    base = dataclasses.replace(BASE, num_epochs=2, eval_every=1)
    return plan_runs(base, parse_grid([f"sgd={rates}"], []), seeds)


def rows(folder, name):
    text = (folder / name / "logs/metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def final(folder, name):
    return torch.load(folder / name / "final_model.pt", weights_only=True)


@pytest.fixture(scope="module")
def in_float64():
    """Networks and images in float64, where rounding is far below any other difference."""
    build, normalise = session.build_model, ImageBatches._normalise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "build_model", lambda *a, **k: build(*a, **k).double())
        patch.setattr(ImageBatches, "_normalise", lambda *a: normalise(*a).double())
        yield


@pytest.fixture(scope="module")
def packed(in_float64, tmp_path_factory):
    """Two seeds at a good rate and two at a rate that diverges, in packs of three."""
    folder = tmp_path_factory.mktemp("packed")
    outcomes = list(execute(plan([0, 1], "0.01,1e200"), folder, RUNTIME, ONE, pack=3))
    return folder, {outcome.name: outcome for outcome in outcomes}


def test_members_equal_separate_runs(packed, tmp_path):
    folder, outcomes = packed
    runs = plan([0, 1])
    assert {o.status for o in execute(runs, tmp_path, RUNTIME, ONE)} == {"complete"}
    for one in runs:
        assert outcomes[one.name].status == "complete"
        ours, alone = final(folder, one.name), final(tmp_path, one.name)
        torch.testing.assert_close(ours["model"], alone["model"], rtol=1e-10, atol=1e-10)
        assert (folder / one.name / "split_indices.json").read_bytes() == (
            tmp_path / one.name / "split_indices.json"
        ).read_bytes()
        for row, expected in zip(rows(folder, one.name), rows(tmp_path, one.name), strict=True):
            assert set(row) == set(expected)
            assert row.pop("split") == expected.pop("split")
            assert row == pytest.approx(expected, rel=1e-6)  # logits are rounded to float32
    sizes = [(f / runs[0].name / "final_model.pt").stat().st_size for f in (folder, tmp_path)]
    assert sizes[0] < 1.2 * sizes[1]


def test_a_diverged_member_leaves_the_others_alone(packed):
    folder, outcomes = packed
    diverged = [name for name, outcome in outcomes.items() if outcome.status == "diverged"]
    assert diverged == ["sgd_lr1e+200_seed0", "sgd_lr1e+200_seed1"]
    status = json.loads((folder / diverged[0] / "status.json").read_text())
    assert "epoch 1: the training loss is" in status["message"]
    assert not (folder / diverged[0] / "final_model.pt").exists()


def test_killed_between_two_members_checkpoints_continues_identically(tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs = plan([0, 1])
    assert all(o.status == "complete" for o in execute(runs, whole, RUNTIME, ONE, pack=2))
    save, calls = RunTracker.end_epoch, []

    def dies(self, *arguments):
        calls.append(1)
        if len(calls) == 4:  # the second member's second epoch
            raise OSError("no space left")
        save(self, *arguments)

    monkeypatch.setattr(RunTracker, "end_epoch", dies)
    outcomes = list(execute(runs, killed, RUNTIME, ONE, pack=2))
    assert {o.status for o in outcomes} == {"failed"}
    monkeypatch.undo()
    outcomes = list(execute(runs, killed, RUNTIME, ONE, pack=2))
    assert {o.status for o in outcomes} == {"complete"}
    for one in runs:
        assert rows(whole, one.name) == rows(killed, one.name)
        ours, alone = final(killed, one.name), final(whole, one.name)
        assert ours["metrics"] == alone["metrics"]
        torch.testing.assert_close(ours["model"], alone["model"], rtol=0, atol=0)
        assert not (killed / one.name / "checkpoints").exists()


def test_a_diverged_member_keeps_its_place_when_the_pack_goes_on(tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs = plan([0], "1e200,0.01")
    wanted = ["diverged", "complete"]
    assert [o.status for o in execute(runs, whole, RUNTIME, ONE, pack=2)] == wanted
    save, calls = RunTracker.end_epoch, []

    def dies(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("no space left")
        save(self, *arguments)

    monkeypatch.setattr(RunTracker, "end_epoch", dies)
    assert [o.status for o in execute(runs, killed, RUNTIME, ONE, pack=2)] == ["diverged", "failed"]
    monkeypatch.undo()
    before = rows(killed, runs[0].name)
    outcomes = {o.name: o.status for o in execute(runs, killed, RUNTIME, ONE, pack=2)}
    assert outcomes == dict(zip([one.name for one in runs], wanted, strict=True))
    assert rows(killed, runs[0].name) == before
    name = runs[1].name
    assert rows(whole, name) == rows(killed, name)
    ours, alone = final(killed, name)["model"], final(whole, name)["model"]
    torch.testing.assert_close(ours, alone, rtol=0, atol=0)


def test_what_cannot_be_packed_is_refused(packed, tmp_path):
    folder, _ = packed
    runs = plan_runs(BASE, {"muon": (1e-3,)}, [0, 1])
    with pytest.raises(ValueError, match="'muon': cannot be packed"):
        list(execute(runs, tmp_path, RUNTIME, ONE, pack=2))
    with pytest.raises(ValueError, match="--pack 0: must be at least 1"):
        list(execute(runs, tmp_path, RUNTIME, ONE, pack=0))
    assert not list(tmp_path.iterdir())
    name = plan([0])[0].name
    (folder / name / "status.json").write_text('{"status": "running"}')
    with pytest.raises(ValueError, match="engine: packed -> eager"):
        list(execute(plan([0]), folder, RUNTIME, ONE))
