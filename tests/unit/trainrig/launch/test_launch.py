"""Launchers without a cluster: options, plan, outcomes in files, and who may start what."""

from __future__ import annotations

import itertools

import pytest
import torch

import trainrig.launch.jobs as jobs
import trainrig.launch.launcher as launcher
from trainrig.cli import Parser
from trainrig.files import write_json
from trainrig.launch import slurm
from trainrig.launch.jobs import JobFolder, follow, perform_job
from trainrig.launch.launcher import carry_out, launch
from trainrig.launch.options import LaunchOptions, add_launch_flags, launch_options
from trainrig.launch.plan import describe_plan
from trainrig.stopping import EXIT_REQUEUE, Interruption
from trainrig.sweep import Outcome, Task


@pytest.fixture
def tasks(tmp_path):
    """Three tasks, of which the first is complete."""
    made = [
        Task(name=n, path=tmp_path / n, work=work, arguments={"path": tmp_path / n}) for n in "abc"
    ]
    for task in made:
        task.path.mkdir()
    write_json(tmp_path / "a" / "config.json", {})
    write_json(tmp_path / "a" / "status.json", {"status": "complete"})
    return made


def work(position, path):
    write_json(path / "status.json", {"status": "complete"})
    return "complete"


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_S", 0.001)
    monkeypatch.setattr(jobs, "QUEUE_POLL_S", 0.0)


class Cluster:
    """A launcher engine whose queue is a script of answers."""

    def __init__(self, answers, run=()):
        self.answers, self.run = iter(answers), run
        self.submitted, self.finished = [], False

    def submit(self, tasks, folder, options):
        self.submitted = [task.name for task in tasks]
        folder.begin(tasks)
        folder.set_record("slurm", {task.name: task.name for task in tasks})
        for task in tasks:
            if task.name in self.run:
                perform_job(task, folder)

    def queued(self, folder, options):
        return next(self.answers)

    def finish(self, folder, options):
        self.finished = True


def parse(*words):
    parser = Parser()
    add_launch_flags(parser)
    return launch_options(parser.parse_args(list(words)))


def test_flags_in_both_spellings():
    options = parse("--launcher", "slurm", "--slurm_time", "5", "--slurm-mem", "1GB")
    assert options.slurm == {"time": 5, "mem": "1GB"}
    assert parse("--slurm", "exclude=n7").slurm == {"additional_parameters": {"exclude": "n7"}}
    assert parse() == LaunchOptions()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
        (["--gpus-per-run", "0"], "must be above 0"),
        (["--retries", "-1"], "must be 0 or more"),
        (["--attach"], "local runs end with their launcher"),
        (["--slurm", "exclude"], "KEY=VALUE is expected"),
    ],
)
def test_bad_values_are_refused(words, text):
    with pytest.raises(ValueError, match=text):
        parse(*words)


def test_slots_follow_from_the_device(monkeypatch):
    monkeypatch.setattr("trainrig.device.core_count", lambda: 8)
    assert LaunchOptions().resolved(torch.device("cpu"), 2).jobs == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    spread = LaunchOptions(gpus_per_run=0.25).resolved(torch.device("cuda"), None)
    assert (spread.jobs, spread.gpus) == (8, ("3", "5"))
    one = LaunchOptions().resolved(torch.device("cuda:1"), None)
    assert (one.jobs, one.gpus) == (1, ())


def test_finished_runs_are_not_started_again(tasks, tmp_path):
    outcomes = list(carry_out(tasks, LaunchOptions(), tmp_path))
    assert [(o.name, o.message) for o in outcomes] == [
        ("a", "was finished before"), ("b", ""), ("c", ""),
    ]  # fmt: skip


def test_the_plan_starts_nothing(tasks, tmp_path, capsys):
    write_json(tmp_path / "b" / "status.json", {"status": "interrupted"})
    assert list(carry_out(tasks, LaunchOptions(dry_run=True, jobs=2), tmp_path)) == []
    said = capsys.readouterr().out
    assert "runs: 3, finished before: 1" in said
    assert "b  interrupted" in said
    assert "2 worker processes here" in said
    assert not (tmp_path / "c" / "status.json").exists()


