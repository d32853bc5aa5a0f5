"""Which runs of a sweep are trained as one program, and how many at a time.

Runs may be packed when they differ in weight decay, ``l2_mode``, learning rate, seed (and with it
the order of the data) and number of classes alone. The plan is made once, when a sweep starts, and
kept in ``<sweep>/manifest.json``: a resumed pack must consist of the same runs to give the same
bits.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from pytorch_port.config.runtime import Runtime
from pytorch_port.config.schema import IclConfig
from pytorch_port.data.inputs import IclInputs, load_inputs
from pytorch_port.sweep.grid import PackSize, SweepRun
from pytorch_port.train.experiment import build
from pytorch_port.train.steps import make_loss
from trainrig.checkpoint import list_checkpoints
from trainrig.config import to_dict
from trainrig.device import choose_device
from trainrig.files import read_json, write_json
from trainrig.optim import resolve_optimizer
from trainrig.run_status import has_ended
from trainrig.runs import LATEST
from trainrig.vectorized import ELEMENTWISE

MANIFEST = "manifest.json"
MEMORY_SHARE = 0.8
"""Share of the free memory that ``auto`` plans with."""
LARGEST_AUTO = 64
"""``auto`` packs no more runs than this."""
FREE = (
    "seed",
    "optimizer.weight_decay",
    "optimizer.l2_mode",
    "optimizer.max_lr",
    "data.generator_config.n_rare_classes",
    "data.symbolic_config.dataset_size",
)
"""Keys in which the runs of a pack may differ."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PackPlan:
    """The plan of a sweep.

    Attributes:
        size: most runs in a pack.
        packs: names of the runs of each pack.
        alone: names of the runs that are trained one by one: finished before, or like no other.
        memory: what ``auto`` chose ``size`` from: ``free_bytes``, ``bytes_per_run``, ``jobs``;
            empty for a size that was given.
    """

    size: int
    packs: tuple[tuple[str, ...], ...] = ()
    alone: tuple[str, ...] = ()
    memory: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """All runs that have a place."""
        return {*self.alone, *(name for pack in self.packs for name in pack)}

    def pack_of(self, name: str) -> tuple[str, ...]:
        """Return the pack of a run, empty for one that is trained alone."""
        return next((pack for pack in self.packs if name in pack), ())

    def with_runs(self, runs: Iterable[SweepRun], base_dir: Path | None) -> PackPlan:
        """Return the plan with places for further runs, in packs of their own.

        Runs that have begun in ``base_dir`` are packed with others that stand at the same step.
        """
        groups: dict[Any, list[str]] = {}
        alone = list(self.alone)
        for run in runs:
            key, step = pack_key(run.config), 0
            if base_dir is not None:
                found = list_checkpoints(base_dir / run.name / LATEST)
                step = found[-1][0] if found else 0
                key = None if has_ended(base_dir / run.name, run.config.training_steps) else key
            if key is None:
                alone.append(run.name)
            else:
                groups.setdefault((key, step), []).append(run.name)
        packs = [pack for names in groups.values() for pack in _parts(names, self.size)]
        alone += [pack[0] for pack in packs if len(pack) == 1]
        packs = [pack for pack in packs if len(pack) > 1]
        return dataclasses.replace(self, packs=(*self.packs, *packs), alone=tuple(alone))

    def halved(self, pack: Sequence[str]) -> PackPlan:
        """Return the plan with one pack split in two, and no new one larger than the halves."""
        half = -(-len(pack) // 2)
        packs = [
            part for p in self.packs for part in (_parts(p, half) if p == tuple(pack) else [p])
        ]
        return dataclasses.replace(self, packs=tuple(packs), size=half)


def _parts(names: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """Split into parts of at most ``size``, nearly equal.

    >>> _parts("abcde", 3)
    [('a', 'b'), ('c', 'd', 'e')]
    """
    count = math.ceil(len(names) / size)
    bounds = [round(i * len(names) / count) for i in range(count + 1)]
    return [tuple(names[a:b]) for a, b in itertools.pairwise(bounds)]


def read_plan(base_dir: Path) -> PackPlan | None:
    """Return the plan of a sweep, None where there is none.

    Raises:
        ValueError: a damaged file.
    """
    path = base_dir / MANIFEST
    try:
        tree = read_json(path)
        packs = tuple(tuple(map(str, names)) for names in tree["packs"])
        alone = tuple(map(str, tree["alone"]))
        size, memory = int(tree["size"]), dict(tree["memory"])
        return PackPlan(size=size, packs=packs, alone=alone, memory=memory)
    except FileNotFoundError:
        return None
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: holds no pack plan ({error}); restore it, or remove it and give "
            "--force-engine-change"
        ) from None


def write_plan(plan: PackPlan, base_dir: Path) -> None:
    """Write ``<sweep>/manifest.json``."""
    write_json(base_dir / MANIFEST, dataclasses.asdict(plan))


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


def make_plan(
    runs: Sequence[SweepRun], base_dir: Path, runtime: Runtime, pack: PackSize, jobs: int
) -> PackPlan | None:
    """Return the plan that a sweep follows, writing nothing; None where no run is packed.

    Args:
        runs: of the sweep.
        base_dir: holds the plan of an earlier start, which is kept.
        runtime: see ``runtime.Runtime``.
        pack: most runs in a pack, or ``auto``.
        jobs: packs side by side.

    Raises:
        ValueError: the sweep was begun with packs of another size, or a damaged plan.
    """
    present = None if runtime.overwrite else read_plan(base_dir)
    if pack == 1:
        return None
    if present is not None and pack in ("auto", present.size):
        _check_complete(present, runs, base_dir)
        return present.with_runs((r for r in runs if r.name not in present.names), base_dir)
    if present is not None and not runtime.force_engine_change:
        raise ValueError(
            f"{base_dir / MANIFEST}: this sweep has packs of up to {present.size} runs, not {pack};"
            " give --pack auto to keep them, or --force-engine-change to pack anew"
        )
    size, memory = (pack, {}) if pack != "auto" else choose_size(runs, runtime, jobs)
    plan = PackPlan(size=size, memory=memory)
    return plan.with_runs(runs, None if runtime.overwrite else base_dir)


def _check_complete(plan: PackPlan, runs: Sequence[SweepRun], base_dir: Path) -> None:
    """Refuse to go on with a part of a pack.

    Raises:
        ValueError: an unfinished pack has runs among ``runs`` and others.
    """
    steps = {run.name: run.config.training_steps for run in runs}
    for pack in plan.packs:
        others = set(pack) - steps.keys()
        done = all(has_ended(base_dir / name, steps.get(name)) for name in pack)
        if others and len(others) < len(pack) and not done:
            raise ValueError(
                f"{base_dir / MANIFEST}: {min(others)} is in a pack with runs of this command, but "
                "not one of them; give the sweep's whole grid"
            )


def choose_size(
    runs: Sequence[SweepRun], runtime: Runtime, jobs: int
) -> tuple[int, dict[str, int]]:
    """Return how many runs fit into the free memory, ``jobs`` packs side by side, and why.

    A pack is also no larger than lets every job have one.
    """
    largest = max(runs, key=lambda run: run.config.num_classes).config
    device = choose_device(runtime.device)
    inputs = load_inputs(largest, device, data_dir=runtime.data_dir, download=runtime.download)
    needed = bytes_per_run(largest, inputs)
    free = free_bytes(inputs.device)
    fitting = int(MEMORY_SHARE * free / jobs / needed)
    size = max(1, min(fitting, LARGEST_AUTO, math.ceil(len(runs) / jobs)))
    return size, {"free_bytes": free, "bytes_per_run": needed, "jobs": jobs}


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


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise ValueError("--pack auto: the free memory is not known here; give --pack K")
