"""Measure a checkpoint's cost in each system, as a share of the time between two of them.

Example:
    python scripts/measure_checkpoints.py

Printed are the median CPU time of a training step, the median wall time of a durable checkpoint on
the file system of the current folder, and their ratio at the default interval: on a busy machine,
an upper bound.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from trainrig.cli import Parser, entry

REPEATS = 7


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return Parser(description=__doc__).parse_args(argv)


def median_s(work: object, clock: object) -> float:
    """Return the median seconds of a call by ``clock``, after one that is not counted."""
    work()
    times = []
    for _ in range(REPEATS):
        started = clock()
        work()
        times.append(clock() - started)
    return statistics.median(times)


def measure(name: str, step: object, save: object, interval: object) -> None:
    """Time a step and a checkpoint into a folder; ``interval(step_s)`` is in steps."""
    step_s = median_s(step, time.process_time)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        save_s = median_s(lambda: save(Path(folder)), time.perf_counter)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    steps = interval(step_s)
    share = 100 * save_s / steps / step_s
    print(
        f"{name:<34} step {1e3 * step_s:8.2f} ms  every {steps:>6.0f} steps  checkpoint "
        f"{1e3 * save_s:6.1f} ms, {size / 2**20:6.2f} MB  cost {share:.3f} %",
        flush=True,
    )


def trained(net: object, optimizer: object, loss: object) -> tuple[object, object]:
    """Return a training step, and our checkpoint of it."""
    from trainrig.checkpoint import save_checkpoint
    from trainrig.seeding import capture_rng

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    def save(folder: Path) -> None:
        state = {"optimizer": optimizer.state_dict(), "rng": capture_rng()}
        save_checkpoint(folder, 1, net.state_dict(), state)

    return step, save


@entry
def main(argv: list[str] | None = None) -> int:
    """Print one line per system."""
    parse_args(argv)
    import torch
    from torch.nn.functional import cross_entropy

    from deepobs.pytorch import testproblems
    from deepobs.pytorch.config import set_data_dir
    from deepobs.pytorch.runners.smoke import write_generated_data
    from optimizer_quality.config import CifarConfig
    from optimizer_quality.session import make_model
    from optimizer_quality.utils import get_optimizer
    from ptycho_torch.canonical_config import ModelConfig, TrainingConfig
    from ptycho_torch.execution import ExecutionConfig
    from ptycho_torch.workflows import build_model
    from pytorch_port.config_files import load_icl_config
    from pytorch_port.experiment import build
    from pytorch_port.grid import PRESETS
    from pytorch_port.inputs import load_inputs
    from pytorch_port.losses import icl_loss
    from trainrig.config import apply_overrides

    torch.set_num_threads(1)
    preset = PRESETS["quick"]
    config = apply_overrides(load_icl_config(preset["config_path"]), preset["overrides"])
    net, optimizer = build(config, inputs := load_inputs(config, torch.device("cpu")))
    batch = next(iter(inputs.training_batches(0)))
    loss = lambda: icl_loss(net(batch.examples, batch.labels), batch.labels, 0.0)  # noqa: E731
    interval = config.training.save_interval
    measure("ICL, --preset quick", *trained(net, optimizer, loss), lambda _: interval)
    config = CifarConfig()
    model = make_model(config, 3)
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))
    optimizer = get_optimizer(model, config.optimizer)
    loss = lambda: cross_entropy(model(images), labels)  # noqa: E731
    measure("optimizer quality, base", *trained(model, optimizer, loss), lambda _: 352)
    with tempfile.TemporaryDirectory() as data:
        write_generated_data(Path(data), examples=160)
        set_data_dir(data)
        problem = testproblems.mnist_2c2d(128)
        problem.set_up()
    problem.train_init_op()
    rows = problem.next_batch()
    optimizer = torch.optim.Adam(problem.net.parameters())
    step_save = trained(problem.net, optimizer, lambda: problem.objective(rows))
    measure("DeepOBS, mnist_2c2d, Adam", *step_save, lambda step_s: 60 / step_s)
    ptycho = build_model(TrainingConfig(model=ModelConfig(N=64)), ExecutionConfig())
    optimizer = torch.optim.Adam(ptycho.net.parameters())
    frames, relative = 3 * torch.rand(16, 1, 64, 64), torch.zeros(16, 1, 2)
    loss = lambda: (ptycho.net(frames, relative) - frames).abs().mean()  # noqa: E731
    # Lightning writes the best and the last checkpoint after an epoch: 512 groups in batches of 16
    measure("ptychography, N = 64", *trained(ptycho.net, optimizer, loss), lambda _: 32 / 2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
