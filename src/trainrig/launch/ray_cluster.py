"""Ray: tasks with retries, kept alive by an actor that outlives the launcher.

The only importer of ray. On an existing cluster the sweep belongs to a detached actor; a launcher
that dies can be started again with ``--attach``. A cluster that was started here ends with its
launcher, and the same command resumes the runs.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainrig.launch.jobs import JobFolder, file_stem, perform_job
from trainrig.launch.options import LaunchOptions
from trainrig.stopping import Interruption
from trainrig.sweep import Outcome, Task

NAMESPACE = "trainrig"


def work(task: Task, folder: Path) -> str:
    """Carry out a task in a worker of the cluster."""
    try:
        return perform_job(task, JobFolder(folder)).status
    except Interruption as stop:
        raise RuntimeError(str(stop)) from None  # Ray runs the task again


class Supervisor:
    """Owns a sweep's tasks on the cluster; started again, it continues with what has not ended.

    Args:
        tasks: of the sweep.
        folder: the sweep's launch folder, on a file system that all nodes share.
        resources: ``num_cpus`` and ``num_gpus`` of a task.
        retries: new tries of a task whose worker died or was asked to stop.
    """

    def __init__(
        self, tasks: Sequence[Task], folder: Path, resources: dict[str, float], retries: int
    ) -> None:
        import ray

        self.folder = JobFolder(folder)
        ended = self.folder.ended()
        remote = ray.remote(max_retries=retries, retry_exceptions=[RuntimeError], **resources)(work)
        self.flying = {
            remote.remote(task, folder): task for task in tasks if file_stem(task.name) not in ended
        }

    def queued(self) -> set[str]:
        """Return the tasks that wait or run; note those that Ray gave up."""
        import ray

        done, _ = ray.wait(list(self.flying), num_returns=len(self.flying), timeout=0)
        for reference in done:
            task = self.flying.pop(reference)
            try:
                ray.get(reference)
            except Exception as error:
                reason = f"given up by Ray: {type(error).__name__}"
                self.folder.write_outcome(Outcome(task.name, task.path, "failed", reason))
        return {task.name for task in self.flying.values()}


def submit(tasks: Sequence[Task], folder: JobFolder, options: LaunchOptions) -> None:
    """Hand the tasks to a detached supervisor.

    Raises:
        ImportError: ray is not installed.
        ValueError: the cluster does not answer.
    """
    ray = _connected(options)
    folder.begin(tasks)
    with contextlib.suppress(ValueError):  # none is there
        ray.kill(_supervisor(folder, options))  # idle: its launcher was lost after the last task
    gpus = options.gpus_per_run if ray.cluster_resources().get("GPU") else 0
    actor = ray.remote(num_cpus=0, max_restarts=-1)(Supervisor)
    actor.options(name=_name(folder), namespace=NAMESPACE, lifetime="detached").remote(
        list(tasks), folder.path.resolve(), {"num_cpus": 1, "num_gpus": gpus}, options.retries
    )
    folder.set_record("ray", {task.name: _name(folder) for task in tasks})


def queued(folder: JobFolder, options: LaunchOptions) -> set[str] | None:
    """Return the tasks that wait or run; None while the supervisor is being restarted."""
    ray = _connected(options)
    try:
        return ray.get(_supervisor(folder, options).queued.remote(), timeout=60)
    except ValueError:  # no actor of that name
        return set()
    except ray.exceptions.RayError:
        return None


def finish(folder: JobFolder, options: LaunchOptions) -> None:
    """Remove the supervisor."""
    _connected(options).kill(_supervisor(folder, options))


def _supervisor(folder: JobFolder, options: LaunchOptions) -> Any:
    return _connected(options).get_actor(_name(folder), namespace=NAMESPACE)


def _name(folder: JobFolder) -> str:
    return "sweep-" + hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:16]


def _connected(options: LaunchOptions) -> Any:
    try:
        import ray
    except ImportError:
        raise ImportError("--launcher ray needs ray; install the extra 'ray'") from None
    if not ray.is_initialized():
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        if options.ray_address:
            quiet.pop("include_dashboard")
        try:
            ray.init(address=options.ray_address or "local", namespace=NAMESPACE, **quiet)
        except ConnectionError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"--ray-address {options.ray_address}: {reason}") from None
    return ray
