"""Many runs: one that fails is an outcome, the others continue."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from trainrig.stopping import EXIT_CODES, Interruption, stop_at_once
from trainrig.sweep import Outcome, Paced, Task, failures, refuse_if_all_failed, run_tasks


@pytest.fixture
def tasks(tmp_path, sweep_work):
    """Return a function: names of work -> tasks."""

    def make(*names):
        return [
            Task(
                name=f"{i}_{name}",
                path=tmp_path / str(i),
                work=getattr(sweep_work, name),
                arguments={"path": tmp_path / f"{i}.txt"},
            )
            for i, name in enumerate(names)
        ]

    return make


def test_what_looks_at_all_runs_after_each_takes_a_small_share_of_the_time(monkeypatch):
    clock, calls = [0.0], []

    def rebuild():
        calls.append(clock[0])
        clock[0] += len(calls)  # it grows with the sweep

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    paced = Paced(rebuild)
    for _ in range(1000):
        paced()
        clock[0] += 1.0
    assert calls[0] == 0.0
    assert 5 < len(calls) < 15
    assert sum(range(1, len(calls))) <= 0.06 * calls[-1]


def statuses(outcomes):
    return {outcome.name: outcome.status for outcome in outcomes}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_is_an_outcome_and_the_others_go_on(tasks, jobs, tmp_path, capfd):
    outcomes = list(run_tasks(tasks("refuses", "breaks", "diverges", "good", "good"), jobs=jobs))
    assert statuses(outcomes) == {
        "0_refuses": "failed",
        "1_breaks": "failed",
        "2_diverges": "diverged",
        "3_good": "complete",
        "4_good": "complete",
    }
    messages = {outcome.name: outcome.message for outcome in outcomes}
    assert messages["0_refuses"] == "two lines"
    assert messages["1_breaks"] == "ZeroDivisionError: a bug"
    positions = {(tmp_path / f"{i}.txt").read_text().split()[0] for i in (3, 4)}
    assert positions <= ({"0"} if jobs == 1 else {"1", "2"})
    assert "a bug" in capfd.readouterr().err  # a bug shows its traceback


def test_a_killed_worker_costs_its_own_run_only(tasks):
    outcomes = list(run_tasks(tasks("good", "dies", "good", "good"), jobs=2))
    assert statuses(outcomes) == {
        "0_good": "complete",
        "1_dies": "failed",
        "2_good": "complete",
        "3_good": "complete",
    }
    assert "worker process died" in next(o.message for o in outcomes if o.name == "1_dies")


@pytest.mark.parametrize("number", EXIT_CODES)
def test_a_sweep_asked_to_stop_waits_for_its_workers_checkpoints(tasks, tmp_path, number):
    def ask():
        deadline = time.monotonic() + 60
        while not all((tmp_path / f"{i}.txt").exists() for i in (0, 1)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(Interruption, match=number.name) as stop, stop_at_once():
        list(run_tasks(tasks("stops", "stops", "good"), jobs=2))
    asking.join()
    assert stop.value.exit_code == EXIT_CODES[number]
    assert [(tmp_path / f"{i}.txt").read_text() for i in (0, 1)] == ["saved", "saved"]
    assert not (tmp_path / "2.txt").exists()


def test_in_this_process_outcomes_come_as_they_are_made(tasks, tmp_path):
    stream = run_tasks(tasks("good", "good"))
    next(stream)
    assert (tmp_path / "0.txt").exists()
    assert not (tmp_path / "1.txt").exists()


def test_jobs_must_be_positive():
    with pytest.raises(ValueError, match="--jobs 0"):
        list(run_tasks([], jobs=0))
    assert list(run_tasks([], jobs=2)) == []


def test_of_failed_runs_the_first_reason_is_said():
    def ended(name, status, message=""):
        return Outcome(name, Path(name), status, message)

    whole, lost = ended("a", "complete"), ended("b", "failed", "no images")
    assert failures([whole, ended("c", "diverged", "loss")]) == ""
    assert failures([whole, lost]) == "1 of 2 runs failed; b: no images"
    refuse_if_all_failed([whole, lost])
    with pytest.raises(ValueError, match="all 2 runs failed; b: no images"):
        refuse_if_all_failed([lost, ended("d", "failed", "no memory")])
    with pytest.raises(ValueError, match="all 2 runs did not end; e: interrupted"):
        refuse_if_all_failed([ended("e", "interrupted"), lost])
