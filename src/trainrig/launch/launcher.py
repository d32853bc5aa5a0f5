"""The launchers: worker processes here, SLURM, Ray.

Every sweep of every system hands its tasks to ``launch``. On a cluster the jobs belong to the
scheduler: they outlive the launcher, which only watches the files that they leave in the sweep's
folder (it must be on a shared file system) and the scheduler's queue.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from trainrig.launch.jobs import JobFolder, follow
from trainrig.launch.options import LaunchOptions
from trainrig.launch.plan import describe_plan
from trainrig.runs import FINAL, read_status
from trainrig.stopping import Interruption
from trainrig.sweep import Outcome, Task, run_tasks


def carry_out(
    tasks: Sequence[Task], options: LaunchOptions, base: Path, *, overwrite: bool = False
) -> Iterator[Outcome]:
    """Carry out what is not finished yet; with ``dry_run``, print the plan and do nothing.

    Args:
        tasks: all of a sweep.
        options: see ``launch``.
        base: the sweep's folder.
        overwrite: the tasks train finished runs again.

    Raises:
        ValueError: as ``launch``; or ``overwrite`` on a cluster, where a job that is run again
            would discard what it has done.
    """
    finished, waiting = [], []
    for task in tasks:
        status = read_status(task.path)["status"]
        if status in FINAL and not overwrite:
            finished.append(Outcome(task.name, task.path, status, "was finished before"))
        else:
            waiting.append(task)
    yield from start(waiting, finished, options, base, overwrite=overwrite)


def start(
    tasks: Sequence[Task],
    finished: Sequence[Outcome],
    options: LaunchOptions,
    base: Path,
    *,
    overwrite: bool = False,
) -> Iterator[Outcome]:
    """Do what ``carry_out`` does for a sweep that knows its finished runs and its tasks itself."""
    if overwrite and options.launcher != "local":
        raise ValueError(
            f"--overwrite with --launcher {options.launcher}: a job that is run again would start "
            "over each time; remove the runs' folders instead"
        )
    if options.dry_run:
        print(describe_plan(tasks, finished, options))  # noqa: T201 - what was asked for
        return
    yield from finished
    yield from launch(tasks, options, base)


def launch(tasks: Sequence[Task], options: LaunchOptions, base: Path) -> Iterator[Outcome]:
    """Carry out all tasks, yielding outcomes as they come.

    Args:
        tasks: independent of each other; names are unique.
        options: who carries them out, and with what.
        base: the sweep's folder; ``.launch`` in it keeps what a launcher must know to continue.

    Raises:
        ValueError: jobs of this sweep are in the queue already, or none are there to attach to.
        ImportError: the launcher's package is not installed.
    """
    if options.launcher == "local":
        yield from run_tasks(tasks, jobs=options.jobs or 1, gpus=options.gpus)
        return
    if not tasks:
        return
    engine, folder = _engine(options.launcher), JobFolder(base / ".launch")
    if options.attach:
        _check_attachable(folder, tasks, options.launcher)
    else:
        _refuse_doubles(engine, folder, options)
        engine.submit(tasks, folder, options)
    try:
        yield from follow(tasks, folder, lambda: engine.queued(folder, options))
    except (KeyboardInterrupt, Interruption):
        print("the jobs continue; the same command with --attach follows them", file=sys.stderr)  # noqa: T201
        raise
    engine.finish(folder, options)


def _engine(name: str) -> ModuleType:
    from trainrig.launch import ray_cluster, slurm

    return slurm if name == "slurm" else ray_cluster


def _check_attachable(folder: JobFolder, tasks: Sequence[Task], launcher: str) -> None:
    record = folder.record()
    if record is None or record["launcher"] != launcher:
        raise ValueError(f"--attach: {folder.path} holds no jobs of {launcher}; leave it out")
    unknown = [task.name for task in tasks if task.name not in record["jobs"]]
    if unknown:
        raise ValueError(
            f"--attach: {unknown[0]} (and {len(unknown) - 1} more) was not launched from "
            f"{folder.path}; give the flags of the launch, or leave --attach out"
        )


def _refuse_doubles(engine: ModuleType, folder: JobFolder, options: LaunchOptions) -> None:
    record = folder.record()
    if record is None or record["launcher"] != options.launcher:
        return
    queued = engine.queued(folder, options)
    if queued:
        raise ValueError(
            f"{folder.path}: {len(queued)} jobs of this sweep are in the queue; --attach follows "
            "them, or cancel them first"
        )
