"""Lightning's logger interface over the core's live tracking sink."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from trainrig.tracking.trackio_sink import Tracker


class TrackioLogger(Logger):
    """Sends metrics to a local trackio project; it can never stop a run."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.run_dir = run_dir
        self._tracker: Tracker | None = None
        self._config: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The project."""
        return "ptychography"

    @property
    def version(self) -> str:
        """The run."""
        return self.run_dir.name

    @property
    @rank_zero_experiment
    def experiment(self) -> Tracker:
        """The sink, opened on first use."""
        if self._tracker is None:
            folder = self.run_dir / "trackio"
            self._tracker = Tracker(self.name, self.version, self._config, folder=folder)
        return self._tracker

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Keep the configuration for the run's opening."""
        self._config = dict(params) if isinstance(params, dict) else vars(params)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send one row."""
        self.experiment.log({"step": step, **metrics})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush and close."""
        if self._tracker is not None:
            self._tracker.finish()
