"""Lightning's logger interface over the core's live tracking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from trainrig.tracking.tracker import Tracker, check_tracker


class LiveLogger(Logger):
    """Shows metrics live; it can never stop a run.

    Args:
        kind: ``trackio`` or ``tensorboard``.
        run_dir: the training's folder.

    Raises:
        ImportError: TensorBoard is asked for and not installed.
    """

    def __init__(self, kind: str, run_dir: Path) -> None:
        super().__init__()
        check_tracker(kind)
        self.kind, self.run_dir = kind, run_dir
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
        """The tracker, opened on first use."""
        if self._tracker is None:
            self._tracker = Tracker(
                self.name, self.version, self._config, folder=self.run_dir, kind=self.kind
            )
        return self._tracker

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Keep the configuration for the run's opening."""
        self._config = dict(params) if isinstance(params, dict) else vars(params)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Show one row; ``train_loss`` is the loss of split ``train``."""
        for key, value in metrics.items():
            split, _, name = key.rpartition("_")
            row = {"split": split, name: value} if split in ("train", "val") else {key: value}
            self.experiment.log({"step": step, **row})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush and close."""
        if self._tracker is not None:
            self._tracker.finish()
