"""Live curves: one interface over trackio and TensorBoard; never the record, never in the way.

A run's own log is its record (``trainrig.tracking.metric_log``). A tracker shows the same rows
while they come; whatever fails in it is logged once and the run continues. After a resume its
run is made again from our own log, so that rows that were lost with a crash are not shown.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from trainrig.errors import nearest
from trainrig.tracking.metric_log import TIMING_KEYS

logger = logging.getLogger(__name__)

TRACKERS = ("trackio", "tensorboard", "none")


class Sink(Protocol):
    """Where rows are shown."""

    def log(self, scalars: Mapping[str, float], step: int | None) -> None:
        """Show one row."""

    def finish(self) -> None:
        """Flush and close."""


class Tracker:
    """Shows rows, or does nothing where that was not asked for or is not possible.

    Args:
        project: shown in the dashboard.
        name: the run's name inside the project.
        config: the resolved configuration.
        folder: of the runs; trackio keeps its database in ``folder/trackio``, TensorBoard its
            events in ``folder/tensorboard/<name>``.
        rows: rows already in our log, to be shown again after a resume.
        kind: one of ``TRACKERS``. ``trackio`` does nothing where it is not installed.

    Raises:
        ValueError: another kind.
        ImportError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        project: str,
        name: str,
        config: Mapping[str, Any],
        *,
        folder: Path,
        rows: Iterable[Mapping[str, Any]] = (),
        kind: str = "trackio",
    ) -> None:
        check_tracker(kind)
        self._sink: Sink | None = None
        if kind != "none" and importlib.util.find_spec(kind) is not None:
            self._guard(self._open, kind, project, name, dict(config), folder)
        for row in rows:
            self.log(row)

    def _open(
        self, kind: str, project: str, name: str, config: dict[str, Any], folder: Path
    ) -> None:
        if kind == "trackio":
            from trainrig.tracking.trackio_sink import TrackioSink

            self._sink = TrackioSink(project, name, config, folder / "trackio")
        else:
            from trainrig.tracking.tensorboard_sink import TensorBoardSink

            self._sink = TensorBoardSink(folder / "tensorboard" / name, config)

    def log(self, row: Mapping[str, Any]) -> None:
        """Show one row; its ``split`` becomes a prefix and its ``step`` the horizontal axis."""
        if self._sink is not None:
            self._guard(self._sink.log, scalars_of(row), row.get("step"))

    def finish(self) -> None:
        """Flush and close."""
        if self._sink is not None:
            self._guard(self._sink.finish)
            self._sink = None

    def _guard(self, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            logger.warning("live tracking stopped (%s); the run continues", error)
            self._sink = None


def track_run(
    project: str, config: Mapping[str, Any], kind: str
) -> Callable[[Path, Iterable[Mapping[str, Any]]], Tracker]:
    """Return what shows a run live: (run directory, rows so far) → its tracker."""

    def open_tracker(path: Path, rows: Iterable[Mapping[str, Any]]) -> Tracker:
        name = f"{path.parent.name}/{path.name}"
        return Tracker(project, name, config, folder=path.parent, rows=rows, kind=kind)

    return open_tracker


def scalars_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a row's numbers as a dashboard names them.

    >>> scalars_of({"step": 3, "split": "train", "loss": 0.5, "elapsed": 9.0})
    {'train/loss': 0.5}
    """
    prefix = f"{row['split']}/" if row.get("split") else ""
    return {
        prefix + key: value
        for key, value in row.items()
        if key not in ("step", *TIMING_KEYS) and isinstance(value, int | float)
    }


def check_tracker(kind: str) -> None:
    """Refuse an unknown tracker, and TensorBoard where it is asked for and absent.

    Raises:
        ValueError, ImportError: these.
    """
    if kind not in TRACKERS:
        accepted = ", ".join(TRACKERS)
        raise ValueError(f"tracker {kind!r}{nearest(kind, TRACKERS)} (accepted: {accepted})")
    if kind == "tensorboard" and importlib.util.find_spec(kind) is None:
        raise ImportError('tensorboard is not installed; pip install -e ".[tensorboard]"')


def add_tracker_flags(group: Any, default: str = "trackio") -> None:
    """Add ``--tracker``, and ``--no-track`` as a short way to say ``none``."""
    text = f"where curves are shown live: {', '.join(TRACKERS)} ({default})"
    group.add_argument("--tracker", choices=TRACKERS, default=default, help=text)
    text = "the same as --tracker none"
    group.add_argument("--no-track", dest="tracker", action="store_const", const="none", help=text)