def test_the_plan_estimates_from_finished_runs(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("trainrig.launch.plan.duration_s", lambda path: 600.0)
    finished = [Outcome("a", tmp_path / "a", "complete")]
    text = describe_plan(tasks[1:], finished, LaunchOptions(jobs=1))
    assert "estimated time: 20 min (2 rounds of 10 min, the mean of 1 finished runs)" in text
    assert "unknown" in describe_plan(tasks, [], LaunchOptions(jobs=1))


def test_overwriting_on_a_cluster_is_refused(tasks, tmp_path):
    with pytest.raises(ValueError, match="would start over each time"):
        list(carry_out(tasks, LaunchOptions(launcher="slurm"), tmp_path, overwrite=True))


def test_outcomes_come_from_files_and_lost_jobs_from_their_status(
    tasks, tmp_path, monkeypatch, fast
):
    write_json(tmp_path / "c" / "status.json", {"status": "interrupted", "message": "SIGTERM"})
    unsure = [None, {"b", "c"}, None]  # the scheduler need not answer
    cluster = Cluster(itertools.chain(unsure, itertools.repeat({"other"})), run=["b"])
    monkeypatch.setattr(launcher, "_engine", lambda name: cluster)
    outcomes = list(launch(tasks, LaunchOptions(launcher="slurm"), tmp_path))
    assert cluster.submitted == ["a", "b", "c"]
    assert cluster.finished
    assert {o.name: (o.status, o.message) for o in outcomes} == {
        "a": ("complete", ""),
        "b": ("complete", ""),
        "c": ("interrupted", "SIGTERM"),
    }


def test_jobs_in_the_queue_are_not_doubled_but_followed(tasks, tmp_path, monkeypatch, capsys, fast):
    def interrupt():
        yield {"a"}
        raise KeyboardInterrupt

    options = LaunchOptions(launcher="slurm")
    monkeypatch.setattr(launcher, "_engine", lambda name: Cluster(interrupt()))
    with pytest.raises(KeyboardInterrupt):
        list(launch(tasks, options, tmp_path))
    assert "the same command with --attach follows them" in capsys.readouterr().err
    again = Cluster([{"a"}], run="abc")
    monkeypatch.setattr(launcher, "_engine", lambda name: again)
    with pytest.raises(ValueError, match="1 jobs of this sweep are in the queue"):
        list(launch(tasks, options, tmp_path))
    assert again.submitted == []
    for task in tasks:
        perform_job(task, JobFolder(tmp_path / ".launch"))
    attached = LaunchOptions(launcher="slurm", attach=True)
    assert {o.status for o in launch(tasks, attached, tmp_path)} == {"complete"}
    stranger = Task(name="d", path=tmp_path / "d", work=work)
    with pytest.raises(ValueError, match=r"d .and 0 more. was not launched"):
        list(launch([stranger], attached, tmp_path))


def test_attaching_to_nothing_is_refused(tasks, tmp_path):
    with pytest.raises(ValueError, match="holds no jobs of slurm"):
        list(launch(tasks, LaunchOptions(launcher="slurm", attach=True), tmp_path))


def test_a_failed_task_is_an_outcome_in_its_file(tmp_path):
    folder = JobFolder(tmp_path)
    folder.begin([])
    perform_job(Task(name="x/y", path=tmp_path, work=int), folder)
    (outcome,) = follow([Task(name="x/y", path=tmp_path, work=int)], folder, set)
    assert outcome.status == "failed"
    assert outcome.name == "x/y"


@pytest.mark.parametrize("job", [{"SLURM_JOB_ID": "7"}, {}], ids=["no scontrol", "no job"])
def test_a_job_that_cannot_requeue_itself_keeps_its_exit_status(
    tasks, tmp_path, monkeypatch, capsys, job
):
    def stopped(*_):
        raise Interruption("stopped (SIGUSR1)", EXIT_REQUEUE)

    monkeypatch.setattr(slurm, "perform_job", stopped)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        slurm.SlurmWork(tasks[1], tmp_path)()
    assert ended.value.code == EXIT_REQUEUE
    assert "scontrol requeue:" in capsys.readouterr().out
