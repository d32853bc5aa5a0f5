"""Compare this package with recorded reference arrays: ``run(golden_dir) -> Report``.

Cases, settings and bounds come from the directory's files and its ``meta.json``; nothing about a
particular scan is known here. Each file of the format has one checker; files, arrays and settings
without one are listed as UNCHECKED.
"""

from __future__ import annotations

from pathlib import Path

# each import registers the checkers of one part of the format
from ptycho_torch.parity import config_cases, data_cases, image_cases, network_cases, physics_cases  # noqa: F401 - registration, after the registry
from ptycho_torch.parity.cases import Golden, handler_for
from trainrig.parity import Report

INFORMATION = ("README.md", "meta.json")

__all__ = ["run"]


def run(golden_dir: str | Path) -> Report:
    """Check every file of a golden directory.

    Args:
        golden_dir: a folder in the format of its own README: arrays as NPZ, scalars as JSON.

    Raises:
        FileNotFoundError: the folder or its ``meta.json`` is missing.
        ValueError: ``meta.json`` belongs to another system.
    """
    golden = Golden.open(Path(golden_dir))
    report = Report()
    for path in sorted(golden.directory.iterdir()):
        if path.name in INFORMATION or path.name == golden.scan_name:
            continue
        handler = handler_for(golden, path)
        if handler is None:
            report.unchecked(path.name, "no checker for this file")
            continue
        try:
            handler(golden, path, report)
        except KeyError as error:
            report.unchecked(path.name, f"setting or array {error} is missing")
    for name in golden.meta.get("networks", {}):
        if not (golden.directory / f"{name}.npz").is_file():
            report.unchecked(name, "named in meta.json, file is missing")
    return report
