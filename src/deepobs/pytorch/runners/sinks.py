"""Where a run's rows go besides its result file: TensorBoard, trackio, a progress bar, stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepobs.pytorch.runners.settings import RunSettings
from trainrig.tracking.trackio_sink import Tracker


class Sinks:
    """Passes rows on to whatever was asked for."""

    def __init__(self) -> None:
        self.writer: Any = None
        self.tracker: Tracker | None = None
        self.bar: Any = None
        self.print_train_iter = False

    def on_row(self, row: dict[str, Any]) -> None:
        """Take ``{"step", "split", "loss", ...}``; a ``minibatch`` row counts steps, not epochs."""
        if self.writer is not None:
            for key in row.keys() - {"step", "split"}:
                self.writer.add_scalar(f"{row['split']}/{key}", row[key], row["step"])
        if self.tracker is not None:
            self.tracker.log(row)
        if row["split"] == "minibatch":
            if self.print_train_iter:
                sys.stdout.write(f"Step {row['step']}: loss {row['loss']:g}\n")
        elif self.bar is not None and row["split"] == "test":
            self.bar.n = row["step"]
            self.bar.set_postfix(loss=f"{row['loss']:.4g}")


@contextlib.contextmanager
def open_sinks(
    folder: Path,
    settings: RunSettings,
    *,
    tensorboard: bool,
    track: bool,
    progress: bool,
    print_train_iter: bool,
) -> Iterator[Sinks]:
    """Open what was asked for and close it in the end.

    Raises:
        ImportError: TensorBoard or tqdm asked for and not installed.
    """
    sinks = Sinks()
    sinks.print_train_iter = print_train_iter
    with contextlib.ExitStack() as stack:
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ImportError(
                    "tb_log: TensorBoard is missing; pip install tensorboard"
                ) from None
            sinks.writer = SummaryWriter(str(folder))
            stack.callback(sinks.writer.close)
        if track:
            name = f"{settings.optimizer_name}/{settings.run_name}/{settings.random_seed}"
            sinks.tracker = Tracker(settings.testproblem, name, settings.to_dict(), folder=folder)
            stack.callback(sinks.tracker.finish)
        if progress:
            from tqdm import tqdm

            sinks.bar = stack.enter_context(tqdm(total=settings.num_epochs, unit="epoch"))
        yield sinks
