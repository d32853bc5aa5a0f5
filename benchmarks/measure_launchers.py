"""Measure what a launcher adds to each task: jobs that import torch and do nothing else.

Examples:
    python benchmarks/measure_launchers.py --tasks 8 --jobs 1
    python benchmarks/measure_launchers.py --tasks 8 --launcher slurm

Printed are the seconds from launch to last outcome, and these times the slots over the tasks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from trainrig.cli import Parser, entry, positive_int
from trainrig.files import scratch_folder
from trainrig.launch.options import add_launch_flags, launch_options


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--tasks", type=positive_int, default=8, help="(8)")
    parser.add_argument("--slots", type=positive_int, default=1, help="of the cluster (1)")
    add_launch_flags(parser)
    return parser.parse_args(argv)


def idle(position: int) -> str:
    """Do what every run does first."""
    import torch

    return "complete" if torch.ones(1).item() == 1 else "failed"


@entry
def main(argv: list[str] | None = None) -> int:
    """Launch the idle tasks and print the time."""
    arguments = parse_args(argv)
    from trainrig.launch.launcher import launch
    from trainrig.sweep import Task

    options = launch_options(arguments)
    with scratch_folder(Path()) as folder:
        base = folder.resolve()
        tasks = [Task(name=str(k), path=base / str(k), work=idle) for k in range(arguments.tasks)]
        started = time.perf_counter()
        statuses = {outcome.status for outcome in launch(tasks, options, base)}
        seconds = time.perf_counter() - started
    slots = options.jobs or arguments.slots
    print(
        f"{options.launcher}: {len(tasks)} tasks on {slots} slots in {seconds:.2f} s, "
        f"{seconds * slots / len(tasks):.2f} s per task"
    )
    return 0 if statuses == {"complete"} else 1


if __name__ == "__main__":
    raise SystemExit(main())
