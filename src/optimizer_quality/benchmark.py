"""Speed as ratios inside one process: the data path against torchvision's, a step by mode.

Times are CPU seconds of one thread, so that a busy machine matters less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from optimizer_quality.data import TorchvisionBatches
from optimizer_quality.models import build_model
from trainrig.data.device_loader import Augmentation, ImageBatches, Layout
from trainrig.data.shapes import draw_shapes
from trainrig.optim import make_optimizer

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
#: Name → (channels_last, precision); the first is what the others are compared with.
MODES = {
    "fp32 NCHW": (False, "fp32"),
    "fp32 channels_last": (True, "fp32"),
    "bf16 channels_last": (True, "bf16"),
}
STEPS_PER_EPOCH = 352  # 45,000 images in batches of 128


@dataclass(frozen=True, slots=True)
class DataPath:
    """CPU milliseconds per batch of the two paths, the minimum over repeats."""

    resident_ms: float
    torchvision_ms: float

    @property
    def ratio(self) -> float:
        """Batches per second of the resident path over torchvision's."""
        return self.torchvision_ms / self.resident_ms


def measure_data_path(*, batch_size: int = 128, batches: int = 10, repeats: int = 5) -> DataPath:
    """Time crop, flip and normalisation of both pipelines, without worker processes.

    Args:
        batch_size: images per batch.
        batches: per repeat.
        repeats: of each pipeline.
    """
    images, labels = draw_shapes(batch_size * batches, seed=0)
    layout = Layout(batch_size=batch_size, mean=MEAN, std=STD)
    paths = [
        kind(images, labels, torch.arange(len(labels)), layout, Augmentation(seed=0))
        for kind in (ImageBatches, TorchvisionBatches)
    ]
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for i, path in enumerate(paths):
            best[i] = min(best[i], _cpu_seconds(lambda path=path: list(path)) / batches)
    return DataPath(*(1000 * seconds for seconds in best))


def measure_steps(
    *, model: str = "resnet8", batch_size: int = 128, repeats: int = 4, modes: tuple[str, ...] = ()
) -> dict[str, float]:
    """Return CPU seconds of one SGD step by mode, the minimum over repeats, modes interleaved.

    Args:
        model: a registered name.
        batch_size: images per step.
        repeats: steps of each mode, after one that is not counted.
        modes: names in ``MODES``; default all.
    """
    steps = {name: _stepper(model, batch_size, *MODES[name]) for name in modes or MODES}
    for step in steps.values():
        next(step)
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(repeats):
        for name, step in steps.items():
            best[name] = min(best[name], _cpu_seconds(lambda step=step: next(step)))
    return best


def _stepper(name: str, batch_size: int, channels_last: bool, precision: str) -> Iterator[None]:
    """Yield after each training step on fixed random images."""
    model = build_model(
        name, 10, in_channels=3, precision=precision, channels_last=channels_last
    ).train()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(batch_size, 3, 32, 32).contiguous(memory_format=layout)
    labels = torch.arange(batch_size) % 10
    optimizer = make_optimizer("sgd", model.parameters(), lr=0.01, momentum=0.9)
    while True:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        yield


def _cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def report(steps: dict[str, float], data: DataPath) -> str:
    """Return all figures as text, the ratios and the projection to 200 epochs included."""
    lines = [
        f"data path, one core: resident {data.resident_ms:.2f} ms/batch, torchvision "
        f"{data.torchvision_ms:.2f} ms/batch, ratio {data.ratio:.1f}"
    ]
    first = next(iter(steps.values()))
    for name, seconds in steps.items():
        hours = 200 * STEPS_PER_EPOCH * (seconds + data.resident_ms / 1000) / 3600
        lines.append(
            f"step {name}: {seconds:.3f} CPU s, ratio to {next(iter(steps))} "
            f"{first / seconds:.2f}, 200 epochs {hours:.1f} core-hours"
        )
    return "\n".join(lines)
