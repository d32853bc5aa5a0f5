"""What a checkpoint costs, as a share of the training between two of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainrig.checkpoint import save_checkpoint
from trainrig.files import scratch_folder
from trainrig.seeding import capture_rng

REPEATS = 7


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians of a step and of a durable checkpoint, which is written every ``steps`` steps.

    Attributes:
        step_s: CPU time of a training step / s.
        save_s: wall time of a checkpoint / s.
        size_bytes: of a checkpoint.
        steps: between two checkpoints.
    """

    step_s: float
    save_s: float
    size_bytes: int
    steps: float

    @property
    def share(self) -> float:
        """Time of a checkpoint over the time of the steps between two; on a busy disk too much."""
        return self.save_s / (self.steps * self.step_s)

    def __str__(self) -> str:
        return (
            f"step {1e3 * self.step_s:8.2f} ms  every {self.steps:>6.0f} steps  checkpoint "
            f"{1e3 * self.save_s:6.1f} ms, {self.size_bytes / 2**20:6.2f} MB  "
            f"cost {100 * self.share:.3f} %"
        )


def checkpoint_cost(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
    interval: Callable[[float], float],
    *,
    folder: Path | str = ".",
) -> Cost:
    """Measure a training step, and a checkpoint on the file system of ``folder``.

    Args:
        model: what is trained and saved.
        optimizer: of its parameters.
        loss: of a fixed batch.
        interval: seconds of a step → steps between two checkpoints.
        folder: holds the checkpoints while they are measured.
    """

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    step_s = _median_s(step, time.process_time)
    with scratch_folder(folder, "cost") as place:

        def save() -> None:
            state = {"optimizer": optimizer.state_dict(), "rng": capture_rng()}
            save_checkpoint(place, 1, model.state_dict(), state)

        save_s = _median_s(save, time.perf_counter)
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    return Cost(step_s, save_s, size, interval(step_s))


def _median_s(work: Callable[[], None], clock: Callable[[], float]) -> float:
    """Return the median seconds of a call by ``clock``, after one that is not counted."""
    work()
    times = []
    for _ in range(REPEATS):
        started = clock()
        work()
        times.append(clock() - started)
    return statistics.median(times)
