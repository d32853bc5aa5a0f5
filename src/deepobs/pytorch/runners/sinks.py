"""Where a run's rows go besides its result file: TensorBoard, trackio, a progress bar, stdout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deepobs.pytorch.runners.settings import RunSettings
from trainrig.tracking.tracker import Tracker


class Sinks:
    """Passes rows on to whatever was asked for."""

    def __init__(self) -> None:
        self.trackers: list[Tracker] = []
        self.bar: Any = None
        self.print_train_iter = False

    def on_row(self, row: dict[str, Any]) -> None:
        """Take ``{"step", "split", "loss", ...}``; a ``minibatch`` row counts steps, not epochs."""
        for tracker in self.trackers:
            tracker.log(row)
        if row["split"] == "minibatch":
            if self.print_train_iter:
                print(f"Step {row['step']}: loss {row['loss']:g}")  # noqa: T201 - asked for
        elif self.bar is not None and row["split"] == "test":
            self.bar.n = row["step"]
            self.bar.set_postfix(loss=f"{row['loss']:.4g}")


@contextlib.contextmanager
def open_sinks(
    settings: RunSettings,
    *,
    trackers: Sequence[tuple[str, Path]],
    progress: bool,
    print_train_iter: bool,
) -> Iterator[Sinks]:
    """Open what was asked for and close it in the end.

    Args:
        settings: of the run.
        trackers: what shows the rows live, each with its folder.
        progress: show a bar.
        print_train_iter: print the loss of logged steps.

    Raises:
        ImportError: TensorBoard or tqdm asked for and not installed.
    """
    sinks = Sinks()
    sinks.print_train_iter = print_train_iter
    with contextlib.ExitStack() as stack:
        name = f"{settings.optimizer_name}/{settings.run_name}/{settings.random_seed}"
        names = {"trackio": name, "tensorboard": f"random_seed__{settings.random_seed}"}
        for kind, place in trackers:
            opened = Tracker(
                settings.testproblem,
                names.get(kind, name),
                settings.to_dict(),
                folder=place,
                kind=kind,
            )
            sinks.trackers.append(opened)
            stack.callback(opened.finish)
        if progress:
            from tqdm import tqdm

            sinks.bar = stack.enter_context(tqdm(total=settings.num_epochs, unit="epoch"))
        yield sinks
