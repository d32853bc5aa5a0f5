"""Live curves through trackio: a sink for our rows, never their record, never able to stop a run.

The only module that imports trackio. After a resume the run is rebuilt from our own log, since
trackio neither removes rows of steps that were lost nor refuses doubled ones.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Tracker:
    """Logs rows to a local trackio project, or does nothing where that is not possible.

    Args:
        project: shown in the dashboard.
        name: the run's name inside the project.
        config: the resolved configuration.
        folder: where trackio keeps its database; the first folder of a process stays, since
            trackio reads it once, at import.
        rows: rows already in our log, to be shown again after a resume.
        enabled: False turns the sink off.
    """

    def __init__(
        self,
        project: str,
        name: str,
        config: Mapping[str, Any],
        *,
        folder: Path,
        rows: Iterable[Mapping[str, Any]] = (),
        enabled: bool = True,
    ) -> None:
        self._run: Any = None
        if not enabled or importlib.util.find_spec("trackio") is None:
            return
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
        self._guard(self._start, project, name, dict(config))
        for row in rows:
            self.log(row)

    def _start(self, project: str, name: str, config: dict[str, Any]) -> None:
        import trackio

        trackio.SQLiteStorage.delete_run(project, name)
        self._run = trackio.init(project, name=name, config=config, embed=False, auto_log_gpu=False)

    def _finish(self) -> None:
        import trackio

        if trackio.context_vars.current_run.get() is self._run:
            trackio.finish()  # not the run's own: this one also tells trackio's exit handler
        else:
            self._run.finish()  # one of several at once, not the last that began

    def log(self, row: Mapping[str, Any]) -> None:
        """Send one row; its ``split`` becomes a prefix and its ``step`` the horizontal axis."""
        if self._run is None:
            return
        prefix = f"{row['split']}/" if "split" in row else ""
        numbers = {
            prefix + key: value
            for key, value in row.items()
            if key != "step" and isinstance(value, int | float)
        }
        self._guard(self._run.log, numbers, step=row.get("step"))

    def finish(self) -> None:
        """Flush and close."""
        if self._run is not None:
            self._guard(self._finish)
            self._run = None

    def _guard(self, call: Any, *arguments: Any, **options: Any) -> None:
        """Call, without trackio's banners (one of them holds a token) and without its errors."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                call(*arguments, **options)
        except Exception as error:
            logger.warning("live tracking stopped (%s); the run goes on", error)
            self._run = None
