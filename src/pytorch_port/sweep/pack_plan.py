"""Which ICL runs can be trained as one program, and what memory one of them takes.

Runs may be packed when they differ in weight decay, ``l2_mode``, learning rate, seed (and with it
the order of the data) and number of classes alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import IclInputs, load_inputs
from pytorch_port.sweep.grid import SweepRun
from pytorch_port.train.experiment import build
from pytorch_port.train.steps import make_loss
from trainrig.config import to_dict
from trainrig.device import choose_device
from trainrig.optim import resolve_optimizer
from trainrig.packs import PlannedRun, fitting
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
    needed = bytes_per_run(largest, inputs)
    return fitting(needed, inputs.device, runs=len(runs), jobs=jobs)


def bytes_per_run(config: IclConfig, inputs: IclInputs) -> int:
    """Return what one run adds to a pack: what backward needs, parameters and their companions.

    Measured on one forward pass, by the tensors that autograd keeps; half as much again is taken
    for what lives during the backward pass alone.
    """
    model, _ = build(config, inputs)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = next(iter(inputs.training_batches(0)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = make_loss(config, inputs.device)(model.train(), batch)
    del loss
    copies = 5  # parameters, gradients, a copy of these, two averages
    weights = sum(p.nbytes for p in model.parameters())
    return math.ceil(1.5 * (sum(kept.values()) + batch.examples.nbytes)) + copies * weights
