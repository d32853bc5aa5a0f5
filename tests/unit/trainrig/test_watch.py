"""The terminal view: where runs are, how fast, whether anybody works on them; nothing touched."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest
import watch as script

from trainrig.watch import TAIL_BYTES, last_rows, look, read_line


def write(path, status, rows, *, pid=None, config=None):
    (path / "logs").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config or {"training_steps": 400}))
    (path / "environment.json").write_text("{}")
    (path / "status.json").write_text(json.dumps(status))
    (path / "logs/progress.txt").write_text("".join(rows) + "step=999 split=tr")
    if pid is not None:
        (path / ".lock").write_text(f"pid {pid} on {platform.node()}")


ROWS = [
    "step=100 split=train loss=2.5 weight_l2=7.0 grad_l2=0.5 elapsed=10.0\n",
    "step=100 split=holdout loss=1.0 accuracy_closed=0.75 elapsed=10.0\n",
    "step=200 split=train loss=2.25 weight_l2=8.0 grad_l2=0.25 elapsed=30.0\n",
]


def test_a_run_at_work_has_a_speed_and_a_time_left(tmp_path):
    write(tmp_path / "a", {"status": "running", "step": 0}, ROWS, pid=os.getpid())
    (line,) = look(tmp_path)
    assert (line.name, line.status, line.done, line.total) == ("a", "running", 200, 400)
    assert line.per_second == pytest.approx(100 / 20)
    assert line.seconds_left == pytest.approx(200 / 5)
    assert line.values == {"loss": 2.25, "in-context": 0.75, "|w|": 8.0, "|g|": 0.25}


def test_a_run_whose_process_is_gone_is_stopped(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write(tmp_path / "a", {"status": "running", "step": 0}, ROWS, pid=ended.pid)
    line = read_line(tmp_path / "a", "a")
    assert (line.status, line.seconds_left) == ("stopped", None)


def test_epochs_count_where_the_end_is_given_in_them(tmp_path):
    rows = [f"step={10 * e} epoch={e} split=val accuracy=0.5 elapsed={e}.0\n" for e in (1, 2, 3)]
    write(tmp_path / "a", {"status": "complete"}, rows, config={"num_epochs": 3})
    line = read_line(tmp_path / "a", "a")
    assert (line.done, line.total, line.unit, line.per_second) == (3, 3, "epoch", 1.0)


def test_a_long_log_is_read_from_its_end(tmp_path):
    path = tmp_path / "progress.txt"
    path.write_text("".join(f"step={i} split=train loss=1.5\n" for i in range(20_000)))
    assert path.stat().st_size > 4 * TAIL_BYTES
    rows = list(last_rows(path))
    assert rows[-1] == {"step": 19_999, "split": "train", "loss": 1.5}
    assert len(rows) < 5_000
    assert [row["step"] for row in rows] == list(range(rows[0]["step"], 20_000))


def test_the_script_prints_once_into_a_pipe_and_touches_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    write(tmp_path / "s/a[1]", {"status": "running", "steps": 400}, ROWS, pid=os.getpid())
    write(tmp_path / "s/b", {"status": "diverged", "step": 7}, [])
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}
    assert script.main([str(tmp_path / "s")]) == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    seen = ["a[1]", "running", "200/400", "5", "steps/s", "40", "s", "2.25", "0.75", "8", "0.25"]
    assert first.split() == seen
    assert second.split() == ["b", "diverged", "7/400"]
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")} == before


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
    assert script.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
