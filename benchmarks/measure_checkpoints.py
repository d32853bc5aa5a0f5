"""Measure a checkpoint's cost in each system, as a share of the time between two of them.

Example:
    python benchmarks/measure_checkpoints.py

Printed are the median CPU time of a training step, the median wall time of a durable checkpoint on
the file system of the current folder, and their ratio at the default interval: on a busy machine,
an upper bound.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from trainrig.cli import Parser, entry
from trainrig.files import scratch_folder

if TYPE_CHECKING:
    from checkpoint_cost import Cost


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return Parser(description=__doc__).parse_args(argv)


def icl() -> Cost:
    """``--preset quick`` and its interval."""
    import torch

    from checkpoint_cost import checkpoint_cost
    from pytorch_port.config.files import load_icl_config
    from pytorch_port.data.inputs import load_inputs
    from pytorch_port.sweep.grid import PRESETS
    from pytorch_port.train.experiment import build
    from pytorch_port.train.steps import make_loss
    from trainrig.config import apply_overrides

    preset = PRESETS["quick"]
    config = apply_overrides(load_icl_config(preset["config_path"]), preset["overrides"])
    inputs = load_inputs(config, torch.device("cpu"))
    net, optimizer = build(config, inputs)
    batch, loss = next(iter(inputs.training_batches(0))), make_loss(config, inputs.device)
    interval = config.training.save_interval
    return checkpoint_cost(net, optimizer, lambda: loss(net, batch)[0], lambda _: interval)


def optimizer_quality() -> Cost:
    """The base configuration, once per epoch of 352 steps."""
    import torch
    from torch.nn.functional import cross_entropy

    from checkpoint_cost import checkpoint_cost
    from optimizer_quality.config import CifarConfig
    from optimizer_quality.experiment import make_model
    from optimizer_quality.utils import get_optimizer

    config = CifarConfig()
    model = make_model(config, 3)
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))
    optimizer = get_optimizer(model, config.optimizer)
    return checkpoint_cost(
        model, optimizer, lambda: cross_entropy(model(images), labels), lambda _: 352
    )


def deepobs() -> Cost:
    """A network of 3.2 million values under Adam, once a minute."""
    import torch

    from checkpoint_cost import checkpoint_cost
    from deepobs.pytorch import testproblems
    from deepobs.pytorch.config import set_data_dir
    from deepobs.pytorch.runners.smoke import write_generated_data

    with scratch_folder() as data:
        write_generated_data(data, examples=160)
        set_data_dir(data)
        problem = testproblems.mnist_2c2d(128)
        problem.set_up()
    problem.train_init_op()
    batch, optimizer = problem.next_batch(), torch.optim.Adam(problem.net.parameters())
    return checkpoint_cost(
        problem.net, optimizer, lambda: problem.objective(batch), lambda step_s: 60 / step_s
    )


def ptychography() -> Cost:
    """N = 64; one checkpoint after an epoch of 512 groups in batches of 16."""
    import torch

    from checkpoint_cost import checkpoint_cost
    from ptycho_torch.config.canonical import ModelConfig, TrainingConfig
    from ptycho_torch.config.execution import ExecutionConfig
    from ptycho_torch.train.workflows import build_model

    net = build_model(TrainingConfig(model=ModelConfig(N=64)), ExecutionConfig()).net
    frames, relative = 3 * torch.rand(16, 1, 64, 64), torch.zeros(16, 1, 2)
    optimizer = torch.optim.Adam(net.parameters())
    return checkpoint_cost(
        net, optimizer, lambda: (net(frames, relative) - frames).abs().mean(), lambda _: 32
    )


@entry
def main(argv: list[str] | None = None) -> int:
    """Print one line per system."""
    parse_args(argv)
    import torch

    torch.set_num_threads(1)
    for system in (icl, optimizer_quality, deepobs, ptychography):
        print(f"{system.__name__:<18} {system()}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
