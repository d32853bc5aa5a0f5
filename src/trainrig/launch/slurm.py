"""SLURM, through submitit: job arrays, requeueing, the queue. The only importer of submitit."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainrig.launch.jobs import JobFolder, perform_job
from trainrig.launch.options import LaunchOptions
from trainrig.stopping import EXIT_REQUEUE, Interruption, stop_at_once
from trainrig.sweep import Task

#: Tasks of one array: SLURM's default ``MaxArraySize`` is 1001.
ARRAY_SIZE = 1000
SETUP = ["export SUBMITIT_PREEMPT_SIGNAL=USR1", "export TQDM_DISABLE=1"]
DEFAULTS: dict[str, Any] = {
    "time": 60,
    "cpus_per_task": 1,
    "job_name": "trainrig",
    "stderr_to_stdout": True,
}


@dataclass(frozen=True)
class SlurmWork:
    """What a job does, from the pickle that submitit makes of this object."""

    task: Task
    folder: Path

    def __call__(self) -> str:
        """Carry out the task; asked to stop by SIGUSR1 or by the end of the time, run again later.

        Raises:
            SystemExit: stopped; with status 85 if the job is to run again.
        """
        try:
            with stop_at_once():
                return perform_job(self.task, JobFolder(self.folder)).status
        except Interruption as stop:
            print(stop, flush=True)  # noqa: T201 - the job's log
            if stop.exit_code == EXIT_REQUEUE:
                _requeue()
            raise SystemExit(stop.exit_code) from None


def _requeue() -> None:
    """Ask SLURM to run this job again, as far as the node can; its exit status asks as well."""
    try:
        subprocess.run(["scontrol", "requeue", _own_id()], check=False)
    except (OSError, KeyError) as error:
        reason = f"no {error.args[0]} in the environment" if isinstance(error, KeyError) else error
        print(  # noqa: T201 - the job's log
            f"scontrol requeue: {reason}; SLURM runs the job again if its RequeueExit has "
            f"{EXIT_REQUEUE}, else the same command resumes it",
            flush=True,
        )


def _own_id() -> str:
    array, index = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"]


def submit(tasks: Sequence[Task], folder: JobFolder, options: LaunchOptions) -> None:
    """Submit one job per task, as arrays, and note their ids.

    Raises:
        ImportError: submitit is not installed.
        ValueError: no sbatch here, an unknown option, or sbatch refuses.
    """
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # read when submitit is imported
    try:
        import submitit
    except ImportError:
        raise ImportError("--launcher slurm needs submitit; install the extra 'launch'") from None
    parameters = DEFAULTS | {"setup": SETUP} | options.slurm
    additional: dict[str, Any] = {"requeue": True, **parameters.pop("additional_parameters", {})}
    folder.begin(tasks)
    jobs: dict[str, str] = {}
    try:
        executor = submitit.SlurmExecutor(folder=folder.path / "slurm")
        executor.update_parameters(**parameters, additional_parameters=additional)
        for start in range(0, len(tasks), ARRAY_SIZE):
            part = tasks[start : start + ARRAY_SIZE]
            with executor.batch():
                made = [executor.submit(SlurmWork(task, folder.path)) for task in part]
            jobs |= {task.name: job.job_id for task, job in zip(part, made, strict=True)}
            folder.set_record("slurm", jobs)
    except (RuntimeError, submitit.core.utils.FailedJobError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--launcher slurm: {reason}") from None


def queued(folder: JobFolder, options: LaunchOptions) -> set[str] | None:
    """Return the tasks whose jobs wait or run; None if SLURM does not answer."""
    record = folder.record()
    assert record is not None  # submitted before
    jobs = record["jobs"]
    ids = ",".join(sorted({job.partition("_")[0] for job in jobs.values()}))
    command = ["squeue", "--noheader", "--array", "--jobs", ids, "--format", "%i"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0:
        return set() if "Invalid job id" in answer.stderr else None
    present = set(answer.stdout.split())
    return {name for name, job in jobs.items() if job in present}


def finish(folder: JobFolder, options: LaunchOptions) -> None:
    """Nothing stays behind."""
