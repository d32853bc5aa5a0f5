"""trackio as a sink of ``trainrig.tracking.tracker``, and as a dashboard of any runs.

The only module that imports trackio. Its banners are not shown: one of them holds a token with
which anybody on the machine could change the shown runs.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TrackioSink:
    """One run of a local trackio project.

    Args:
        project: its name.
        name: the run's; an earlier run of this name is removed, since trackio neither removes rows
            of steps that were lost nor refuses doubled ones.
        config: the resolved configuration.
        folder: of the database; the first folder of a process stays, since trackio reads it once,
            at import.
    """

    def __init__(self, project: str, name: str, config: dict[str, Any], folder: Path) -> None:
        trackio = _trackio(folder)
        with _silence():
            trackio.SQLiteStorage.delete_run(project, name)
            self._run = trackio.init(
                project, name=name, config=config, embed=False, auto_log_gpu=False
            )

    def log(self, scalars: Mapping[str, float], step: int | None) -> None:
        """Show one row."""
        with _silence():
            self._run.log(dict(scalars), step=step)

    def finish(self) -> None:
        """Flush and close."""
        import trackio

        with _silence():
            if trackio.context_vars.current_run.get() is self._run:
                trackio.finish()  # not the run's own: this one also tells trackio's exit handler
            else:
                self._run.finish()  # one of several at once, not the last that began


class TrackioBoard:
    """A dashboard of runs that are read from their own logs.

    Args:
        project: under which they are shown.
        folder: of the database, a scratch one.
    """

    def __init__(self, project: str, folder: Path) -> None:
        self.project, self._trackio = project, _trackio(folder)

    def show(
        self, run: Any, rows: Sequence[tuple[dict[str, float], int]], *, replace: bool
    ) -> None:
        """Add rows, each with its step, to a run; ``replace`` removes what was shown of it."""
        storage = self._trackio.SQLiteStorage
        metrics, steps = [row for row, _ in rows], [step for _, step in rows]
        with _silence():
            if replace:
                storage.delete_run(self.project, run.name)
            storage.bulk_log(self.project, run.name, metrics, steps=steps, config=dict(run.config))

    def serve(self, port: int | None) -> str:
        """Serve from this process; return the address, without the token that allows changes."""
        with _silence():
            _, address, *_ = self._trackio.show(
                self.project, open_browser=False, block_thread=False, server_port=port
            )
        return f"{address.rstrip('/')}/?project={self.project}"


def _trackio(folder: Path) -> Any:
    os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
    import trackio

    return trackio


@contextlib.contextmanager
def _silence() -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        yield
