"""Proof that the port computes what the reference computed: every case of a recorded directory.

``run`` discovers cases from the files, their JSON and ``meta.json``; nothing here lists them. What
it cannot judge is reported as unchecked, never passed over.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from pytorch_port.parity.golden import CASE_ERRORS, Golden
from pytorch_port.parity.metrics import check_metrics, check_positions, check_schedules
from pytorch_port.parity.models import check_models
from trainrig.device import choose_device
from trainrig.parity import Report

__all__ = ["run"]

DOCUMENTS = ("README.md", "meta.json")


def run(golden_dir: Path | str, device: str = "cpu", sequences: int = 50_000) -> Report:
    """Check everything in ``golden_dir`` (format: the directory's own README).

    Args:
        golden_dir: holds ``meta.json`` and recorded arrays.
        device: where the models run: ``cpu``, ``cuda``, ``cuda:N``; always in full float32.
        sequences: drawn by the vectorised sampler for each case of the statistics.

    Raises:
        FileNotFoundError: no such directory, or no ``meta.json`` in it.
        ValueError: an unreadable ``meta.json``, or a device that is not there.
    """
    if sequences < 1:
        raise ValueError(f"--sequences {sequences}: must be at least 1")
    golden = Golden(Path(golden_dir), str(choose_device(device)))
    report = Report()
    handled = set(DOCUMENTS)
    generator = partial(_check_generator, sequences=sequences)
    checks = (check_models, check_metrics, check_positions, check_schedules, generator)
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        for check in checks:
            try:
                handled |= check(golden, report)
            except CASE_ERRORS as error:  # a file of another form must not hide the other files
                name = getattr(check, "__name__", "check generator").replace("_", " ")
                report.equal(name, "runs", False, f"{type(error).__name__}: {error}")
    for path in sorted(golden.path.iterdir()):
        if path.name not in handled:
            report.unchecked(path.name, "no check knows this file")
    return report


def _check_generator(golden: Golden, report: Report, sequences: int) -> set[str]:
    """Hand the generator's files to their own checker."""
    files = {path.name for path in golden.path.glob("generator_*")}
    if files:
        from pytorch_port.parity.generator import check_generator

        check_generator(golden.path, report, sequences)
    return files
