"""TensorBoard events as a sink of ``trainrig.tracking.tracker``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TensorBoardSink:
    """One run's event file; events that an earlier process left in the folder are removed.

    Args:
        folder: of the events; ``tensorboard --logdir`` takes it or any folder above.
        config: the resolved configuration, shown as text.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for file in folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = SummaryWriter(str(folder))
        text = json.dumps(config, indent=1, default=str)
        self._writer.add_text("config", "    " + text.replace("\n", "\n    "))

    def log(self, scalars: Mapping[str, float], step: int | None) -> None:
        """Show one row."""
        for key, value in scalars.items():
            self._writer.add_scalar(key, value, step)

    def flush(self) -> None:
        """Let readers see every row."""
        self._writer.flush()

    def finish(self) -> None:
        """Flush and close."""
        self._writer.close()


class TensorBoardBoard:
    """TensorBoard over runs that are read from their own logs.

    Args:
        folder: of the event files, a scratch one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sinks: dict[str, TensorBoardSink] = {}

    def show(
        self, run: Any, rows: Sequence[tuple[dict[str, float], int]], *, replace: bool
    ) -> None:
        """Add rows, each with its step, to a run; ``replace`` removes what was shown of it."""
        if replace and run.name in self._sinks:
            self._sinks.pop(run.name).finish()
        if run.name not in self._sinks:
            self._sinks[run.name] = TensorBoardSink(self.folder / run.name, run.config)
        for scalars, step in rows:
            self._sinks[run.name].log(scalars, step)
        self._sinks[run.name].flush()

    def serve(self, port: int | None) -> str:
        """Serve from this process; return the address."""
        from tensorboard import program

        board = program.TensorBoard()
        wanted = [] if port is None else ["--port", str(port)]
        board.configure(argv=[None, "--logdir", str(self.folder), *wanted])
        return board.launch()
