"""From a path on the disk to the page about it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from trainrig.report.describers import describe, find_runs
from trainrig.report.page import write_page
from trainrig.report.records import each_once
from trainrig.report.runs import generic_description, runs_page
from trainrig.summaries import summary_lock
from trainrig.sweep import Outcome, failures

NAME = "report.html"


def write_report(path: Path | str, output: Path | str | None = None) -> Path:
    """Write the report of a run, a sweep, a comparison, a results folder or a reconstruction.

    Args:
        path: the folder, or a file in it such as ``runs.csv``.
        output: the HTML file; ``report.html`` in the folder by default.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: no such path, or nothing in it that any experiment knows.
        ValueError: a run's files are damaged.
    """
    path = Path(path)
    runs = each_once(find_runs(path))
    folder = path if path.is_dir() else path.parent
    description = describe(folder, runs)
    if description is None:
        if not runs:
            raise FileNotFoundError(
                f"{path}: holds no run, sweep, comparison, results or reconstruction; give a "
                "folder that a script of this project has written"
            )
        description = generic_description(folder, runs)
    return write_page(Path(output or folder / NAME), runs_page(folder, runs, description))


def conclude(folder: Path, files: Iterable[Path], outcomes: Sequence[Outcome]) -> int:
    """End a sweep's script: write its page, print its files, say what failed, return the status.

    Args:
        folder: of the sweep.
        files: tables and figures that were written.
        outcomes: of the runs that were asked for.

    Returns:
        1 if a run has not come to an end (complete or diverged), else 0.
    """
    with summary_lock(folder):
        report = write_report(folder)
    for path in (*files, report):
        print(path, flush=True)  # noqa: T201 - the sweep's last words
    failed = failures(outcomes)
    if failed:
        print(failed, file=sys.stderr)  # noqa: T201
    return 1 if failed else 0
