"""Many processes at one place: nothing lost, nothing torn, one owner of a run at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from optimizer_quality.config import CifarConfig
from optimizer_quality.runs_table import write_runs_csv
from trainrig.config import to_dict
from trainrig.files import write_json
from trainrig.runs import open_run

FORK = multiprocessing.get_context("fork")
WRITERS = 16


def finish_runs(folder, writer, rows, every):
    """Finish ``rows`` runs and list all runs of the folder after each ``every`` of them."""
    config = to_dict(CifarConfig(seed=writer)) | {"images": {"synthetic": True}}
    for number in range(rows):
        run = folder / f"w{writer:02d}_r{number:03d}"
        run.mkdir()
        write_json(run / "config.json", config)
        write_json(run / "metrics.json", {"final": {"test": {"accuracy": number / rows}}})
        write_json(run / "status.json", {"status": "complete", "step": number})
        if (number + 1) % every == 0:
            write_runs_csv(folder)


def read_lines(folder):
    """Return the table's rows; every one must have all its cells."""
    header, *rows = (folder / "runs.csv").read_text().splitlines()
    assert {row.count(",") for row in rows} <= {header.count(",")}
    return rows


@pytest.mark.parametrize(
    ("rows", "every"), [(12, 4), pytest.param(200, 20, marks=pytest.mark.slow)]
)
def test_sixteen_writers_lose_no_row_and_no_reader_sees_half_a_table(tmp_path, rows, every):
    writers = [
        FORK.Process(target=finish_runs, args=(tmp_path, number, rows, every))
        for number in range(WRITERS)
    ]
    for process in writers:
        process.start()
    seen = 0
    while any(process.is_alive() for process in writers):
        if (tmp_path / "runs.csv").exists():
            now = len(read_lines(tmp_path))
            assert now >= seen, "a row was lost"
            seen = now
        time.sleep(0.02)
    assert {process.exitcode for process in writers} == {0}
    names = [line.partition(",")[0] for line in read_lines(tmp_path)]
    expected = [f"w{w:02d}_r{n:03d}" for w in range(WRITERS) for n in range(rows)]
    assert names == expected


def hold(path, ready, wait):
    """Open a run and keep it until told, or killed."""
    with open_run(path, {"seed": 1}, {}):
        ready.set()
        wait.wait(30)


def test_one_of_two_processes_wins_and_the_other_says_who(tmp_path):
    ready, wait = FORK.Event(), FORK.Event()
    owner = FORK.Process(target=hold, args=(tmp_path / "run", ready, wait))
    owner.start()
    assert ready.wait(30)
    with (
        pytest.raises(ValueError, match=f"another process \\(pid {owner.pid} on "),
        open_run(tmp_path / "run", {"seed": 1}, {}),
    ):
        pass
    wait.set()
    owner.join(30)
    with open_run(tmp_path / "run", {"seed": 1}, {}) as run:
        assert run.path == tmp_path / "run"


def test_a_killed_owner_leaves_no_lock_behind(tmp_path):
    ready, wait = FORK.Event(), FORK.Event()
    owner = FORK.Process(target=hold, args=(tmp_path / "run", ready, wait))
    owner.start()
    assert ready.wait(30)
    os.kill(owner.pid, signal.SIGKILL)
    owner.join(30)
    with open_run(tmp_path / "run", {"seed": 1}, {}) as run:
        assert (run.path / "config.json").exists()


def test_the_lock_of_a_host_that_is_gone_is_taken_over(tmp_path):
    """Its file still names that host; the lock itself went with the process, or with the host."""
    with open_run(tmp_path / "run", {"seed": 1}, {}):
        pass
    (tmp_path / "run" / ".lock").write_text("pid 7 on node3")
    with open_run(tmp_path / "run", {"seed": 1}, {}) as run:
        assert f"pid {os.getpid()} on " in (run.path / ".lock").read_text()
