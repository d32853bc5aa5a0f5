"""Proof that the port computes what the reference computed: every case of a recorded directory.

``run`` discovers cases from the files, their JSON and ``meta.json``; nothing here lists them. What
it cannot judge is reported as unchecked, never passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from pytorch_port.parity.golden import Golden
from pytorch_port.parity.metrics import check_metrics, check_positions, check_schedules
from pytorch_port.parity.models import check_models
from trainrig.device import Precision, choose_device, set_precision
from trainrig.parity import Recording, Report

__all__ = ["run"]

#: Names of the files that some check opens, or that are for people.
KNOWN = (
    *Recording.DOCUMENTS,
    "model_*.npz",
    "models.json",
    "metrics.json",
    "metrics.npz",
    "positional_encodings.npz",
    "lr_schedule.npz",
    "generator_*",
)


def run(
    golden_dir: Path | str,
    device: str = "cpu",
    sequences: int = 50_000,
    precision: Precision = "fp32",
) -> Report:
    """Check everything in ``golden_dir`` (format: the directory's own README).

    Args:
        golden_dir: holds ``meta.json`` and recorded arrays.
        device: where the models run: ``cpu``, ``cuda``, ``cuda:N``.
        sequences: drawn by the vectorised sampler for each case of the statistics.
        precision: of float32 products on CUDA: ``fp32`` as runs have by default, or ``tf32``, which
            shows what rounding to TF32 costs.

    Raises:
        FileNotFoundError: no such directory, or no ``meta.json`` in it.
        ValueError: an unreadable ``meta.json``, or a device that is not there.
    """
    if sequences < 1:
        raise ValueError(f"--sequences {sequences}: must be at least 1")
    golden = Golden(Path(golden_dir), str(choose_device(device)))
    set_precision(precision)
    report = Report()
    checks: dict[str, Callable[[Golden, Report], object]] = {
        "models": check_models,
        "metrics": check_metrics,
        "positions": check_positions,
        "schedules": check_schedules,
        "generator": partial(_check_generator, sequences=sequences),
    }
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        for name, check in checks.items():
            with report.attempt(name):  # a file of another form must not hide the other files
                check(golden, report)
    golden.except_(("bounds", "skip_grad_of"), report)
    golden.except_(("reference_bugs",), report)
    golden.except_(("not_cases",), report)
    for path in sorted(golden.folder.iterdir()):
        if not any(path.match(pattern) for pattern in KNOWN):
            report.unchecked(path.name, "no check knows this file")
    golden.unneeded("traces")  # a run that lacks its settings is listed itself
    golden.report_meta(report)
    return report


def _check_generator(golden: Golden, report: Report, sequences: int) -> None:
    """Hand the generator's files to their own checker."""
    if any(golden.folder.glob("generator_*")):
        from pytorch_port.parity.generator import check_generator

        check_generator(golden, report, sequences)
