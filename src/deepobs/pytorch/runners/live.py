"""Where a run's rows are shown while they come: trackers, a progress bar, stdout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepobs.pytorch.runners.settings import RunSettings
from trainrig.tracking.tracker import Tracker, check_tracker


class Live:
    """Passes rows on to whatever was asked for; a context that closes it in the end.

    Args:
        settings: of the run.
        trackers: what shows the rows, each with its folder.
        progress: show a bar of epochs.
        print_train_iter: print the logged losses.

    Raises:
        ValueError, ImportError: an unknown tracker, or one that is not installed.
    """

    def __init__(
        self,
        settings: RunSettings,
        trackers: Sequence[tuple[str, Path]],
        *,
        progress: bool = False,
        print_train_iter: bool = False,
    ) -> None:
        for kind, _ in trackers:
            check_tracker(kind)
        self.settings, self.places, self.print_train_iter = settings, trackers, print_train_iter
        self.trackers: list[Tracker] = []
        self.bar: Any = None
        if progress:
            from tqdm import tqdm

            self.bar = tqdm(total=settings.num_epochs, unit="epoch")

    def begin(self, path: Path, rows: Iterable[Mapping[str, Any]]) -> Live:
        """Open the trackers, and show them the rows of a run that is resumed."""
        del path
        run, rows = self.settings, [_by_epoch(row) for row in rows]
        name = f"{run.optimizer_name}/{run.run_name}/{run.random_seed}"
        for kind, folder in self.places:
            own = f"random_seed__{run.random_seed}" if kind == "tensorboard" else name
            tracker = Tracker(
                run.testproblem, own, run.to_dict(), folder=folder, rows=rows, kind=kind
            )
            self.trackers.append(tracker)
        return self

    def log(self, row: Mapping[str, Any], /) -> None:
        """Show one row."""
        for tracker in self.trackers:
            tracker.log(_by_epoch(row))
        if row["split"] == "minibatch":
            if self.print_train_iter:
                print(f"Step {row['step']}: loss {row['loss']:g}")  # noqa: T201 - asked for
        elif self.bar is not None and row["split"] == "test":
            self.bar.n = row["epoch"]
            self.bar.set_postfix(loss=f"{row['loss']:.4g}")

    def finish(self) -> None:
        """Close the trackers."""
        while self.trackers:
            self.trackers.pop().finish()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()
        if self.bar is not None:
            self.bar.close()


def _by_epoch(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as it is shown: evaluations over epochs, minibatches over steps."""
    shown = {key: value for key, value in row.items() if key != "epoch"}
    return shown if row["split"] == "minibatch" else {**shown, "step": row["epoch"]}
