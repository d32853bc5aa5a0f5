"""Asked to stop, by a signal or by the clock, each system saves after its step and resumes."""

from __future__ import annotations

import signal
import time

import pytest

from kills import fingerprint
from trainrig.runs import read_status
from trainrig.stopping import EXIT_CODES, EXIT_REQUEUE, StopRequest, job_end_time

#: Steps until a signal comes: within an epoch, and all three before the end.
LOOKS = {"optimizer_quality": 1, "deepobs_pack": 3}
SYSTEMS = ("icl", "optimizer_quality", "deepobs", "ptycho", "cifar_pack", "deepobs_pack")


@pytest.mark.parametrize("system", SYSTEMS)
def test_stopped_runs_resume_exactly(system, commands, call_script, signalled, tmp_path):
    script, argv = commands[system]
    whole, part = tmp_path / "whole", tmp_path / "part"
    signalled(None, 0)
    assert call_script(script, argv(whole)).code == 0
    for number, code in EXIT_CODES.items():
        signalled(number, LOOKS.get(system, 2))
        ended = call_script(script, argv(part))
        assert ended.code == code, ended.err
        (line,) = [line for line in ended.error_lines if "stopped" in line]
        assert number.name in line
        assert "step 0" not in line
        assert line.endswith("; the same command resumes")
        stopped = [read_status(path.parent)["status"] for path in part.rglob("status.json")]
        assert stopped == ["interrupted"] * (2 if system.endswith("pack") else 1)
    signalled(None, 0)
    ended = call_script(script, argv(part))
    assert ended.code == 0, ended.err
    assert fingerprint(whole) == fingerprint(part)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_end_of_a_jobs_time_is_met_with_a_checkpoint(
    commands, call_script, tmp_path, monkeypatch
):
    script, argv = commands["icl"]
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 5))
    ended = call_script(script, argv(tmp_path / "run"))
    assert ended.code == EXIT_REQUEUE
    assert "before the end of the job's time" in ended.err
    assert read_status(tmp_path / "run")["step"] == 1
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 3600))
    assert call_script(script, argv(tmp_path / "run")).code == 0


def test_slow_steps_ask_for_a_larger_reserve(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0] + 1)
    monkeypatch.setattr(time, "time", lambda: now[0])
    request, stopped = StopRequest(end_time=1000.0), None
    while stopped is None:
        stopped = now[0] if request.due() else None
        now[0] += 60
    assert 1000 - 15 - 180 - 60 < stopped <= 1000 - 60


def test_end_time_is_read_where_somebody_says_it():
    assert job_end_time({}) is None
    assert job_end_time({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "12"}) == 12
    assert job_end_time({"TRAINRIG_END_TIME": "13", "SLURM_JOB_END_TIME": "12"}) == 13


def test_outside_a_run_a_signal_stops_at_once(capsys):
    from trainrig.cli import entry

    @entry
    def main(argv):
        signal.raise_signal(signal.SIGUSR1)
        return 0

    assert main() == EXIT_REQUEUE
    assert capsys.readouterr().err == "stopped (SIGUSR1); the same command resumes\n"
