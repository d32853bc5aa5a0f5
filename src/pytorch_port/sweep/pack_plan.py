"""Which ICL runs can be trained as one program, and what memory one of them takes.

Runs may be packed when they differ in weight decay, ``l2_mode``, learning rate, seed (and with it
the order of the data) and number of classes alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import IclInputs, load_inputs
from pytorch_port.sweep.grid import SweepRun
from pytorch_port.train.experiment import build
from pytorch_port.train.steps import make_loss
from trainrig.config import to_dict
from trainrig.device import choose_device
from trainrig.optim import resolve_optimizer
from trainrig.packs import PlannedRun, bytes_per_run, fitting
from trainrig.vectorized import ELEMENTWISE

FREE = (
    "seed",
    "optimizer.weight_decay",
    "optimizer.l2_mode",
    "optimizer.max_lr",
    "data.generator_config.n_rare_classes",
    "data.symbolic_config.dataset_size",
)
"""Keys in which the runs of a pack may differ."""


def planned(runs: Sequence[SweepRun], base_dir: Path) -> list[PlannedRun]:
    """Return the runs of a grid as ``trainrig.packs`` plans and carries them out."""
    return [
        PlannedRun(
            name=run.name,
            length=run.config.training_steps,
            key=pack_key(run.config),
            member=(run.config, base_dir / run.name),
        )
        for run in runs
    ]


def pack_key(config: IclConfig) -> str | None:
    """Return what runs of one pack have in common; None for a run that cannot be packed."""
    optimizer = resolve_optimizer(config.optimizer.name)
    if config.seq_model != "transformer" or optimizer not in ELEMENTWISE:
        return None
    tree: dict[str, Any] = to_dict(config)
    # With these, a class is not simply one more row of the head and the label table.
    fixed = config.embedding.concatenate_labels or config.polysemy > 1
    for dotted in FREE[:4] if fixed else FREE:
        *sections, key = dotted.split(".")
        branch = tree
        for section in sections:
            branch = branch[section]
        del branch[key]
    return json.dumps(tree, sort_keys=True)


def choose_size(
    runs: Sequence[SweepRun], runtime: Runtime, jobs: int
) -> tuple[int, dict[str, int]]:
    """Return how many of the largest runs fit into the memory, see ``trainrig.packs.fitting``."""
    largest = max(runs, key=lambda run: run.config.num_classes).config
    device = choose_device(runtime.device)
    inputs = load_inputs(largest, device, data_dir=runtime.data_dir, download=runtime.download)
    needed = bytes_of(largest, inputs)
    return fitting(needed, inputs.device, runs=len(runs), jobs=jobs)


def bytes_of(config: IclConfig, inputs: IclInputs) -> int:
    """Return what one run adds to a pack, see ``trainrig.packs.bytes_per_run``."""
    model, _ = build(config, inputs)
    batch, loss = next(iter(inputs.training_batches(0))), make_loss(config, inputs.device)
    return bytes_per_run(model, lambda: loss(model.train(), batch)[0], batch.examples.nbytes)
