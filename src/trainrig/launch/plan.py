"""What ``--dry-run`` prints: how many runs, where, and how long they may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from trainrig.launch.options import LaunchOptions
from trainrig.runs import read_status
from trainrig.sweep import Outcome, Task


def describe_plan(
    tasks: Sequence[Task], finished: Sequence[Outcome], options: LaunchOptions
) -> str:
    """Return the plan as lines of text.

    The time is that of the runs that are complete already, times the rounds that remain.

    Args:
        tasks: what would be started.
        finished: runs that are not started again.
        options: who would carry them out.
    """
    slots = _slots(options)
    members = [task.arguments.get("members", (task,)) for task in tasks]
    waiting = sum(map(len, members))
    lines = [f"runs: {waiting + len(finished)}, finished before: {len(finished)}"]
    if waiting > len(tasks):
        lines.append(f"packs: {len(tasks)}, of {max(map(len, members))} runs at most")
    width = max((len(task.name) for task in tasks), default=0)
    lines += [f"  {task.name:<{width}}  {read_status(task.path)['status']}" for task in tasks]
    where = {
        "local": f"{slots} worker processes here",
        "slurm": f"SLURM, at most {slots} jobs at a time",
        "ray": f"Ray at {options.ray_address or 'a cluster started here'}",
    }
    lines.append(f"launcher: {options.launcher} ({where[options.launcher]})")
    known = [s for s in (duration_s(outcome.path) for outcome in finished) if s is not None]
    if known and tasks:
        rounds = math.ceil(len(tasks) / slots)
        mean = sum(known) / len(known)
        lines.append(
            f"estimated time: {_clock(rounds * mean)} ({rounds} rounds of {_clock(mean)}, the "
            f"mean of {len(known)} finished runs)"
        )
    elif tasks:
        lines.append("estimated time: unknown until a run of this sweep has finished")
    return "\n".join(lines)


def duration_s(path: Path) -> float | None:
    """Return the seconds from a run's first file to its last status, interruptions included."""
    try:
        return (path / "status.json").stat().st_mtime - (path / "config.json").stat().st_mtime
    except FileNotFoundError:
        return None


def _slots(options: LaunchOptions) -> int:
    if options.launcher == "slurm":
        return int(options.slurm.get("array_parallelism", 256))
    return options.jobs or 1


def _clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
