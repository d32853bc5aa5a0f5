"""What a training run is, in the files that its resumption is checked against.

<run>/config.json        configurations, grouping and the scan's hash
<run>/environment.json   command line, versions, code, device, threads
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

from ptycho_torch.execution import ExecutionConfig
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.raw_data import RawDataTorch
from trainrig.files import write_json
from trainrig.processes import process_rank
from trainrig.runs import check_config, check_environment, describe_environment

#: Settings of the execution that decide the numbers.
DECIDING = ("seed", "precision", "accum_steps", "devices", "strategy", "deterministic")


def write_identity(
    run_dir: Path,
    model: PtychoPINN_Lightning,
    scan: RawDataTorch,
    execution: ExecutionConfig,
    preparation: Mapping[str, Any],
    *,
    check: bool,
) -> None:
    """Write ``config.json`` and ``environment.json``.

    Args:
        run_dir: created if needed.
        model: built from its configurations.
        scan: training scan.
        execution: hardware and seed.
        preparation: how the scan is grouped.
        check: whether a checkpoint is there to go on from; the files must agree then.

    Raises:
        ValueError: they do not, with the differences.
    """
    identity: dict[str, Any] = {
        name: asdict(getattr(model, f"{name}_config")) for name in ("model", "data", "training")
    }
    identity["training"].pop("output_dir")
    if model.training_config.scheduler == "Default":  # a constant rate: more epochs are a sequel
        identity["training"].pop("epochs")
    identity["execution"] = {name: getattr(execution, name) for name in DECIDING}
    identity["preparation"] = dict(preparation)
    identity["scan_sha256"] = scan_hash(scan)
    plain = json.loads(json.dumps(identity, default=str))
    environment = describe_environment(
        "ptycho_torch", device=execution.resolved_accelerator(), threads=torch.get_num_threads()
    )
    if check:
        check_config(run_dir, plain, "leave out --resume")
        environment = check_environment(run_dir, environment)
    if process_rank() > 0:  # the first process writes for all
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / "config.json", plain)
    write_json(run_dir / "environment.json", environment)


def scan_hash(scan: RawDataTorch) -> str:
    """Return 16 hexadecimal digits over positions, probe and 16 frames spread over the scan."""
    digest = hashlib.sha256(str(scan.diff3d.shape).encode())
    rows = np.linspace(0, len(scan) - 1, 16).astype(int)
    for array in (scan.xcoords, scan.ycoords, scan.probeGuess, scan.diff3d[np.unique(rows)]):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
