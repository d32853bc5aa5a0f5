"""How a run is carried out: device, threads, folders, what is shown; no part of its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytorch_port.config.schema import IclConfig
from trainrig.tracking.tracker import check_tracker


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What may differ between two processes that give the same numbers.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; its type is part of a run's identity.
        threads: torch threads.
        data_dir: folder of data sets; default ``$TRAINRIG_DATA_DIR``, else ``./data``.
        download: fetch Omniglot where it is absent.
        num_workers: processes that draw sequences with the exact sampler.
        overwrite: start over in a directory that holds a run.
        force_engine_change: continue alone a run that was begun in a pack, or the reverse.
        tracker: where rows are shown live, see ``trainrig.tracking.tracker``.
        project: of the tracker.
        show_progress: draw a progress bar.
        position: line of the progress bar.
        streams: runs that take turns in this process, at most.
    """

    device: str = "auto"
    threads: int | None = None
    data_dir: str | None = None
    download: bool = False
    num_workers: int = 0
    overwrite: bool = False
    force_engine_change: bool = False
    tracker: str = "trackio"
    project: str = "icl"
    show_progress: bool = True
    position: int = 0
    streams: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_workers < 0:
            raise ValueError(f"--num-workers {self.num_workers}: must be 0 or more")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads {self.threads}: must be at least 1")
        check_tracker(self.tracker)


def progress_bar(config: IclConfig, runtime: Runtime, name: str, start_step: int) -> Any:
    """Return a bar over the steps of a run, or of several that go in step."""
    from tqdm import tqdm

    return tqdm(
        total=config.training_steps,
        initial=start_step,
        desc=name,
        unit="step",
        position=runtime.position,
        disable=not runtime.show_progress,
        leave=runtime.position == 0,
        mininterval=0.5,
        dynamic_ncols=True,
    )
