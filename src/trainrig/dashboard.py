"""Any runs in a browser: their own logs shown by trackio or TensorBoard, new rows as they come.

The runs are read, never touched: what is shown lies in a scratch folder, made from each run's log,
so that runs of all systems appear together whether or not they were tracked while training.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from trainrig.report.describers import find_runs
from trainrig.report.records import RunRecord
from trainrig.tracking.tracker import check_tracker, scalars_of

Rows = list[tuple[dict[str, float], int]]


class Board(Protocol):
    """What shows runs."""

    def show(self, run: RunRecord, rows: Rows, *, replace: bool) -> None:
        """Add rows to a run; ``replace`` removes what was shown of it."""

    def serve(self, port: int | None) -> str:
        """Start to serve from this process; return the address."""


def make_board(kind: str, project: str, scratch: Path) -> Board:
    """Return the board of a kind, ``trackio`` or ``tensorboard``.

    Raises:
        ValueError, ImportError: an unknown kind, or one that is not installed.
    """
    check_tracker(kind)
    if kind == "tensorboard":
        from trainrig.tracking.tensorboard_sink import TensorBoardBoard

        return TensorBoardBoard(scratch)
    from trainrig.tracking.trackio_sink import TrackioBoard

    return TrackioBoard(project, scratch)


class Mirror:
    """Keeps a board up to date with the runs at or below a folder.

    Args:
        folder: a run, a sweep, or a folder of them.
        board: what shows them.
    """

    def __init__(self, folder: Path, board: Board) -> None:
        self.folder, self.board = folder, board
        self._shown: dict[Path, list[Mapping[str, Any]]] = {}

    def update(self) -> int:
        """Show what is new; return the number of runs.

        Raises:
            FileNotFoundError: no such folder, or no run with a logged row in it.
        """
        runs = [run for run in find_runs(self.folder, at_work=True) if run.rows]
        if not runs:
            raise FileNotFoundError(f"{self.folder}: no run with a logged row in it yet")
        for run in runs:
            before, rows = self._shown.get(run.path, []), list(run.rows)
            replace = rows[: len(before)] != before  # a resumed run was cut back
            new = rows if replace else rows[len(before) :]
            if new:
                self.board.show(run, list(by_step(new)), replace=replace)
                self._shown[run.path] = rows
        return len(runs)

    def follow(self, every_s: float) -> None:
        """Update until interrupted."""
        while True:
            time.sleep(every_s)
            self.update()


def by_step(rows: list[Mapping[str, Any]]) -> Iterator[tuple[dict[str, float], int]]:
    """Join the splits of one step into one row of scalars.

    >>> rows = [{"step": 1, "split": "train", "loss": 2.0}, {"step": 1, "split": "val", "loss": 3}]
    >>> list(by_step(rows))
    [({'train/loss': 2.0, 'val/loss': 3}, 1)]
    """
    for step, group in itertools.groupby(rows, key=lambda row: int(row.get("step", 0))):
        joined: dict[str, float] = {}
        for row in group:
            joined |= scalars_of(row)
        if joined:
            yield joined, step
