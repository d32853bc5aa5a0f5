"""What a training reads, and what it is: the ``config.json`` that is checked on resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.data.dataset import GroupDataset, check_frame_side, split_tail
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.physics.scaling import input_factor, mean_frame_energy
from ptycho_torch.raw_data import RawDataTorch
from ptycho_torch.scan.grouping import neighbourhoods
from trainrig.checkpoint import list_checkpoints
from trainrig.runs import LATEST

#: What ``config.json`` calls this system.
EXPERIMENT = "ptychography"
PARTS = ("model", "data", "training")
#: Settings of the execution that decide the numbers.
DECIDING = (
    "seed",
    "learning_rate",
    "precision",
    "accum_steps",
    "devices",
    "strategy",
    "deterministic",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData:
    """What is trained on, and how it is grouped.

    Attributes:
        scan: training scan.
        validation: scan for validation; None holds the last 5 % of the training groups.
        nsamples: groups, every frame as anchor by default.
        grouping: keywords of ``RawDataTorch.group`` beside the configuration's.
    """

    scan: RawDataTorch
    validation: RawDataTorch | None = None
    nsamples: int | None = None
    grouping: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, model: PtychoPINN_Lightning, seed: int) -> tuple[GroupDataset, GroupDataset]:
        """Fix the scan's scales in the model and return training and validation sets."""
        config, scan = model.data_config, self.scan
        check_frame_side(scan, config.N)
        settings = {"K": max(config.K, config.C), "seed": seed, **self.grouping}
        count = len(scan) if self.nsamples is None else self.nsamples
        groups = scan.group(config.grid_size[0], count, **settings)
        factor = input_factor(mean_frame_energy(scan.diff3d), scan.N)
        model.set_scan(scan.probe_modes, factor)
        photons = factor * float(model.intensity_scale)
        if self.validation is None:
            train_rows, held = split_tail(len(groups))
            other, other_groups = scan, groups
        else:
            train_rows, held = None, None
            other = self.validation
            other_groups = other.group(config.grid_size[0], len(other), **settings)
        labels = model.supervised
        overlap = model.training_config.overlap_frames
        if overlap > 1:
            index = groups.nn_indices[:, 0]
            frames = index if train_rows is None else index[train_rows]
            groups = neighbourhoods(scan.xcoords, scan.ycoords, frames, overlap)
            train_rows = None
        return (
            GroupDataset(scan, groups, photons, labels=labels, rows=train_rows),
            GroupDataset(other, other_groups, photons, labels=labels, rows=held),
        )


def identity_of(
    model: PtychoPINN_Lightning, data: TrainingData, execution: ExecutionConfig
) -> dict[str, Any]:
    """Return what decides a training's numbers, as plain data."""
    identity: dict[str, Any] = {"experiment": EXPERIMENT}
    identity |= {name: asdict(getattr(model, f"{name}_config")) for name in PARTS}
    for place in ("output_dir", "train_data_file", "test_data_file"):  # the contents are hashed
        identity["training"].pop(place)
    identity["execution"] = {name: getattr(execution, name) for name in DECIDING}
    identity["preparation"] = {"nsamples": data.nsamples, "grouping": dict(data.grouping)}
    identity["scan_sha256"] = scan_hash(data.scan)
    held = data.validation
    identity["validation_sha256"] = None if held is None else scan_hash(held)
    return json.loads(json.dumps(identity, default=str))


def length_key(training: Any) -> str | None:
    """Return the key of a run's length, which may grow; None where the learning rate hangs on it.

    Args:
        training: a training configuration, canonical or torch-side.
    """
    return None if training.scheduler in ("WarmupCosine", "Cosine") else "training.epochs"


def refuse_older_run(run_dir: Path, *, overwrite: bool) -> None:
    """Refuse a training whose checkpoints are of the format before: nothing starts over in silence.

    Raises:
        ValueError: naming the file.
    """
    if overwrite or list_checkpoints(run_dir / LATEST):
        return
    for name in ("last.ckpt", "interim.ckpt", "previous.ckpt"):
        file = run_dir / "checkpoints" / name
        if file.is_file() and not (run_dir / LATEST).exists():
            raise ValueError(
                f"{file}: of an earlier version, which continued trainings from such files; use "
                "another output directory, or --overwrite to start over"
            )


def scan_hash(scan: RawDataTorch) -> str:
    """Return 16 hexadecimal digits over positions, probe and 16 frames spread over the scan."""
    digest = hashlib.sha256(str(scan.diff3d.shape).encode())
    rows = np.linspace(0, len(scan) - 1, 16).astype(int)
    for array in (scan.xcoords, scan.ycoords, scan.probeGuess, scan.diff3d[np.unique(rows)]):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
