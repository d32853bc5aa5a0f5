"""Sweeps of packs: what is planned, halved for want of memory, and reported of each run."""

from __future__ import annotations

import json

import pytest
import torch

from trainrig.files import write_json
from trainrig.launch.options import LaunchOptions
from trainrig.launch.plan import describe_plan
from trainrig.packs import (
    PackPlan,
    PlannedRun,
    execute,
    keep_plan,
    make_plan,
    or_out_of_memory,
    read_plan,
)
from trainrig.sweep import Task

NAMES = "abcde"


def work(members, packed, position, *, room):
    """Train ``members`` where at most ``room`` of them fit into the memory."""
    assert packed or len(members) == 1

    def train():
        if len(members) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for path in members:
            if not (path / "status.json").exists():
                path.mkdir(parents=True, exist_ok=True)
                write_json(path / "status.json", {"status": "complete", "step": 10})
        return "complete"

    return or_out_of_memory(train)


def runs_in(folder, names=NAMES, length=10):
    return [PlannedRun(name=n, length=length, key="alike", member=folder / n) for n in names]


def carry_out(folder, runs, pack, room):
    plan = make_plan(runs, folder, pack, choose=lambda: (0, {}))
    keep_plan(plan, folder, replace=False)
    outcomes = list(execute(runs, folder, LaunchOptions(jobs=1), work, plan, room=room))
    return [(outcome.name, outcome.status, outcome.message) for outcome in outcomes]


def test_a_pack_without_memory_is_halved_until_it_fits(tmp_path, capsys):
    outcomes = carry_out(tmp_path, runs_in(tmp_path), 5, room=2)
    assert sorted(outcomes) == [(name, "complete", "") for name in NAMES]
    plan = json.loads((tmp_path / "manifest.json").read_text())
    assert plan["size"] == 2
    said = capsys.readouterr().err
    assert "pack of 5 runs: out of memory; continuing with halves of it" in said
    assert {len(pack) for pack in plan["packs"]} <= {1, 2}
    assert sorted(name for pack in plan["packs"] for name in pack) == list(NAMES)


def test_a_run_that_does_not_fit_alone_is_reported_as_failed(tmp_path):
    outcomes = carry_out(tmp_path, runs_in(tmp_path, "ab"), 2, room=0)
    assert sorted(outcomes) == [(name, "failed", "out of memory") for name in "ab"]


def test_finished_members_keep_their_places_and_are_reported_once(tmp_path):
    (tmp_path / "a").mkdir()
    write_json(tmp_path / "a" / "status.json", {"status": "complete", "epoch": 10})
    plan = PackPlan(size=3, packs=(("a", "b", "c"),))
    runs = runs_in(tmp_path, "abc")
    outcomes = list(execute(runs, tmp_path, LaunchOptions(jobs=1), work, plan, room=3))
    assert [(outcome.name, outcome.message) for outcome in outcomes] == [
        ("a", "was finished before"), ("b", ""), ("c", ""),
    ]  # fmt: skip


def test_a_longer_sweep_trains_its_finished_runs_again(tmp_path):
    assert len(carry_out(tmp_path, runs_in(tmp_path, "ab"), 2, room=2)) == 2
    longer = runs_in(tmp_path, "ab", length=20)
    assert [message for *_, message in carry_out(tmp_path, longer, 2, room=2)] == ["", ""]


def test_other_pack_sizes_are_refused_unless_forced(tmp_path):
    runs = runs_in(tmp_path)
    keep_plan(make_plan(runs, tmp_path, 2, choose=lambda: (0, {})), tmp_path, replace=False)
    with pytest.raises(ValueError, match="has packs of up to 2 runs, not 3"):
        make_plan(runs, tmp_path, 3, choose=lambda: (0, {}))
    forced = make_plan(runs, tmp_path, 3, choose=lambda: (0, {}), force=True)
    assert [len(pack) for pack in forced.packs] == [2, 3]
    assert make_plan(runs, tmp_path, "auto", choose=lambda: (0, {})) == read_plan(tmp_path)


def test_a_plan_counts_the_runs_of_its_packs(tmp_path):
    task = Task(name="a and 2 more", path=tmp_path, work=work, arguments={"members": [1, 2, 3]})
    text = describe_plan([task], [], LaunchOptions(jobs=1))
    assert "runs: 3, finished before: 0" in text
    assert "packs: 1, of 3 runs at most" in text
