"""What a training run is, in the files that its resumption is checked against.

<run>/config.json        configurations, grouping and the scan's hash
<run>/environment.json   command line, versions, code, device, threads
<run>/status.json        running | complete | diverged | failed | interrupted
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptycho_torch.config.execution import ExecutionConfig
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.raw_data import RawDataTorch
from trainrig.files import write_json
from trainrig.processes import process_count, process_rank
from trainrig.runs import check_config, check_environment, describe_environment

#: What ``config.json`` calls this system.
EXPERIMENT = "ptychography"
PARTS = ("model", "data", "training")
#: Settings of the execution that decide the numbers.
DECIDING = ("seed", "precision", "accum_steps", "devices", "strategy", "deterministic")


def identity_of(
    model: PtychoPINN_Lightning,
    scan: RawDataTorch,
    execution: ExecutionConfig,
    preparation: Mapping[str, Any],
    validation: RawDataTorch | None = None,
) -> dict[str, Any]:
    """Return what decides a training's numbers, as plain data.

    Args:
        model: built from its configurations.
        scan: training scan.
        execution: hardware and seed.
        preparation: how the scan is grouped.
        validation: scan of its own for validation, if any.
    """
    identity: dict[str, Any] = {"experiment": EXPERIMENT}
    identity |= {name: asdict(getattr(model, f"{name}_config")) for name in PARTS}
    for place in ("output_dir", "train_data_file", "test_data_file"):  # the contents are hashed
        identity["training"].pop(place)
    if model.training_config.scheduler == "Default":  # a constant rate: more epochs are a sequel
        identity["training"].pop("epochs")
    identity["execution"] = {name: getattr(execution, name) for name in DECIDING}
    identity["preparation"] = dict(preparation)
    identity["scan_sha256"] = scan_hash(scan)
    identity["validation_sha256"] = None if validation is None else scan_hash(validation)
    return json.loads(json.dumps(identity, default=str))


def check_identity(
    run_dir: Path, identity: Mapping[str, Any], execution: ExecutionConfig
) -> dict[str, Any]:
    """Refuse to continue a training that was begun otherwise; return the environment to record.

    Raises:
        ValueError: with the differences.
    """
    check_config(run_dir, identity)
    return check_environment(run_dir, environment_of(execution))


def environment_of(execution: ExecutionConfig) -> dict[str, Any]:
    """Return command line, versions, code, device, threads and processes of a training."""
    devices = execution.devices if isinstance(execution.devices, int) else 1
    return describe_environment(
        "ptycho_torch",
        device=execution.resolved_accelerator(),
        threads=torch.get_num_threads(),
        processes=max(devices, process_count()),  # Lightning starts the others later
    )


def write_identity(
    run_dir: Path,
    identity: Mapping[str, Any],
    execution: ExecutionConfig,
    *,
    check: bool,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write ``config.json`` and ``environment.json``, in the process that leads.

    Args:
        run_dir: created if needed.
        identity: as ``identity_of`` returns it.
        execution: hardware.
        check: whether a checkpoint is there to go on from; the files must agree then.
        record: what else ``environment.json`` says.

    Raises:
        ValueError: they do not.
    """
    if process_rank() > 0:  # the first process checks and writes for all
        return
    environment = (
        check_identity(run_dir, identity, execution) if check else environment_of(execution)
    )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / "config.json", dict(identity))
    write_json(run_dir / "environment.json", {**environment, **(record or {})})


def scan_hash(scan: RawDataTorch) -> str:
    """Return 16 hexadecimal digits over positions, probe and 16 frames spread over the scan."""
    digest = hashlib.sha256(str(scan.diff3d.shape).encode())
    rows = np.linspace(0, len(scan) - 1, 16).astype(int)
    for array in (scan.xcoords, scan.ycoords, scan.probeGuess, scan.diff3d[np.unique(rows)]):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
