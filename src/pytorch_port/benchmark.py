"""How much of a bare training loop's speed a real run keeps.

The baseline is hand-written: the same model, optimizer and schedule over batches made beforehand,
with no logging, sampling, bookkeeping or checkpoints. Both run in one process, in turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pytorch_port.assembly import build_icl_model, make_icl_optimizer
from pytorch_port.config import IclConfig
from pytorch_port.inputs import IclInputs, load_inputs
from pytorch_port.losses import icl_loss
from pytorch_port.train import Runtime, run
from trainrig.device import choose_device, set_threads
from trainrig.optim.schedules import warmup_rsqrt
from trainrig.seeding import make_deterministic, set_seed
from trainrig.tracking.progress import read_progress


@dataclass(frozen=True, slots=True)
class Overhead:
    """Steps per second of the bare loop and of a real run, one pair per repeat."""

    bare: list[float]
    real: list[float]

    @property
    def ratio(self) -> float:
        """Median over repeats of real / bare."""
        return statistics.median(r / b for r, b in zip(self.real, self.bare, strict=True))


def measure_overhead(
    config: IclConfig, *, device: str = "auto", threads: int = 1, repeats: int = 5
) -> Overhead:
    """Time ``config.training_steps`` steps of each loop, ``repeats`` times in turn."""
    make_deterministic()
    set_threads(threads)
    inputs = load_inputs(config, choose_device(device))
    _bare_loop(config, inputs)  # warm-up, not counted
    bare, real = [], []
    for _ in range(repeats):
        bare.append(_bare_loop(config, inputs))
        real.append(_real_run(config, device, threads))
    return Overhead(bare, real)


def _bare_loop(config: IclConfig, inputs: IclInputs) -> float:
    set_seed(config.seed)
    model = build_icl_model(config, inputs.example_shape).to(inputs.device)
    optimizer = make_icl_optimizer(config, model)
    schedule = warmup_rsqrt(config.optimizer.max_lr, config.optimizer.warmup_steps)
    batches = list(islice(inputs.training_batches(0), 32))
    model.train()
    started = time.perf_counter()
    for step in range(config.training_steps):
        optimizer.param_groups[0]["lr"] = schedule(step)
        optimizer.zero_grad(set_to_none=True)
        batch = batches[step % len(batches)]
        logits = model(batch.examples, batch.labels, query_only=config.training.query_only_head)
        icl_loss(logits, batch.labels).backward()
        optimizer.step()
    if inputs.device.type == "cuda":
        import torch

        torch.cuda.synchronize()
    return config.training_steps / (time.perf_counter() - started)


def _real_run(config: IclConfig, device: str, threads: int) -> float:
    """Return the rate that the run itself logged with its last training row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        run(config, path, Runtime(device=device, threads=threads, track=False, show_progress=False))
        return _last_training_rate(read_progress(path / "logs/progress.txt"))


def _last_training_rate(rows: list[dict[str, object]]) -> float:
    rates: Iterator[object] = (
        row["steps_per_second"] for row in reversed(rows) if row["split"] == "train"
    )
    return float(str(next(rates)))
